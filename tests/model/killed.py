"""A training in a process of its own that is killed on the way, for the tests of what a second start makes of it."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np

from components.model.train import train


def killed(call: dict[str, Any], *, epochs: int) -> int | None:
    """Start `train(**call)` and SIGKILL it once so many epochs are in its checkpoint; return how it ended."""
    victim = multiprocessing.get_context("spawn").Process(target=train, kwargs=call)
    victim.start()
    while victim.is_alive() and epochs_done(call["trained"].parent / ".training") < epochs:
        time.sleep(0.02)
    victim.kill()
    victim.join()
    return victim.exitcode


def epochs_done(folder: Path) -> int:
    """What the checkpoint in `folder` holds, by now."""
    found = list(folder.glob("*.npz"))
    if not found:
        return 0
    with np.load(found[0], allow_pickle=False) as arrays:
        return len(json.loads(str(arrays["history"])))
