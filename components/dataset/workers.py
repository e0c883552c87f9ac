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
from concurrent.futures.process import BrokenProcessPool
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
PATIENCE = 1.0  # seconds between two looks at whether the pool still is
LOSSES = 3  # pools that may break over one task before it is held to blame


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


def bounded(
    work: Callable[[S, T], R],
    shared: S,
    tasks: Iterable[T],
    bounds: Bounds,
    rescue: Callable[[S, T, str], R] | None = None,
) -> Iterator[R | Lost]:
    """Yield `work(shared, task)` for every task, in order; `Lost` where a task broke its bounds or its process.

    Never in this process, however few the tasks are. An error that `work` raises is raised here.

    Args:
        work: a module-level function; tasks and results travel between processes.
        shared: the same for every task; it travels once.
        rescue: a module-level function; `rescue(shared, task, reason)` takes a lost task's place, once, bounded too.
    """
    return _pooled(work, shared, tasks, bounds, rescue)


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


@dataclass
class _Waiting:
    """A task whose result is waited for. losses: pools that broke while it was the next one."""

    work: Callable[..., Any]
    arguments: list[Any]
    future: ProcessFuture
    losses: int = 0


class _Pool:
    """Processes that are begun again when they end at a moment for which pebble gives the whole pool up.

    It does so when a process ends of which it knows no task, while it knows of no other task at work: one that was
    killed idle, or so fast that its word of having begun was not read yet.
    """

    def __init__(self, begin: Callable[[], ProcessPool], seconds: float | None) -> None:
        self.begin, self.seconds, self.pool = begin, seconds, begin()

    def schedule(self, work: Callable[..., Any], *arguments: Any) -> _Waiting:
        return _Waiting(work, [*arguments], self._future(work, [*arguments]))

    def _future(self, work: Callable[..., Any], arguments: list[Any]) -> ProcessFuture:
        try:
            return self.pool.schedule(work, args=arguments, timeout=self.seconds)
        except RuntimeError:  # broken: said again by whoever waits for it
            future: ProcessFuture = ProcessFuture()
            future.set_exception(BrokenProcessPool())
            return future

    def result(self, first: _Waiting, others: Iterable[_Waiting]) -> Any:
        """What became of `first`; where the pool broke, `first` and those `others` that it lost are done again."""
        while True:
            try:
                return first.future.result(timeout=PATIENCE)
            except MemoryError:
                return Lost("out_of_memory")
            except ProcessExpired:
                return Lost("crashed")
            except TaskTimeout:
                if first.future.done():
                    return Lost("timeout")
                if self.pool.active:
                    continue
            except BrokenProcessPool:
                pass
            first.losses += 1
            if first.losses == LOSSES:
                return Lost("crashed")
            self.stop()
            self.pool = self.begin()
            for waiting in (first, *others):
                if not _settled(waiting.future):
                    waiting.future = self._future(waiting.work, waiting.arguments)

    def stop(self) -> None:
        self.pool.stop()  # type: ignore[no-untyped-call]
        self.pool.join()


def _settled(future: ProcessFuture) -> bool:
    return future.done() and not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)


def _pooled(
    work: Callable[[S, T], R],
    shared: S,
    tasks: Iterable[T],
    bounds: Bounds | None,
    rescue: Callable[[S, T, str], R] | None = None,
) -> Iterator[R | Lost]:
    count = os.cpu_count() or 1
    # Forking a process that runs threads (orchestration, OpenCV) can lock up, and beginning afresh costs seconds of
    # imports: processes are forked from one that has imported `work` and done nothing else.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    begun = (work, rescue, shared, bounds.memory_mb if bounds else None)
    pool = _Pool(
        lambda: ProcessPool(count, context=context, initializer=_begin, initargs=begun),
        bounds.seconds if bounds else None,
    )
    waiting: deque[_Waiting] = deque()
    source = iter(tasks)

    def submit(number: int) -> None:
        waiting.extend(pool.schedule(_do, task) for task in islice(source, number))

    try:
        submit(AHEAD * count)
        while waiting:
            first = waiting.popleft()
            result = pool.result(first, waiting)
            if isinstance(result, Lost) and rescue:
                # In the same pool, behind what waits there: processes are not begun afresh for every bad file.
                result = pool.result(pool.schedule(_rescue, *first.arguments, result.reason), waiting)
            submit(1)
            yield result
    finally:
        pool.stop()


# What a worker process does, and what it does for lost tasks; always empty in the process that uses the pool.
_WORK: list[Callable[..., Any]] = []


def _begin(work: Callable[..., Any], rescue: Callable[..., Any] | None, shared: Any, memory_mb: int | None) -> None:
    cv2.setNumThreads(1)  # processes are the parallelism
    if memory_mb is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _WORK.extend(partial(function, shared) for function in (work, rescue) if function)


def _do(task: Any) -> Any:
    return _WORK[0](task)


def _rescue(task: Any, reason: str) -> Any:
    return _WORK[1](task, reason)
