"""Effect: a person's word on a judged version: approve, roll out, roll back; and keep the alias to what was decided.

The ledger decides, the alias `champion` shows. Every move is one ledger entry first and the alias second, so a kill
between the two leaves a difference that `reconcile` repairs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from components.errors import BundleCorrupt, PromotionRefused
from components.params import RollOut
from components.promotion import standing
from components.promotion.advance import Compared, advance
from components.promotion.ledger import Entry, Ledger, SigningKey
from components.promotion.register import verified_hash
from components.promotion.registry import CHALLENGER, CHAMPION, Registry, Version
from components.promotion.roles import Roll
from components.promotion.signers import Signed, roles_to_sign, signers_of
from components.promotion.signing import word

MEANING = "approved for clinical decision support use as champion"
MEANING_BACK = "returned to clinical decision support use as champion"


def approve(
    *, ledger: Ledger, registry: Registry, name: str, version: int, approver: str, rationale: str, key: SigningKey
) -> Entry:
    """Sign that `version` may serve. Nothing moves yet: `roll_out` does that, once all have signed whom the decision's
    protocol asks for.

    Saying it again about the same decision returns one's first entry that counts.

    Args:
        approver: who says so; must not be the version's proposer, and must be the key's own name.
        rationale: why, in the approver's words.
        key: signs the entry.

    Raises:
        PromotionRefused: no passed decision about exactly this bundle, a decision that another champion has
            overtaken, the proposer's own build, nobody in a role that the decision wants signatures of (where roles are
            given), or no rationale. The message says which.
        ConfigError: there is no such version.
    """
    found = registry.version(name, version)
    what = f"{name} version {version}"
    rationale = rationale.strip()
    if not rationale:
        raise PromotionRefused(f"{what}: an approval needs a rationale, in your own words")
    if not found.proposer:
        raise PromotionRefused(f"{what}: nobody is on record as its proposer; register the build again")
    if approver != key.name:
        raise PromotionRefused(f"{what}: the key of {key.name!r} cannot sign for {approver!r}")
    bundle_hash = _hash_of(registry, found)
    with ledger.locked() as chain:
        decision = standing.passed(ledger, name, version, bundle_hash)
        proposers = {str(who).casefold() for who in (found.proposer, decision.body.get("proposer"))}
        if approver.casefold() in proposers:  # `Reviewer` is no second person
            raise PromotionRefused(f"{what}: {approver!r} proposed it; another person has to approve it")
        needed, entries = signers_of(decision), ledger.entries()
        if needed is None:
            raise PromotionRefused(f"{what}: {Signed(None, ()).text()}")
        if not roles_to_sign(needed, Roll(entries), approver):
            raise PromotionRefused(
                f"{what}: {approver!r} is none of those who sign here ({needed.text()}); see `osteoflow users list`"
            )
        # One that does not count, as since whoever gave the signer's role lost their key, does not stand in the way.
        for earlier in Signed.of(decision, entries).approvals:
            if earlier.signer == approver:
                return earlier
        body = {
            "name": name,
            "version": version,
            "bundle_hash": bundle_hash,
            "decision_hash": decision.hash,
            "approver": approver,
            "rationale": rationale,
            "meaning": MEANING,
        }
        return chain.append("approval", body, key=key)


def roll_out(
    *,
    ledger: Ledger,
    registry: Registry,
    name: str,
    plan: RollOut,
    compared: Compared,
    alerts: Sequence[Entry] = (),
    bundles: Path | None = None,
) -> list[Entry]:
    """Take every version that all have signed whom its decision asks for, and that is not live yet, its next step,
    oldest first, exactly once; see `advance`.

    An approval whose decision was taken against a champion that has changed since is passed over.

    Args:
        plan: the stages a version goes through that begins its way now.
        compared: what a stage has met so far; asked only while a version is in one.
        alerts: what stands against the champion; see `advance`.
        bundles: folder the service loads from; each bundle is fetched to `<bundles>/<hash>` before it goes live.

    Returns:
        The entries added now: `stage`, `rollout`, `return`.

    Raises:
        PromotionRefused: the registry's bundle is not, part by part, the one that was approved.
        Unavailable: the registry or the prediction log does not answer.
    """
    added = []
    for approval in standing.waiting(ledger, name):
        version, bundle_hash = int(approval.body["version"]), str(approval.body["bundle_hash"])
        if bundles is not None:
            _fetch(registry, name, version, bundle_hash, bundles / bundle_hash)
        steps = advance(ledger, approval, plan, compared, alerts)
        added += steps
        if any(step.kind == "rollout" for step in steps):
            _move(registry, name, version)
    return added


def rollback(
    *, ledger: Ledger, registry: Registry, name: str, to_version: int | None, reason: str, user: str, key: SigningKey
) -> Entry:
    """Return to an earlier champion now; to the present one, from a version that is on its way.

    Args:
        to_version: a version that was champion before, or the champion while another is on its way; None means the one
            before the present, and in canary the present: whoever has begun to answer last is taken back.
        reason: why, in the user's words.
        user: who says so; must be the key's own name.

    Raises:
        PromotionRefused: no champion, no earlier one, a version that never was champion, nobody who is a reviewer
            (where roles are given), or no reason.
    """
    said = word(f"{name}: ", "a rollback", reason, user, key)
    with ledger.locked() as chain:
        if not Roll(ledger.entries()).lets(user, "reviewer"):
            raise PromotionRefused(
                f"{name}: {user!r} is no reviewer, who alone says which model answers; `osteoflow stop`, which takes "
                "AI output off, is open to everybody"
            )
        present = ledger.champion(name)
        if present is None:
            raise PromotionRefused(f"{name}: there is no champion to roll back")
        target, replaced = standing.back(ledger, name, present, to_version)
        body = {
            "name": name,
            "version": target.body["version"],
            "bundle_hash": target.body["bundle_hash"],
            "replaced_version": replaced.body["version"],
            "replaced_hash": replaced.body["bundle_hash"],
            **said,
            "meaning": MEANING_BACK,
        }
        entry = chain.append("rollback", body, key=key)
    registry.set_alias(name, int(entry.body["version"]), CHAMPION)
    return entry


def reconcile(*, ledger: Ledger, registry: Registry, name: str) -> str | None:
    """Put the alias `champion` where the ledger says it belongs.

    Returns:
        What was wrong and is repaired now, or None.
    """
    entry = ledger.champion(name)
    carrier = registry.at(name, CHAMPION)
    wanted = int(entry.body["version"]) if entry else None
    found = carrier.version if carrier else None
    # An alias that is ahead of the ledger by a signed approval is the guard's doing: roll_out follows it. Once that has
    # brought the version into a stage, the alias belongs to whoever is still champion.
    staged = ledger.staged(name)
    ahead = {int(a.body["version"]) for a in standing.waiting(ledger, name)}
    ahead = {version for version in ahead if standing.has_passed(ledger, name, version)}
    if found == wanted or found in ahead - ({int(staged.body["version"])} if staged else set()):
        return None
    if wanted is None:
        registry.delete_alias(name, CHAMPION)
        return f"{name}: version {found} carried the alias champion, the ledger names none; taken off"
    registry.set_alias(name, wanted, CHAMPION)
    return f"{name}: the alias champion was on version {found or 'none'}, the ledger names version {wanted}; moved back"


def _hash_of(registry: Registry, version: Version) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return verified_hash(registry.download_bundle(version.name, version.version, Path(folder) / "bundle"))


def _fetch(registry: Registry, name: str, version: int, bundle_hash: str, folder: Path) -> None:
    """Have the approved bundle in `folder`; anything else found there goes."""
    try:
        found = verified_hash(registry.download_bundle(name, version, folder))
        if found == bundle_hash:
            return
        problem = f"expected bundle {bundle_hash[:12]}, found {found[:12]} in the registry"
    except BundleCorrupt as error:
        problem = str(error)
    shutil.rmtree(folder, ignore_errors=True)
    raise PromotionRefused(f"{name} version {version}: {problem}; it does not go live")


def _move(registry: Registry, name: str, version: int) -> None:
    registry.set_alias(name, version, CHAMPION)
    if CHALLENGER in registry.version(name, version).aliases:
        registry.delete_alias(name, CHALLENGER)
