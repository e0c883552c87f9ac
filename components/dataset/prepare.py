"""Step: shrink every image to the square the model sees, shard by shard; only new shards cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.dataset.shards import Task, radiographs, refresh
from components.dataset.squares import Part, Squares
from components.params import Prepare
from components.radiograph.pixels import Transform


def prepare(*, catalog: Path, studies: Path, prepared: Path, params: Prepare) -> None:
    """Write `prepared/<shard>.npz`: image_id (n,), pixels (n, size, size) uint8, transform (JSON), key.

    Args:
        catalog: names the shards. studies: holds those that are new.

    Raises:
        DataError: no shards, a new one is missing or damaged, or no disk space.
    """
    transform = Transform(size=params.size)
    refresh(catalog, studies, prepared, Squares(transform), _shrink, transform)


def _shrink(transform: Transform, task: Task) -> Part:
    shard, group = task
    pairs = [(image.meta.image_id, transform.apply(image.pixels)) for image in radiographs(shard, group)]
    return [image_id for image_id, _ in pairs], np.stack([square for _, square in pairs])
