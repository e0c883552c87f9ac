"""Networks fitted side by side: each in a process of its own, on one thread.

A training step of a small network does not fill two cores, while two steps do. And one thread adds up in one order: a
network has the same weights on a machine with other cores, as long as they are of the same make.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import TypeVar

import cv2
from pebble import ProcessExpired, ProcessPool

from components.errors import DataError
from components.model import runtime

T = TypeVar("T")

MEMORY = 4 * 2**30  # bytes for one: MobileNetV2 took 3.4 GB (384 pixels, batches of 16, 1,700 images)


def room() -> int:
    """How many networks are fitted at once here: one for each core that this process may use, while memory lasts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEMORY))


def side_by_side(fit: Callable[[T], None], tasks: Sequence[T]) -> None:
    """Call `fit(task)` for every task, as many at once as there is `room` for.

    The first error ends all of them: what they had done by then is in their checkpoints. So does the end of this
    process, however it ends.

    Args:
        fit: a module-level function, or a `functools.partial` of one; tasks travel between processes.

    Raises:
        DataError: a process died, most likely for want of memory. Whatever `fit` raises.
    """
    # Fork would take TensorFlow's threads along half alive. A process fits one network: what it held is given back.
    context = multiprocessing.get_context("spawn")
    at_once = min(room(), len(tasks))
    with ProcessPool(at_once, max_tasks=1, context=context, initializer=_begin) as pool:
        futures = [pool.schedule(fit, args=[task]) for task in tasks]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except ProcessExpired as error:
            raise DataError(
                f"a process that was fitting a network died (exit status {error.exitcode}), most likely out of memory: "
                f"{at_once} networks are fitted at once; free some memory, or give it fewer cores (`taskset -c 0`), "
                "and start again: it goes on at the last whole epochs"
            ) from None
        finally:
            pool.stop()  # type: ignore[no-untyped-call]


def _begin() -> None:
    cv2.setNumThreads(1)
    runtime.one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a training goes on for minutes before it would notice
