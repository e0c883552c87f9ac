"""Work on many images at once: results come in the order of the tasks, and only a few wait in memory."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import cv2

from components.errors import DataError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

POOL_FROM = 200  # tasks below which starting processes costs more than it saves


def ordered(work: Callable[[S, T], R], shared: S, tasks: Iterable[T], *, images: int) -> Iterator[R]:
    """Yield `work(shared, task)` for every task, in order; in processes of their own when there are many images.

    Args:
        work: a module-level function; tasks and results travel between processes.
        shared: the same for every task; it travels once.
        images: how many images the tasks hold together.

    Raises:
        DataError: a process died, most likely because one image needs more memory than there is.
    """
    count = os.cpu_count() or 1
    if images < POOL_FROM or count == 1:
        yield from (work(shared, task) for task in tasks)
        return
    # Processes that begin afresh: forking one that runs threads (orchestration, OpenCV) can lock up.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(work, shared))
    waiting: deque[Future[R]] = deque()
    source = iter(tasks)
    try:
        waiting.extend(pool.submit(_do, task) for task in islice(source, 8 * count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_do, task) for task in islice(source, 1))
            yield result
    except BrokenProcessPool:
        raise DataError(
            "a process that decodes images died, most likely out of memory; lower intake.max_megapixels and repeat"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


# The one task of a worker process, set when it begins; always empty in the process that uses `ordered`.
_TASK: list[Callable[[Any], Any]] = []


def _begin(work: Callable[[Any, Any], Any], shared: Any) -> None:
    cv2.setNumThreads(1)  # processes are the parallelism
    _TASK.append(partial(work, shared))


def _do(task: Any) -> Any:
    return _TASK[0](task)
