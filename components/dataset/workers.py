"""Work on many images at once: results come in the order of the tasks, and only a few wait in memory."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import cv2

from components.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

POOL_FROM = 200  # tasks below which starting processes costs more than it saves


def ordered(work: Callable[[T], R], tasks: Iterable[T], *, images: int) -> Iterator[R]:
    """Yield `work(task)` for every task, in order; in processes of their own when there are many images.

    Args:
        work: a module-level function; tasks and results travel between processes.
        images: how many images the tasks hold together.

    Raises:
        DataError: a process died, most likely because one image needs more memory than there is.
    """
    count = os.cpu_count() or 1
    if images < POOL_FROM or count == 1:
        yield from map(work, tasks)
        return
    # Processes that begin afresh: forking one that runs threads (orchestration, OpenCV) can lock up.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))
    waiting: deque[Future[R]] = deque()
    source = iter(tasks)
    try:
        waiting.extend(pool.submit(work, task) for task in islice(source, 8 * count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, task) for task in islice(source, 1))
            yield result
    except BrokenProcessPool:
        raise DataError(
            "a process that decodes images died, most likely out of memory; lower intake.max_megapixels and repeat"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
