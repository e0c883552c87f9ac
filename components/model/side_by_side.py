"""Networks fitted side by side: each in a process of its own, on one thread.

Steps of several small networks fill several cores better than one step does. And one thread adds up in one order: a
network has the same weights on a machine with other cores, as long as they are of the same make.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import cv2
from pebble import ProcessExpired, ProcessPool

from components.errors import DataError
from components.model import runtime

T = TypeVar("T")

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, v2 and v1


def room(each: int) -> int:
    """How many processes of `each` bytes there is room for: one for each core that this process may use, at least one.

    Cores and memory are those that are left to it by a container or `taskset`, not the machine's.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in map(Path, LIMITS):
        if limit.is_file() and (said := limit.read_text().strip()).isdigit():  # or `max`
            memory = min(memory, int(said))
    return max(1, min(cores, memory // each))


def side_by_side(fit: Callable[[T], None], tasks: Sequence[T], *, each: int) -> None:
    """Call `fit(task)` for every task, as many at once as there is `room` for.

    The first error ends all of them: what they had done by then is in their checkpoints. So does the end of this
    process, however it ends.

    Args:
        fit: a module-level function, or a `functools.partial` of one; tasks travel between processes.
        each: bytes of memory that a task may need.

    Raises:
        DataError: a process died, most likely for want of memory. Whatever `fit` raises.
    """
    # Fork would take TensorFlow's threads along half alive. A process fits one network: what it held is given back.
    context = multiprocessing.get_context("spawn")
    at_once = min(room(each), len(tasks))
    with ProcessPool(at_once, max_tasks=1, context=context, initializer=_begin) as pool:
        futures = [pool.schedule(fit, args=[task]) for task in tasks]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except (ProcessExpired, BrokenProcessPool) as error:
            status = f" (exit status {error.exitcode})" if isinstance(error, ProcessExpired) else ""
            raise DataError(
                f"a process that was fitting a network died{status}, most likely out of memory: {at_once} networks are "
                "fitted at once; free some memory, or give it fewer cores (`taskset -c 0`), and start again: it goes "
                "on at the last whole epochs"
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
