"""Flow: an approved version goes by stages until it answers every case, or back. Trigger: every half minute."""

from __future__ import annotations

from prefect import flow

from components.monitoring.alerts import open_alerts
from components.promotion.approve import reconcile, roll_out
from components.promotion.way import Way
from components.serving.store import Comparison
from flows import clients
from flows.effects import effect


@flow(name="promote")
def promote() -> Way:
    """Take every signed approval its next step, exactly once; repair the alias where it strayed."""
    settings = clients.load_settings()
    params = clients.params(settings)
    name, registry, ledger = params.gate.model, clients.registry(settings), clients.ledger(settings)

    def compared(stage: str) -> list[Comparison]:
        return clients.prediction_log(settings).comparisons(stage)  # opened only where a version is in a stage

    taken = effect(roll_out)(
        ledger=ledger,
        registry=registry,
        name=name,
        plan=params.roll_out,
        compared=compared,
        alerts=open_alerts(ledger),
        bundles=settings.state / "bundles",
    )
    effect(reconcile)(ledger=ledger, registry=registry, name=name)
    return Way.of(ledger, name, taken, compared)
