"""Work in processes: in order; what one task does is lost for that task alone, and says why."""

from __future__ import annotations

import operator
import os
import signal
import time
from pathlib import Path

import pytest

from components.dataset.workers import Bounds, Lost, bounded, ordered
from components.errors import DataError

WIDE = Bounds(seconds=20, memory_mb=1024)


def behave(_: None, how: str) -> str:
    """What a file may do to its decoder."""
    if how == "hang":
        time.sleep(60)
    elif how == "swallow":
        bytearray(3 * 2**30)
    elif how == "exit":
        os._exit(9)
    elif how == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        signal.raise_signal(signal.SIGSEGV)
    return how


def process_of(_: None, __: int) -> int:
    return os.getpid()


def test_results_come_in_the_order_of_the_tasks():
    assert list(ordered(operator.mul, 3, range(50), images=200)) == [3 * n for n in range(50)]


def test_few_images_of_the_archive_need_no_process():
    assert list(ordered(lambda add, n: add + n, 1, [1, 2], images=2)) == [2, 3]


def test_a_process_that_dies_over_the_archive_is_one_error(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(DataError, match="a process that decodes images died"):
        list(ordered(operator.call, os._exit, [9], images=200))  # os._exit(9), in a worker


@pytest.mark.parametrize(
    ("how", "reason"),
    [("swallow", "out_of_memory"), ("exit", "crashed"), ("be killed", "crashed"), ("segfault", "crashed")],
)
def test_a_task_that_breaks_its_process_is_lost_alone(how, reason):
    tasks = ["one", "two", how, "three", "four", "five"]

    assert list(bounded(behave, None, tasks, WIDE)) == ["one", "two", Lost(reason), "three", "four", "five"]


def test_a_task_that_hangs_is_lost_when_its_time_is_up():
    started = time.monotonic()

    found = list(bounded(behave, None, ["one", "hang", "two"], Bounds(seconds=1, memory_mb=1024)))

    assert found == ["one", Lost("timeout"), "two"]
    assert time.monotonic() - started < 20


def test_not_even_one_task_from_outside_runs_in_this_process():
    [found] = bounded(process_of, None, [1], WIDE)

    assert found != os.getpid()


def test_an_error_of_the_work_itself_is_raised_here():
    """A defect of ours is no refusal."""
    with pytest.raises(ZeroDivisionError):
        list(bounded(operator.truediv, 1, [0], WIDE))


def test_no_process_stays_behind():
    """Not after an end, and not after a caller that stops listening."""
    results = bounded(process_of, None, range(50), WIDE)
    worker = next(results)
    results.close()

    assert not Path(f"/proc/{worker}").exists()
