"""Flow: a revision becomes a judged challenger. Trigger: a schedule, drift, enough new truth, or a person."""

from __future__ import annotations

import time

from prefect import flow
from pydantic import BaseModel

from components.promotion.gate import Decision, gate
from components.promotion.reference import reference
from components.promotion.register import register
from flows import clients
from flows.builds import context_of, describe, heed, record_of, reproduce
from flows.effects import effect
from flows.verdicts import tell_validation


class Judgement(BaseModel):
    """A registered version and what the gate said of it."""

    version: int
    commit: str
    reports: str
    wall_seconds: float
    decision: Decision

    def text(self) -> str:
        """The outcome in a few lines, for a person."""
        return "\n".join(
            [
                f"Version {self.version} is a challenger, built from {self.commit[:12]} in {self.wall_seconds:.0f} s.",
                self.decision.text(),
                f"Report: {self.reports}/report.html",
            ]
        )


@flow(name="retrain")
def retrain(rev: str = "HEAD") -> Judgement:
    """Build `rev` in a clone of its own, register it as challenger, judge it against the champion. Never promotes."""
    started = time.monotonic()
    settings = clients.load_settings()
    home, registry, ledger = clients.workspace(settings), clients.registry(settings), clients.ledger(settings)
    with home.building(rev) as build:
        params, begun = clients.params(settings.model_copy(update={"workspace": build.root})), time.time()
        effect(heed)(build, ledger)
        try:
            effect(reproduce)(build)
            begun = 0.0  # whatever stands now is what this data shows
        finally:  # a set that was refused most of all
            effect(tell_validation)(build.root / params.paths.validation, settings.state, begun)
        commit = effect(home.adopt)(build)
        bundle, evaluation = build.root / params.paths.bundle, build.root / params.paths.evaluation
        version = effect(register)(
            registry=registry,
            name=params.gate.model,
            bundle=bundle,
            evaluation=evaluation,
            build=record_of(build, commit, time.monotonic() - started),
            proposer=settings.user,
        )
        decision = effect(gate)(
            challenger=bundle,
            champion=clients.champion_bundle(settings, params.gate.model),
            reference=effect(reference)(
                ledger=ledger, registry=registry, name=params.gate.model, bundles=settings.state / "bundles"
            ),
            accepted=build.root / params.paths.accepted,
            retirements=build.root / params.paths.retirements,
            studies=build.root / params.paths.studies,
            evaluation=evaluation,
            params=params.gate,
            ledger=ledger,
            context=context_of(build, commit, params.gate.model, version, settings.user, ledger),
        )
        reports = effect(describe)(registry, params.gate.model, version, decision, evaluation, settings.state, ledger)
    return Judgement(
        version=version, commit=commit, reports=str(reports), wall_seconds=time.monotonic() - started, decision=decision
    )
