"""Flow: clinician corrections become settled labels. Trigger: a schedule."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.events import emit_event
from pydantic import BaseModel

from components.feedback.adjudicate import Adjudication, adjudicate, learned_since
from flows import clients
from flows.effects import effect

RETRAIN_DUE = "osteoflow.retrain.due"


class Learned(BaseModel):
    """What the corrections settled, the commit that versions it, and whether a retrain is due."""

    adjudication: Adjudication
    commit: str | None
    retrain_due: bool

    def text(self) -> str:
        """The outcome in a few lines, for a person."""
        version = f"Data version {self.commit[:12]}." if self.commit else "No new label version."
        due = " Enough new truth for a retrain." if self.retrain_due else ""
        return f"{self.adjudication.message()}\n{version}{due}"


@flow(name="feedback")
def feedback() -> Learned:
    """Adjudicate what readers corrected, version the settled labels, and ask for a retrain when it is worth one."""
    settings = clients.load_settings()
    params = clients.params(settings)
    home = clients.workspace(settings)
    ledger = clients.ledger(settings)
    with home.writing():
        effect(home.complete)([params.paths.labels])
        outcome = effect(adjudicate)(
            log=clients.prediction_log(settings),
            labels=home.root / params.paths.labels,
            params=params.feedback,
            now=datetime.now(UTC),
        )
        commit = effect(home.commit_data)([params.paths.labels], outcome.message())
    due = effect(learned_since)(ledger, outcome, commit) >= params.feedback.retrain_after
    if due:
        emit_event(RETRAIN_DUE, resource={"prefect.resource.id": f"osteoflow.model.{params.gate.model}"})
    return Learned(adjudication=outcome, commit=commit, retrain_due=due)
