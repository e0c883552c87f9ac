"""Keras and TensorFlow in this process: imported late, quiet, and a function of one seed."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def silence() -> Iterator[None]:
    """Keep what native libraries write to file descriptors 1 and 2 off the terminal; shown after all on failure."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, source in enumerate(kept, start=1):
                os.dup2(source, target)
                os.close(source)
            if failed:
                sink.seek(0)
                sys.stderr.write(sink.read().decode(errors="replace"))


def keras() -> Any:
    """Keras, imported on first use (seconds) and without TensorFlow's start-up banners."""
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silence():
            return importlib.import_module("keras")
    return sys.modules["keras"]


def start(seed: int) -> None:
    """Make everything that follows in this process a function of `seed`: equal inputs, equal weights.

    On a GPU determinism costs speed; on a CPU nothing measurable.
    """
    module = keras()
    module.utils.set_random_seed(seed % 2**32)
    if module.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def on_cpu() -> bool:
    """Whether TensorFlow computes, and on processors."""
    if keras().backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def one_thread() -> None:
    """Let this process compute on one core; before its first network."""
    keras()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
