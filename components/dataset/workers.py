"""Work on many images at once, in processes of their own: results come in the order of the tasks, few wait in memory.

Files from outside may hang a decoder, ask for more memory than there is, or end its process. `bounded` gives every
task a time and a memory limit, and what one file does is lost for that file alone. `ordered` is for images of the
archive itself: there a lost task is an error.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as TaskTimeout
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from components.errors import DataError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

POOL_FROM = 200  # images of the archive below which starting processes costs more than it saves
AHEAD = 8  # tasks a process that wait for it


@dataclass(frozen=True)
class Bounds:
    """What one task may take.

    Attributes:
        seconds: of wall time, from when a process begins it.
        memory_mb: MiB of address space, beyond what a fresh process has.
    """

    seconds: float
    memory_mb: int


@dataclass(frozen=True)
class Lost:
    """A task without a result. reason: timeout, out_of_memory, or crashed (its process ended)."""

    reason: str


def bounded(work: Callable[[S, T], R], shared: S, tasks: Iterable[T], bounds: Bounds) -> Iterator[R | Lost]:
    """Yield `work(shared, task)` for every task, in order; `Lost` where a task broke its bounds or its process.

    Never in this process, however few the tasks are. An error that `work` raises is raised here.

    Args:
        work: a module-level function; tasks and results travel between processes.
        shared: the same for every task; it travels once.
    """
    return _pooled(work, shared, tasks, bounds)


def ordered(work: Callable[[S, T], R], shared: S, tasks: Iterable[T], *, images: int) -> Iterator[R]:
    """Yield `work(shared, task)` for every task, in order; in processes of their own when there are many images.

    Args:
        work, shared: as for `bounded`.
        images: how many images the tasks hold together.

    Raises:
        DataError: a process died, most likely because one image needs more memory than there is.
    """
    if images < POOL_FROM or os.cpu_count() == 1:
        yield from (work(shared, task) for task in tasks)
        return
    for result in _pooled(work, shared, tasks, None):
        if isinstance(result, Lost):
            raise DataError(
                f"a process that decodes images died ({result.reason}), most likely out of memory; free some and repeat"
            )
        yield result


def _pooled(work: Callable[[S, T], R], shared: S, tasks: Iterable[T], bounds: Bounds | None) -> Iterator[R | Lost]:
    count = os.cpu_count() or 1
    # Forking a process that runs threads (orchestration, OpenCV) can lock up, and beginning afresh costs seconds of
    # imports: processes are forked from one that has imported `work` and done nothing else.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    memory_mb = bounds.memory_mb if bounds else None
    pool = ProcessPool(count, context=context, initializer=_begin, initargs=(work, shared, memory_mb))
    waiting: deque[ProcessFuture] = deque()
    source = iter(tasks)

    def submit(number: int) -> None:
        waiting.extend(
            pool.schedule(_do, args=[task], timeout=bounds.seconds if bounds else None)
            for task in islice(source, number)
        )

    try:
        submit(AHEAD * count)
        while waiting:
            result = _result(waiting.popleft())
            submit(1)
            yield result
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _result(future: ProcessFuture) -> Any:
    try:
        return future.result()
    except TaskTimeout:
        return Lost("timeout")
    except MemoryError:
        return Lost("out_of_memory")
    except ProcessExpired:
        return Lost("crashed")


# The one task of a worker process, set when it begins; always empty in the process that uses the pool.
_TASK: list[Callable[[Any], Any]] = []


def _begin(work: Callable[[Any, Any], Any], shared: Any, memory_mb: int | None) -> None:
    cv2.setNumThreads(1)  # processes are the parallelism
    if memory_mb is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _TASK.append(partial(work, shared))


def _do(task: Any) -> Any:
    return _TASK[0](task)
