"""The deployments, in one table; `python -m flows` serves them and their schedules until it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True)
class Deployment:
    """A flow, when it runs by itself, and which event starts it.

    Attributes:
        flow: module and name of the flow, `flows.<name>`.
        why: shown in the Prefect UI.
        cron: schedule in UTC.
        every: schedule as an interval; at most one of `cron` and `every`.
        on: names of events that start it.
    """

    flow: str
    why: str
    cron: str | None = None
    every: timedelta | None = None
    on: tuple[str, ...] = ()


DEPLOYMENTS = (
    Deployment("intake", "Take in what has reached the inbox.", cron="15 1 * * *"),
    Deployment("feedback", "Settle clinician corrections and commit the labels.", cron="5 * * * *"),
    Deployment("monitor", "Compare production with the champion's reference.", cron="45 5 * * *"),
    Deployment(
        "retrain",
        "Build, register and judge a challenger.",
        cron="0 2 * * 6",
        on=("osteoflow.drift", "osteoflow.retrain.due"),
    ),
    Deployment("promote", "Take what a reviewer approved from stage to stage, or back.", every=timedelta(seconds=30)),
)


def deployments() -> list[Any]:
    """The table as Prefect deployments."""
    from importlib import import_module

    from prefect.events import DeploymentEventTrigger

    made = []
    for row in DEPLOYMENTS:
        flow = getattr(import_module(f"flows.{row.flow}"), row.flow)
        schedule = {"cron": row.cron} if row.cron else {"interval": row.every}
        triggers = [
            DeploymentEventTrigger(enabled=True, expect={event}, name=f"{row.flow} on {event}") for event in row.on
        ]
        # One run of a flow at a time: a second writer would only wait for the first.
        made.append(
            flow.to_deployment(
                name="osteoflow", description=row.why, triggers=triggers, concurrency_limit=1, **schedule
            )
        )
    return made


def main() -> None:
    """Serve every deployment from this process."""
    from components.settings import load_settings
    from flows.environment import prepare

    prepare(load_settings(), log_level="INFO")
    from prefect import serve

    serve(*deployments())


if __name__ == "__main__":
    main()
