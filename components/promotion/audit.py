"""Noun: what can be checked of a promoted version years later, and what each check found.

The ledger verifies itself (`Ledger.verify`: form, chain, signatures, and its end against the witness). These are the
checks of what its entries point at. A check never stops another: whoever audits wants all that is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import DataError, LedgerCorrupt, OsteoflowError
from components.promotion.decision import Decision, protocol_hash
from components.promotion.ledger import Entry
from components.promotion.register import MANIFEST, verified_hash
from components.promotion.roles import held
from components.promotion.signers import Signed


class Finding(BaseModel):
    """One check: of what, whether it holds, and what was seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    well: bool
    detail: str


class Findings(BaseModel):
    """Every check, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    findings: tuple[Finding, ...]

    @property
    def well(self) -> bool:
        return all(finding.well for finding in self.findings)

    def text(self) -> str:
        """A line a check, and the outcome."""
        lines = [f"{'ok  ' if f.well else 'BAD '} {f.what:<22} {f.detail}" for f in self.findings]
        bad = sum(not f.well for f in self.findings)
        return "\n".join(
            [*lines, f"{len(self.findings)} checks, " + (f"{bad} of them failed." if bad else "all hold.")]
        )


@dataclass(frozen=True)
class Promoted:
    """A version that serves or has served, be it silently, with the entries that let it."""

    version: int
    bundle_hash: str
    decision: Entry
    approval: Entry


def finding(what: str, check: Callable[[], str]) -> Finding:
    """Run `check`: what it returns is seen, one of our errors is what is wrong."""
    try:
        return Finding(what=what, well=True, detail=check())
    except OsteoflowError as error:
        return Finding(what=what, well=False, detail=str(error))


def promoted(entries: Sequence[Entry], name: str) -> Iterator[Promoted | Finding]:
    """Each version of `name` that ever went into a stage or out to every case; a finding where its way up is broken."""
    known, told, seen = {entry.hash: entry for entry in entries}, set(), set()
    for move in entries:
        if move.kind not in ("stage", "rollout", "rollback") or move.body.get("name") != name:
            continue
        version, bundle_hash = int(move.body["version"]), str(move.body["bundle_hash"])
        try:
            if move.kind == "rollback":
                _require(move.signature is not None, move, "nobody signed it")
                _require(held(move, "reviewer", entries), move, f"{move.signer!r} was no reviewer")
                _require(bundle_hash in seen, move, "returns to a bundle that was never rolled out")
                continue
            found = _way_up(move, known)
        except LedgerCorrupt as error:
            yield Finding(what=f"version {version}: way up", well=False, detail=str(error))
            continue
        if bundle_hash not in told:
            yield Promoted(version, bundle_hash, *found)
        told.add(bundle_hash)
        if move.kind == "rollout":
            seen.add(bundle_hash)


def of_stranger(word: Entry) -> str:
    """What is to be said of a word that nobody who is known here has signed."""
    why = "nobody signed it"
    if word.signer is not None:
        why = f"{word.signer!r} signed with a key that the key folder does not have of that name (sign-NAME.pub)"
    return f"ledger entry {word.seq} ({word.kind}): {why}; it counts for nothing"


def reproduced(entries: Sequence[Entry], bundle_hash: str) -> Iterator[Finding]:
    """What came of building a bundle again, the last time; nothing where nobody has."""
    tries = [e for e in entries if e.kind == "reproduction" and e.body.get("bundle_hash") == bundle_hash]
    if tries:
        body, first, most = tries[-1].body, tries[-1].body["first_difference"], tries[-1].body["largest_difference"]
        detail = f"ledger entry {tries[-1].seq}: built again {len(tries)} time(s), the last time {body['verdict']}"
        if first:
            detail += f", from {first} on" + (f", {most['figure']} by {most['is']:.4f}" if most else "")
            detail += f", tolerance {body['tolerance']:g}"
        detail += f" ({body['machine']}, {tries[-1].time[:10]})"
        yield Finding(what=f"version {body['version']}: built again", well=body["verdict"] != "differs", detail=detail)


def records(entries: Sequence[Entry]) -> str:
    """Check that each record names the one before it about its model; records of format 1 name none.

    Raises:
        LedgerCorrupt: one does not.
    """
    last: dict[str, str] = {}
    decisions = [entry for entry in entries if entry.kind == "decision"]
    for entry in decisions:
        name = str(entry.body.get("name"))
        if entry.body.get("format") not in (None, 1):
            _require(entry.body.get("previous_record") == last.get(name), entry, "does not name the record before it")
        last[name] = entry.hash
    return f"{len(decisions)} decision(s), each with the one before it"


def record(decision: Entry) -> str:
    """Check that a decision is one of the gate's records, and its protocol the one whose hash it states.

    Raises:
        DataError: it is not.
    """
    found = read_record(decision)
    if (stated := found.protocol_sha256) != (counted := protocol_hash(decision.body["protocol"])):
        raise DataError(f"ledger entry {decision.seq}: protocol {counted[:12]} where the record states {stated[:12]}")
    return f"ledger entry {decision.seq}: {found.verdict} on {found.images} images, protocol {stated[:12]}"


def read_record(decision: Entry) -> Decision:
    """The gate's record in a decision.

    Raises:
        DataError: it is none.
    """
    try:
        return Decision.model_validate(decision.body)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise DataError(f"ledger entry {decision.seq}: not a decision record of this version ({where})") from None


def bundle(folder: Path, expected: str) -> str:
    """Check every part of a bundle.

    Raises:
        BundleCorrupt: a part is missing or altered; the message names it.
        DataError: its manifest is another one.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError:
        raise DataError(f"{folder / MANIFEST}: missing") from None
    same(str(folder / MANIFEST), manifest, expected)
    verified_hash(folder)
    return f"{expected[:12]}: every part matches its manifest"


def same(what: str, content: bytes, expected: str, digest: str = "sha256") -> str:
    """Check the hash of some bytes.

    Raises:
        DataError: it is another one.
    """
    found = hashlib.new(digest, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(f"{what}: expected {expected[:12]}, found {found[:12]}")
    return found


def _way_up(rollout: Entry, known: dict[str, Entry]) -> tuple[Entry, Entry]:
    """The decision and the approval behind a rollout, or behind a stage on the way to it."""
    approval = known.get(str(rollout.body.get("approval_hash")))
    _require(approval is not None and approval.kind == "approval", rollout, "no approval of its hash")
    assert approval is not None
    decision = known.get(str(approval.body.get("decision_hash")))
    _require(decision is not None and decision.kind == "decision", rollout, "no decision behind its approval")
    assert decision is not None
    bundles = {entry.body.get("bundle_hash") for entry in (rollout, approval, decision)}
    _require(
        decision.seq < approval.seq < rollout.seq, rollout, f"decision, approval and {rollout.kind} are not in order"
    )
    _require(approval.signature is not None, rollout, "its approval is not signed")
    _require(decision.body.get("verdict") == "passed", rollout, "its decision is no pass")
    _require(len(bundles) == 1, rollout, f"decision, approval and {rollout.kind} name different bundles")
    _require(approval.signer != decision.body.get("proposer"), rollout, "its proposer approved it")
    signed = Signed.of(decision, (entry for entry in known.values() if entry.seq < rollout.seq))
    _require(signed.completing is not None, rollout, signed.text())
    _require(approval in signed.approvals, rollout, f"its approval by {approval.signer!r} does not count")
    return decision, approval


def _require(holds: bool, entry: Entry, problem: str) -> None:
    if not holds:
        raise LedgerCorrupt(f"ledger entry {entry.seq} ({entry.kind}): {problem}")
