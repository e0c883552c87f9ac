"""Flow: an approved version goes live. Trigger: every half minute, and `osteoflow approve`."""

from __future__ import annotations

from prefect import flow

from components.promotion.approve import reconcile, roll_out
from flows import clients
from flows.effects import effect


@flow(name="promote")
def promote() -> list[int]:
    """Roll out every signed approval that is not live yet, exactly once; repair the alias where it strayed.

    Returns:
        The versions rolled out now.
    """
    settings = clients.load_settings()
    name = clients.params(settings).gate.model
    registry, ledger = clients.registry(settings), clients.ledger(settings)
    entries = effect(roll_out)(ledger=ledger, registry=registry, name=name, bundles=settings.state / "bundles")
    effect(reconcile)(ledger=ledger, registry=registry, name=name)
    return [int(entry.body["version"]) for entry in entries]
