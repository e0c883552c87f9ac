"""The squares that the model sees, a file a shard: how they are written, and how single ones are read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from components.errors import DataError
from components.radiograph.pixels import Transform

Part = tuple[list[str], np.ndarray]


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


def read_squares(prepared: Path, rows: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """The squares of the images of `rows` (image_id, shard), shard by shard.

    Yields:
        (image_id, (size, size) uint8).

    Raises:
        DataError: an image has none.
    """
    for shard, part in rows.groupby("shard", sort=True):
        path, wanted = prepared / f"{shard}{Squares.suffix}", set(part["image_id"])
        try:
            with np.load(path, allow_pickle=False) as arrays:
                ids, pixels = arrays["image_id"].tolist(), arrays["pixels"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: no squares ({type(error).__name__}); run `dvc repro prepare`") from None
        if missing := wanted - set(ids):
            raise DataError(f"{path}: {len(missing)} of {len(wanted)} images are not in it; run `dvc repro prepare`")
        yield from ((image_id, square) for image_id, square in zip(ids, pixels, strict=True) if image_id in wanted)
