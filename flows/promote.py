"""Flow: an approved version goes by stages until it answers every case, or back. Trigger: every half minute."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel

from components.promotion import stages
from components.promotion.approve import reconcile, roll_out
from components.promotion.ledger import Entry
from flows import clients
from flows.effects import effect


class Staged(BaseModel):
    """A version on its way: its stage, the cases it has met there, and how many it has to meet at least."""

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


class Promotion(BaseModel):
    """The steps taken now, in words and as versions that answer every case from now on; and who is on the way."""

    steps: list[str]
    rolled_out: list[int]
    champion: int | None
    staged: Staged | None

    def text(self) -> str:
        """What happened and where it stands."""
        stands = f"Version {self.champion} is champion." if self.champion is not None else "There is no champion."
        return " ".join([*self.steps, self.staged.text() if self.staged else "" if self.steps else stands]).strip()


@flow(name="promote")
def promote() -> Promotion:
    """Take every signed approval its next step, exactly once; repair the alias where it strayed."""
    settings = clients.load_settings()
    params = clients.params(settings)
    name, registry, ledger = params.gate.model, clients.registry(settings), clients.ledger(settings)
    taken = effect(roll_out)(
        ledger=ledger,
        registry=registry,
        name=name,
        plan=params.roll_out,
        compared=lambda stage: clients.prediction_log(settings).comparisons(stage),
        bundles=settings.state / "bundles",
    )
    effect(reconcile)(ledger=ledger, registry=registry, name=name)
    champion, entry, staged = ledger.champion(name), ledger.staged(name), None
    if entry:
        cases = clients.prediction_log(settings).comparisons(entry.hash)
        seen = stages.outlook(entry, cases)
        staged = Staged(
            version=entry.body["version"],
            stage=entry.body["stage"],
            cases=len(cases),
            needed=seen.needed,
            reasons=seen.reasons,
        )
    return Promotion(
        steps=[_told(step) for step in taken],
        rolled_out=[int(step.body["version"]) for step in taken if step.kind == "rollout"],
        champion=int(champion.body["version"]) if champion else None,
        staged=staged,
    )


def _told(step: Entry) -> str:
    version, where = step.body["version"], f"(ledger entry {step.seq})"
    if step.kind == "rollout":
        return f"Version {version} answers every case now {where}."
    if step.kind == "stage":
        return f"Version {version} goes into {step.body['stage']} {where}."
    return f"Version {version} is taken back from {step.body['stage']} {where}: {'; '.join(step.body['reasons'])}."
