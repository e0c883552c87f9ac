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


def rescued(_: None, how: str, reason: str) -> str:
    """What is done instead for a lost task."""
    return f"{how} again" if how == "exit" else f"{how}: {reason}"


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


def test_a_lost_task_is_rescued_in_its_place():
    tasks = ["one", "be killed", "two", "segfault", "three"]

    found = list(bounded(behave, None, tasks, WIDE, rescue=rescued))

    assert found == ["one", "be killed: crashed", "two", "segfault: crashed", "three"]


def test_a_folder_of_files_that_crash_is_lost_file_by_file():
    """Processes that end faster than pebble hears that they have begun do not take the others with them."""
    found = list(bounded(behave, None, ["exit"] * 30 + ["one"], WIDE, rescue=rescued))

    assert found == ["exit again"] * 30 + ["one"]


def test_a_process_that_is_killed_idle_loses_nothing():
    """All of them, while whoever uses the pool is busy elsewhere: the next tasks find new ones."""
    results = bounded(process_of, None, range(200), WIDE)
    first = next(results)
    time.sleep(1)  # what waits ahead is done
    for process in children_of(parent_of(first)):
        os.kill(process, signal.SIGKILL)
    time.sleep(1)

    rest = list(results)

    assert len(rest) == 199
    assert not any(isinstance(one, Lost) for one in rest)
    assert {first} & set(rest[-50:]) == set()


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
