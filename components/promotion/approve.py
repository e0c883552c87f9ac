"""Effect: a person's word on a judged version: approve, roll out, roll back; and keep the alias to what was decided.

The ledger decides, the alias `champion` shows. Every move is one ledger entry first and the alias second, so a kill
between the two leaves a difference that `reconcile` repairs.

What the bodies hold (`Verdict` reads a decision):

    decision   name, version, bundle_hash, verdict ("passed" or "failed"), champion_hash (null: there was none), ...
    approval   name, version, bundle_hash, decision_hash, approver, rationale, meaning             (signed)
    rollout    name, version, bundle_hash, decision_hash, approval_hash
    rollback   name, version, bundle_hash, replaced_version, replaced_hash, user, reason, meaning  (signed)
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import BundleCorrupt, PromotionRefused
from components.promotion.ledger import Chain, Entry, Ledger, SigningKey
from components.promotion.register import verified_hash
from components.promotion.registry import CHALLENGER, CHAMPION, Registry, Version

MEANING = "approved for clinical decision support use as champion"
MEANING_BACK = "returned to clinical decision support use as champion"


class Verdict(BaseModel):
    """What approving reads of a decision's body; the rest of the record is for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int
    bundle_hash: str
    verdict: str
    champion_hash: str | None
    proposer: str | None = None


def approve(
    *, ledger: Ledger, registry: Registry, name: str, version: int, approver: str, rationale: str, key: SigningKey
) -> Entry:
    """Sign that `version` may serve. Nothing moves yet: `roll_out` does that.

    Saying it again about the same decision returns one's first entry.

    Args:
        approver: who says so; must not be the version's proposer, and must be the key's own name.
        rationale: why, in the approver's words.
        key: signs the entry.

    Raises:
        PromotionRefused: no passed decision about exactly this bundle, a decision that another champion has
            overtaken, the proposer's own build, or no rationale. The message says which.
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
        decision = _passed(ledger, name, version, bundle_hash)
        if approver in (found.proposer, decision.body.get("proposer")):
            raise PromotionRefused(f"{what}: {approver!r} proposed it; another person has to approve it")
        for earlier in ledger.entries("approval"):
            if (earlier.body.get("decision_hash"), earlier.signer) == (decision.hash, approver):
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


def roll_out(*, ledger: Ledger, registry: Registry, name: str, bundles: Path | None = None) -> list[Entry]:
    """Make every signed approval that is not live yet the champion, oldest first, exactly once.

    An approval whose decision was taken against a champion that has changed since is passed over.

    Args:
        bundles: folder the service loads from; each bundle is fetched to `<bundles>/<hash>` before it goes live.

    Returns:
        The rollout entries added now.

    Raises:
        PromotionRefused: the registry's bundle is not, part by part, the one that was approved.
        Unavailable: the registry does not answer.
    """
    added = []
    for approval in _waiting(ledger, name):
        version, bundle_hash = int(approval.body["version"]), str(approval.body["bundle_hash"])
        if bundles is not None:
            _fetch(registry, name, version, bundle_hash, bundles / bundle_hash)
        with ledger.locked() as chain:
            if approval.hash not in {a.hash for a in _waiting(ledger, name)}:
                continue  # another process was faster
            added.append(_add_rollout(chain, approval))
        _move(registry, name, version)
    return added


def rollback(
    *, ledger: Ledger, registry: Registry, name: str, to_version: int | None, reason: str, user: str, key: SigningKey
) -> Entry:
    """Return to an earlier champion now.

    Args:
        to_version: a version that was champion before; None means the one before the present.
        reason: why, in the user's words.
        user: who says so; must be the key's own name.

    Raises:
        PromotionRefused: no champion, no earlier one, a version that never was champion, or no reason.
    """
    reason = reason.strip()
    if not reason:
        raise PromotionRefused(f"{name}: a rollback needs a reason, in your own words")
    if user != key.name:
        raise PromotionRefused(f"{name}: the key of {key.name!r} cannot sign for {user!r}")
    with ledger.locked() as chain:
        present = ledger.champion(name)
        if present is None:
            raise PromotionRefused(f"{name}: there is no champion to roll back")
        target = _earlier(ledger, name, present, to_version)
        body = {
            "name": name,
            "version": target.body["version"],
            "bundle_hash": target.body["bundle_hash"],
            "replaced_version": present.body["version"],
            "replaced_hash": present.body["bundle_hash"],
            "user": user,
            "reason": reason,
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
    # An alias that is ahead of the ledger by a signed approval is the guard's doing: roll_out follows it.
    if found == wanted or found in {int(a.body["version"]) for a in _waiting(ledger, name)}:
        return None
    if wanted is None:
        registry.delete_alias(name, CHAMPION)
        return f"{name}: version {found} carried the alias champion, the ledger names none; taken off"
    registry.set_alias(name, wanted, CHAMPION)
    return f"{name}: the alias champion was on version {found or 'none'}, the ledger names version {wanted}; moved back"


def has_passed(ledger: Ledger, name: str, version: int) -> bool:
    """Whether the gate's last word about this version is a pass."""
    verdicts = [v for e in ledger.entries("decision") if (v := _verdict(e)) and (v.name, v.version) == (name, version)]
    return bool(verdicts) and verdicts[-1].verdict == "passed"


