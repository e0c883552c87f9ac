"""Flow: does production still look like what the champion was made on? Trigger: a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.events import emit_event
from pydantic import BaseModel

from components.dataset.inputs import judge_predictions
from components.dataset.limits import read_limits
from components.errors import PromotionRefused
from components.monitoring.alerts import raise_alert
from components.monitoring.drift import drift
from components.monitoring.performance import AuditedPerformance, audited
from components.monitoring.verdict import Drift
from flows import clients
from flows.effects import effect

DRIFT = "osteoflow.drift"


class Watch(BaseModel):
    """What the window showed, what the audits say, and the alert raised now (None: nothing new)."""

    drift: Drift
    performance: AuditedPerformance
    alert: int | None
    report: str

    def text(self) -> str:
        """The findings in a few lines, for a person."""
        alert = f"Alert raised (ledger entry {self.alert})." if self.alert is not None else "No new alert."
        return "\n".join(
            [self.summary(), *self.drift.reasons, *self.performance.reasons, f"{alert} Report: {self.report}"]
        )

    def summary(self) -> str:
        """The verdict in one line."""
        return f"{self.drift.status}: {self.drift.cases} cases of {self.drift.patients} patients in the window"


@flow(name="monitor")
def monitor() -> Watch:
    """Compare the window's predictions with the champion's reference, audit its errors, alert once a situation."""
    settings, now = clients.load_settings(), datetime.now(UTC)
    params, ledger = clients.params(settings), clients.ledger(settings)
    champion = clients.champion_bundle(settings, params.gate.model)
    if champion is None:
        raise PromotionRefused(f"{params.gate.model}: no champion to watch; approve a version first")
    since = now - timedelta(days=params.monitor.window_days)
    log = clients.prediction_log(settings)
    frame = effect(log.frame)()
    served = frame[frame["bundle_hash"] == champion.name]  # audits gather over the bundle's life, drift over the window
    report = settings.state / "reports" / f"drift-{now:%Y%m%dT%H%M%S}"
    window = served[served["time"] >= since]
    limits = read_limits(settings.workspace / params.paths.limits)
    inputs = effect(judge_predictions)(window, limits=limits, params=params.validate_.images)
    seen = effect(drift)(
        reference=champion / "reference.parquet",
        current=window,
        report=report,
        params=params.monitor,
        inputs=inputs,
        max_failing=params.validate_.dataset.max_quarantined,
    )
    performance = effect(audited)(cases=served, params=params.monitor)
    alert = effect(raise_alert)(
        ledger, drift=seen, performance=performance, bundle=champion.name, report=report, state=settings.state
    )
    if alert is not None and seen.drifted:  # a new site alone is news, not a reason to retrain
        emit_event(DRIFT, resource={"prefect.resource.id": f"osteoflow.model.{params.gate.model}"})
    return Watch(drift=seen, performance=performance, alert=alert.seq if alert else None, report=str(report))
