"""Noun: what the ledger says about a version now: judged, overtaken, waiting, on its way, taken back, champion before.

What the bodies hold (`Verdict` is what this module reads of a decision):

    decision   name, version, bundle_hash, verdict ("passed" or "failed"), champion_hash (null: there was none), ...
    approval   name, version, bundle_hash, decision_hash, approver, rationale, meaning             (signed)
    stage      name, version, bundle_hash, decision_hash, approval_hash, stage ("shadow" or "canary"), plan,
               champion_version, champion_hash, alerts (that took the comparisons out of the plan; where there were
               any), seen (figures of the stage before, where there was one)
    rollout    name, version, bundle_hash, decision_hash, approval_hash, alerts, seen (the same)
    return     name, version, bundle_hash, decision_hash, approval_hash, stage, stage_hash, reasons, seen
    rollback   name, version, bundle_hash, replaced_version, replaced_hash, user, reason, meaning  (signed)

Which version is in which stage says `Ledger.staged`; `Ledger.champion` is the one that answers every other case. All of
it is read from `Ledger.entries`, where the words of strangers are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import PromotionRefused
from components.promotion.ledger import Entry, Ledger
from components.promotion.signers import Signed


class Verdict(BaseModel):
    """What approving reads of a decision's body; the rest of the record is for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int
    bundle_hash: str
    verdict: str
    champion_hash: str | None
    proposer: str | None = None


def record_of(entries: Iterable[Entry], name: str, version: int) -> Entry | None:
    """The decision that counts of a version: the one that was approved last, else the gate's last word; None: none."""
    mine = [e for e in entries if (e.body.get("name"), e.body.get("version")) == (name, version)]
    decisions = [e for e in mine if e.kind == "decision"]
    approved = [e.body.get("decision_hash") for e in mine if e.kind == "approval"][-1:]
    return next(iter([e for e in decisions if e.hash in approved] + decisions[-1:]), None)


def has_passed(ledger: Ledger, name: str, version: int) -> bool:
    """Whether the gate's last word about this version is a pass."""
    verdicts = [v for e in ledger.entries("decision") if (v := _verdict(e)) and (v.name, v.version) == (name, version)]
    return bool(verdicts) and verdicts[-1].verdict == "passed"


def passed(ledger: Ledger, name: str, version: int, bundle_hash: str) -> Entry:
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
    if taken := returned(ledger, entry):
        raise PromotionRefused(
            f"{what}: it was taken back from {taken.body['stage']} (ledger entry {taken.seq}: "
            f"{'; '.join(taken.body['reasons'])}); judge it again"
        )
    return entry


def returned(ledger: Ledger, decision: Entry) -> Entry | None:
    """The entry by which what this decision let go was taken back since; None: it was not.

    Another decision about the same bundle, from before that, has nothing more to say than this one.
    """
    return _returned(decision, ledger.entries("return"))


def waiting(ledger: Ledger, name: str) -> list[Entry]:
    """Approvals without a rollout with which a decision that still stands has all the signatures it needs.

    Those of versions on their way through the stages are among them.
    """
    done = {e.body.get("approval_hash") for e in ledger.entries("rollout")}
    found = [signed.completing for _, signed in _open(ledger, name)]
    return sorted((a for a in found if a is not None and a.hash not in done), key=lambda approval: approval.seq)


def unfinished(ledger: Ledger, name: str) -> list[tuple[int, Signed]]:
    """Versions that some have signed for and that others still have to sign, with the signatures."""
    lacking = [(verdict.version, s) for verdict, s in _open(ledger, name) if s.approvals and s.completing is None]
    return [(version, signed) for version, signed in lacking if has_passed(ledger, name, version)]


def _open(ledger: Ledger, name: str) -> Iterator[tuple[Verdict, Signed]]:
    """The passed decisions that still stand, and who signed them."""
    entries, champion = ledger.entries(), ledger.champion(name)
    returns = [entry for entry in entries if entry.kind == "return"]
    for decision in entries:
        verdict = _verdict(decision) if decision.kind == "decision" else None
        if verdict is None or (verdict.name, verdict.verdict) != (name, "passed"):
            continue
        if _stands(decision, verdict, champion) and not _returned(decision, returns):
            yield verdict, Signed.of(decision, entries)


def back(ledger: Ledger, name: str, present: Entry, to_version: int | None) -> tuple[Entry, Entry]:
    """The entry a rollback returns to, and the one of the version it takes back.

    A version in canary is what has begun to answer last, so it goes first. One in shadow answers nobody: it goes when
    the present champion is named, or with the champion it was judged against. A champion that a stranger's rollback
    silences (serving/champion) is returned to by its number.
    """
    staged = ledger.staged(name)
    if staged is None and to_version == present.body["version"] and _silenced(ledger, name, present):
        return present, present
    if staged and (staged.body["stage"] == "canary" if to_version is None else to_version == present.body["version"]):
        return present, staged
    return earlier(ledger, name, present, to_version), present


def _silenced(ledger: Ledger, name: str, present: Entry) -> bool:
    since = (e for e in ledger.strangers() if e.kind == "rollback" and e.seq > present.seq)
    return any(entry.body.get("name") == name for entry in since)


def earlier(ledger: Ledger, name: str, present: Entry, to_version: int | None) -> Entry:
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


def _stands(decision: Entry, verdict: Verdict, champion: Entry | None) -> bool:
    """Whether no champion has come or gone since the decision was taken."""
    if champion is None:
        return verdict.champion_hash is None
    return champion.seq < decision.seq and champion.body["bundle_hash"] == verdict.champion_hash


def _returned(decision: Entry, returns: Iterable[Entry]) -> Entry | None:
    same = [(fact, decision.body.get(fact)) for fact in ("name", "bundle_hash")]
    since = (e for e in returns if e.seq > decision.seq)
    return next((e for e in since if all(e.body.get(fact) == value for fact, value in same)), None)


def _verdict(entry: Entry) -> Verdict | None:
    try:
        return Verdict.model_validate(entry.body)
    except ValidationError:
        return None


def _short(bundle_hash: str | None) -> str:
    return bundle_hash[:12] if bundle_hash else "none"
