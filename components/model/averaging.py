"""A running mean of a network's weights, which often generalises better than the weights of its last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Average:
    """Exponential moving average of every weight of `model`, the batch statistics among them.

    After step t (from 0) each value is d * value + (1 - d) * weight with d = min(decay, (1 + t) / (10 + t)): what a
    network starts with is forgotten soon, however long the memory is.

    Source: Polyak and Juditsky 1992; the warm-up is that of tf.train.ExponentialMovingAverage.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.decay = decay
        self.values: list[np.ndarray] = model.get_weights()

    def update(self, model: Any, step: int) -> None:
        """Take in the weights after `step`, counted from 0 over all epochs."""
        kept = np.float32(min(self.decay, (1 + step) / (10 + step)))
        for value, weight in zip(self.values, model.get_weights(), strict=True):
            value *= kept
            value += (1 - kept) * weight

    @contextmanager
    def inside(self, model: Any) -> Iterator[None]:
        """`model` with these weights, for as long as it is judged."""
        own = model.get_weights()
        model.set_weights(self.values)
        try:
            yield
        finally:
            model.set_weights(own)
