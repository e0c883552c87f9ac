"""Step: shrink every image to the square the model sees, shard by shard; only new shards cost."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from components.dataset.shards import Task, radiographs, refresh
from components.params import Prepare
from components.radiograph.pixels import Transform

Part = tuple[list[str], np.ndarray]


def prepare(*, studies: Path, prepared: Path, params: Prepare) -> None:
    """Write `prepared/<shard>.npz`: image_id (n,), pixels (n, size, size) uint8, transform (JSON), key.

    Raises:
        DataError: no shards, a damaged shard, or no disk space.
    """
    transform = Transform(size=params.size)
    refresh(studies, prepared, Squares(transform), _shrink, transform)


class Squares:
    suffix = ".npz"

    def __init__(self, transform: Transform) -> None:
        self.transform = json.dumps(asdict(transform), sort_keys=True)
        self.version = transform.golden()[:12]

    def stands(self, path: Path) -> str | None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return str(arrays["key"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def write(self, path: Path, parts: list[Part], key: str) -> None:
        ids = np.array([image_id for part, _ in parts for image_id in part], dtype=np.str_)
        pixels = np.concatenate([squares for _, squares in parts])
        with path.open("wb") as file:  # by handle: a path without .npz would be given one
            np.savez(file, image_id=ids, pixels=pixels, transform=np.array(self.transform), key=np.array(key))


def _shrink(transform: Transform, task: Task) -> Part:
    shard, group = task
    pairs = [(image.meta.image_id, transform.apply(image.pixels)) for image in radiographs(shard, group)]
    return [image_id for image_id, _ in pairs], np.stack([square for _, square in pairs])
