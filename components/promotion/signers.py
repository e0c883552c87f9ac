"""Noun: whose signatures stand behind a decision, and how many it needs before its version may go live.

A decision's own protocol says how many (`gate.signers`; records from before it was in the protocol mean 1). What
counts is a signed approval of exactly this decision, by somebody who did not propose it and, once the ledger knows
roles, was a reviewer when they signed. One person counts once, and so does one key, under whatever names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.promotion.ledger import Entry
from components.promotion.roles import Roll


class _Protocol(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    signers: int = Field(default=1, ge=1)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    protocol: _Protocol = _Protocol()


@dataclass(frozen=True)
class Signed:
    """The signatures of a decision.

    Attributes:
        needed: how many its protocol asks for; None where that cannot be read, and no number is enough.
        approvals: those that count, one a person, oldest first.
    """

    needed: int | None
    approvals: tuple[Entry, ...]

    @classmethod
    def of(cls, decision: Entry, entries: Iterable[Entry]) -> Signed:
        """The signatures of `decision` in `entries`: the ledger, or its beginning for how it stood then."""
        roll, counted, seen = Roll(), [], set[str]()
        for entry in entries:
            roll.read(entry)
            if not _approves(entry, decision) or (roll and "reviewer" not in roll.of(str(entry.signer))):
                continue
            marks = {f"name {str(entry.signer).casefold()}", f"key {entry.public_key}"}
            if not marks & seen:
                counted.append(entry)
            seen |= marks
        return cls(_needed(decision), tuple(counted))

    @property
    def completing(self) -> Entry | None:
        """The approval with which the decision had enough; None: it has not."""
        enough = self.needed is not None and len(self.approvals) >= self.needed
        return self.approvals[self.needed - 1] if enough and self.needed else None

    def text(self) -> str:
        """How far it is, and what has to happen."""
        if self.needed is None:
            return "its decision states no readable number of signers; judge it again"
        rest = self.needed - len(self.approvals)
        todo = "; another reviewer has to sign" if rest == 1 else f"; {rest} other reviewers have to sign"
        return f"signed {len(self.approvals)} of {self.needed}" + (todo if rest > 0 else "")


def behind(approval: Entry, entries: Sequence[Entry]) -> Signed:
    """The signatures of the decision that `approval` is about; none where there is no such decision."""
    decision = decision_of(approval, entries)
    return Signed.of(decision, entries) if decision else Signed(None, ())


def decision_of(approval: Entry, entries: Iterable[Entry]) -> Entry | None:
    """The decision that an approval is about; None: there is no such decision before it."""
    wanted = approval.body.get("decision_hash")
    return next((e for e in entries if e.hash == wanted and e.kind == "decision" and e.seq < approval.seq), None)


def _approves(entry: Entry, decision: Entry) -> bool:
    if entry.kind != "approval" or entry.signature is None or entry.seq < decision.seq:
        return False
    if entry.body.get("decision_hash") != decision.hash or entry.body.get("approver", entry.signer) != entry.signer:
        return False
    proposer = decision.body.get("proposer")
    if proposer is not None and str(proposer).casefold() == str(entry.signer).casefold():
        return False
    return all(entry.body.get(fact) == decision.body.get(fact) for fact in ("name", "version", "bundle_hash"))


def _needed(decision: Entry) -> int | None:
    try:
        return _Record.model_validate(decision.body).protocol.signers
    except ValidationError:
        return None
