"""Noun: where approved versions stand on their way to every case, in figures and in words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from components.promotion import stages
from components.promotion.advance import Compared
from components.promotion.audit import of_stranger
from components.promotion.ledger import Entry, Ledger
from components.promotion.standing import unfinished


class Staged(BaseModel):
    """A version on its way: its stage, the cases it has met there, and how many it has to meet at least.

    `reasons`: what is beyond a limit and may still be chance.
    """

    version: int
    stage: str
    cases: int
    needed: int
    reasons: tuple[str, ...]

    def text(self) -> str:
        """Where it stands, in a sentence or two."""
        more = max(self.needed - self.cases, 0)
        held = f" It waits for more: {'; '.join(self.reasons)}, which may be chance." if self.reasons else ""
        return f"Version {self.version} is in {self.stage}: {self.cases} cases so far, {more} more to come.{held}"


class Way(BaseModel):
    """The steps taken now, in words and as versions that answer every case from now on; and who is on the way.

    `signing`: which versions still lack signatures, and whose. `unheard`: words of strangers, which count for nothing.
    """

    steps: list[str]
    rolled_out: list[int]
    champion: int | None
    staged: Staged | None
    signing: list[str]
    unheard: list[str]

    @classmethod
    def of(cls, ledger: Ledger, name: str, taken: Sequence[Entry], compared: Compared) -> Way:
        """Read it off the ledger, after these entries were added."""
        champion, entry, staged = ledger.champion(name), ledger.staged(name), None
        if entry:
            seen = stages.outlook(entry, compared(entry.hash))
            staged = Staged(
                version=entry.body["version"],
                stage=entry.body["stage"],
                cases=seen.seen.cases,
                needed=seen.needed,
                reasons=seen.reasons,
            )
        return cls(
            steps=[_told(step) for step in taken],
            rolled_out=[int(step.body["version"]) for step in taken if step.kind == "rollout"],
            champion=int(champion.body["version"]) if champion else None,
            staged=staged,
            signing=[f"Version {version}: {signed.text()}." for version, signed in unfinished(ledger, name)],
            unheard=[f"Passed over: {of_stranger(word)}." for word in ledger.strangers()],
        )

    def text(self) -> str:
        """What happened and where it stands."""
        stands = f"Version {self.champion} is champion." if self.champion is not None else "There is no champion."
        last = self.staged.text() if self.staged else stands
        told = self.steps if self.steps and not self.staged else [*self.steps, last]
        return " ".join([*told, *self.signing, *self.unheard])


def _told(step: Entry) -> str:
    version, where = step.body["version"], f"(ledger entry {step.seq})"
    if step.kind == "rollout":
        return f"Version {version} answers every case now {where}."
    if step.kind == "return":
        return f"Version {version} is taken back from {step.body['stage']} {where}: {'; '.join(step.body['reasons'])}."
    doubts = ", ".join(map(str, step.body.get("alerts", ())))
    alone = f" It is not compared with a champion under alert (ledger entry {doubts})." if doubts else ""
    return f"Version {version} goes into {step.body['stage']} {where}.{alone}"
