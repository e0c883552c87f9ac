"""Noun: whose signatures stand behind a decision, and which it needs before its version may go live.

A decision's own protocol says how many of each role (`gate.signers`; a number means reviewers, and records from before
it was in the protocol mean 1). What counts is a signed approval of exactly this decision, by somebody who did not
propose it and, once the ledger knows roles, held one of these when they signed; before, anybody counts as any. One
person counts once, and so does one key, under whatever names: who holds two roles fills the one that is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from components.gate_params import Signers, SignersAsWritten
from components.promotion.ledger import Entry
from components.promotion.roles import Roll

HOW = {"reader": " with `osteoflow approve`"}  # the registry's server lets readers write nothing


class _Protocol(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    signers: SignersAsWritten = Signers(reviewer=1)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    protocol: _Protocol = _Protocol()


@dataclass(frozen=True)
class Signature:
    """An approval that counts, and the wanted roles that its signer held."""

    entry: Entry
    roles: frozenset[str]


@dataclass(frozen=True)
class Signed:
    """The signatures of a decision.

    Attributes:
        needed: what its protocol asks for; None where that cannot be read, and nothing is enough.
        signatures: those that count, one a person, oldest first.
    """

    needed: Signers | None
    signatures: tuple[Signature, ...]

    @classmethod
    def of(cls, decision: Entry, entries: Iterable[Entry]) -> Signed:
        """The signatures of `decision` in `entries`: the ledger, or its beginning for how it stood then."""
        needed, roll, counted, seen = signers_of(decision), Roll(), [], set[str]()
        for entry in entries:
            roll.read(entry)
            roles = roles_to_sign(needed, roll, str(entry.signer)) if _approves(entry, decision) else None
            if not roles:
                continue
            marks = {f"name {str(entry.signer).casefold()}", f"key {entry.public_key}"}
            if not marks & seen:
                counted.append(Signature(entry, roles))
            seen |= marks
        return cls(needed, tuple(counted))

    @property
    def approvals(self) -> tuple[Entry, ...]:
        """The entries of all signatures."""
        return tuple(signature.entry for signature in self.signatures)

    @property
    def lacking(self) -> Counter[str]:
        """How many of each role still have to sign."""
        return lacking(self.needed, [s.roles for s in self.signatures]) if self.needed else Counter()

    @property
    def completing(self) -> Entry | None:
        """The approval with which the decision had all it needs; None: it has not."""
        so_far: list[frozenset[str]] = []
        for signature in self.signatures if self.needed else ():
            so_far.append(signature.roles)
            if self.needed and not lacking(self.needed, so_far):
                return signature.entry
        return None

    def text(self) -> str:
        """How far it is, and what has to happen."""
        if self.needed is None:
            return "its decision states no readable number of signers; judge it again"
        rest, asked = self.lacking, self.needed.model_dump()
        todo = [_has_to_sign(role, many, others=many < asked[role]) for role, many in rest.items()]
        return "; ".join([f"signed {self.needed.total - rest.total()} of {self.needed.total}", *todo])


def lacking(needed: Signers, signed: Iterable[frozenset[str]]) -> Counter[str]:
    """How many of each role are left, after people who hold these have taken one place each, as few as there can be."""
    places = Counter(needed.model_dump())
    for roles in sorted(signed, key=len):  # who can take one place alone goes first
        if free := [role for role in places if role in roles and places[role] > 0]:
            places[free[0]] -= 1
    return +places


def roles_to_sign(needed: Signers | None, roll: Roll, person: str) -> frozenset[str]:
    """In which of the wanted roles `person` may sign; before anybody has a role, in each. None is wanted: in none."""
    wanted = frozenset(role for role, many in needed.model_dump().items() if many) if needed else frozenset[str]()
    return wanted & roll.of(person) if roll else wanted


def signers_of(decision: Entry) -> Signers | None:
    """What a decision's protocol asks for; None: that cannot be read."""
    try:
        return _Record.model_validate(decision.body).protocol.signers
    except ValidationError:
        return None


def behind(approval: Entry, entries: Sequence[Entry]) -> Signed:
    """The signatures of the decision that `approval` is about; none where there is no such decision."""
    decision = decision_of(approval, entries)
    return Signed.of(decision, entries) if decision else Signed(None, ())


def decision_of(approval: Entry, entries: Iterable[Entry]) -> Entry | None:
    """The decision that an approval is about; None: there is no such decision before it."""
    wanted = approval.body.get("decision_hash")
    return next((e for e in entries if e.hash == wanted and e.kind == "decision" and e.seq < approval.seq), None)


def _has_to_sign(role: str, many: int, *, others: bool) -> str:
    who = f"{'another' if others else 'a'} {role} has" if many == 1 else f"{many}{' other' * others} {role}s have"
    return f"{who} to sign{HOW.get(role, '')}"


def _approves(entry: Entry, decision: Entry) -> bool:
    if entry.kind != "approval" or entry.signature is None or entry.seq < decision.seq:
        return False
    if entry.body.get("decision_hash") != decision.hash or entry.body.get("approver", entry.signer) != entry.signer:
        return False
    proposer = decision.body.get("proposer")
    if proposer is not None and str(proposer).casefold() == str(entry.signer).casefold():
        return False
    return all(entry.body.get(fact) == decision.body.get(fact) for fact in ("name", "version", "bundle_hash"))
