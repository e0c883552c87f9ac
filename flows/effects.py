"""How a flow touches the world: a plain function as a Prefect task that is retried only when a service is down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from components.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


def effect(function: Callable[P, R]) -> Callable[P, R]:
    """`function` as a task: seen in the Prefect UI, never cached (DVC is the only cache), retried on `Unavailable`."""
    return task(
        function,
        task_run_name=function.__name__,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=3,
        retry_delay_seconds=[2, 10, 30],
        retry_condition_fn=_unavailable,
    )


def _unavailable(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except Unavailable:
        return True
    except Exception:  # noqa: BLE001  (whatever else went wrong is not a matter of waiting)
        return False
    return False