def _hash_of(registry: Registry, version: Version) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return verified_hash(registry.download_bundle(version.name, version.version, Path(folder) / "bundle"))


def _passed(ledger: Ledger, name: str, version: int, bundle_hash: str) -> Entry:
    """The last decision about this version, which must be a pass, of this bundle, against the present champion."""
    what = f"{name} version {version}"
    decisions = [
        (e, v) for e in ledger.entries("decision") if (v := _verdict(e)) and (v.name, v.version) == (name, version)
    ]
    if not decisions:
        raise PromotionRefused(
            f"{what}: the gate has not judged it; run `osteoflow retrain`, which judges what it builds"
        )
    entry, verdict = decisions[-1]
    if verdict.verdict != "passed":
        raise PromotionRefused(f"{what}: the gate said {verdict.verdict!r} (ledger entry {entry.seq}), not 'passed'")
    if verdict.bundle_hash != bundle_hash:
        raise PromotionRefused(
            f"{what}: the registry holds bundle {bundle_hash[:12]}, the gate judged {verdict.bundle_hash[:12]}"
        )
    champion = ledger.champion(name)
    present = champion.body["bundle_hash"] if champion else None
    if champion is not None and present == bundle_hash:
        raise PromotionRefused(f"{what}: it is champion already (ledger entry {champion.seq})")
    if not _stands(entry, verdict, champion):
        raise PromotionRefused(
            f"{what}: it was judged against champion {_short(verdict.champion_hash)} (ledger entry {entry.seq}), which "
            f"has changed since; it is {_short(present)} now; judge it again"
        )
    return entry


def _stands(decision: Entry, verdict: Verdict, champion: Entry | None) -> bool:
    """Whether no champion has come or gone since the decision was taken."""
    if champion is None:
        return verdict.champion_hash is None
    return champion.seq < decision.seq and champion.body["bundle_hash"] == verdict.champion_hash


def _verdict(entry: Entry) -> Verdict | None:
    try:
        return Verdict.model_validate(entry.body)
    except ValidationError:
        return None


def _waiting(ledger: Ledger, name: str) -> list[Entry]:
    """Signed approvals without a rollout whose decision still stands."""
    entries = {e.hash: e for e in ledger.entries()}
    done = {e.body.get("approval_hash") for e in entries.values() if e.kind == "rollout"}
    champion = ledger.champion(name)
    waiting = []
    for entry in entries.values():
        if entry.kind != "approval" or entry.hash in done or entry.body.get("name") != name or not entry.signature:
            continue
        decision = entries.get(str(entry.body.get("decision_hash")))
        verdict = _verdict(decision) if decision and decision.kind == "decision" else None
        if decision is None or verdict is None or verdict.verdict != "passed":
            continue
        if verdict.bundle_hash == entry.body["bundle_hash"] and _stands(decision, verdict, champion):
            waiting.append(entry)
    return waiting


def _add_rollout(chain: Chain, approval: Entry) -> Entry:
    same = {key: approval.body[key] for key in ("name", "version", "bundle_hash", "decision_hash")}
    return chain.append("rollout", same | {"approval_hash": approval.hash})


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


def _earlier(ledger: Ledger, name: str, present: Entry, to_version: int | None) -> Entry:
    """The entry that made the wanted version champion before; None wants the one below the present."""
    stack: list[Entry] = []  # champions as they lie on each other: a rollback takes off what it returned from
    past: dict[int, Entry] = {}
    for entry in ledger.entries():
        if entry.kind not in ("rollout", "rollback") or entry.body.get("name") != name:
            continue
        below = [n for n, e in enumerate(stack) if e.body["bundle_hash"] == entry.body["bundle_hash"]]
        if entry.kind == "rollback" and below:
            del stack[below[-1] :]
        stack.append(entry)
        past[int(entry.body["version"])] = entry
    past.pop(int(present.body["version"]), None)
    target = past.get(to_version) if to_version is not None else (stack[-2] if len(stack) > 1 else None)
    if target is None:
        known = ", ".join(map(str, sorted(past))) or "none"
        wanted = "earlier champion" if to_version is None else f"champion {to_version} before this one"
        raise PromotionRefused(f"{name}: there was no {wanted}; other champions so far: {known}")
    return target


def _short(bundle_hash: str | None) -> str:
    return bundle_hash[:12] if bundle_hash else "none"
