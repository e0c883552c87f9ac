"""The examples of a data set: accepted, labelled rows of some roles, with their model-resolution pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from components.errors import DataError
from components.radiograph.labels import UNKNOWN, boxes_of
from components.radiograph.pixels import Transform

UNTOLD = (UNKNOWN, "mixed")  # no single body region: such a picture teaches none, and is no part of its figures


@dataclass(frozen=True)
class Examples:
    """`table` has one row an image, ordered by image_id; `pixels` is (n, size, size) uint8 in the same order."""

    table: pd.DataFrame
    pixels: np.ndarray
    transform: Transform

    def role(self, role: str) -> Examples:
        return self.where((self.table["role"] == role).to_numpy())

    def where(self, chosen: np.ndarray) -> Examples:
        """The examples at which the (n,) bool `chosen` is true."""
        return Examples(self.table[chosen].reset_index(drop=True), self.pixels[chosen], self.transform)

    @property
    def labels(self) -> np.ndarray:
        """(n,) float64: 1 fracture, 0 no fracture."""
        return self.table["label"].to_numpy(np.float64)

    @cached_property
    def boxes(self) -> list[np.ndarray | None]:
        """For each image (k, 4) float32 left, top, right, bottom of its fractures in the square; none without one.

        None: it has a fracture, and nobody has said where.
        """
        columns = (self.table[name] for name in ("boxes", "rows", "columns", "label"))
        found: list[np.ndarray | None] = []
        for text, height, width, label in zip(*columns, strict=True):
            drawn = boxes_of(text) if label == 1 else ()
            moved = [self.transform.move(b.x, b.y, b.width, b.height, int(height), int(width)) for b in drawn]
            found.append(None if label == 1 and not moved else np.array(moved, np.float32).reshape(-1, 4))
        return found

    @cached_property
    def fractures(self) -> np.ndarray:
        """(n,) float64: see `counted`."""
        return counted(self.table)

    def regions(self, names: tuple[str, ...]) -> np.ndarray:
        """(n, k) float32: 1 at the body region of each image among the k `names`; a row of 0 where it is none."""
        stated = self.table["body_region"].to_numpy(dtype=object)
        return np.asarray(stated[:, None] == np.array(names, dtype=object)[None], np.float32)

    @property
    def counts(self) -> tuple[int, int]:
        """How many fractures, how many without."""
        positives = int(self.labels.sum())
        return positives, len(self.table) - positives

    @property
    def sha256(self) -> str:
        """A hash of everything training can see: ids, roles, labels, boxes, body regions, pixels, transform."""
        digest = hashlib.sha256(json.dumps([self.transform.size, self.transform.golden()]).encode())
        for column in ("image_id", "patient_id", "role", "label", "boxes", "body_region"):
            digest.update("\n".join(map(str, self.table[column])).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()

    def require_both(self, role: str, step: str) -> None:
        """Both kinds of image, or nothing can be learned or measured.

        Raises:
            DataError: this role has no fracture, or nothing but fractures.
        """
        positives, negatives = self.counts
        if positives == 0 or negatives == 0:
            raise DataError(
                f"{step}: role {role} has {positives} images with and {negatives} without a fracture, at least one of "
                "each is needed; take in more labelled patients (`intake`), or review split.shares"
            )


def vocabulary(stated: Iterable[object]) -> tuple[str, ...]:
    """The regions that are `stated` of images, in alphabetical order; none where there are no two to tell apart."""
    names = sorted({name for name in stated if isinstance(name, str)} - set(UNTOLD))
    return tuple(names) if len(names) > 1 else ()


def counted(table: pd.DataFrame) -> np.ndarray:
    """(n,) float64: how many fractures each image has, as its boxes tell; NaN where nobody has said where they are."""
    drawn = np.array([len(boxes_of(text)) for text in table["boxes"]], np.float64)
    return np.where(table["label"] == 0, 0.0, np.where(drawn > 0, drawn, np.nan))


def load(accepted: Path, prepared: Path, *, roles: tuple[str, ...]) -> Examples:
    """Read the accepted, labelled rows of `roles` and their pixels; no other row's label is looked at.

    Args:
        accepted: what `validate` wrote.
        prepared: folder of .npz files, one a shard: image_id (n,), pixels (n, size, size) uint8, transform.

    Raises:
        DataError: an image has no prepared pixels, shards disagree on the transform, or nothing is left.
    """
    table = pd.read_parquet(accepted, filters=[("role", "in", list(roles))])
    table = table[table["accepted"] & table["label"].notna()]
    table = table.sort_values("image_id").reset_index(drop=True)
    if table.empty:
        raise DataError(f"{accepted}: no accepted, labelled image in role {', '.join(roles)}; run `intake`, `validate`")
    wanted = {image_id: row for row, image_id in enumerate(table["image_id"])}
    pixels: np.ndarray | None = None
    transforms: set[str] = set()
    found = 0
    for shard in sorted(prepared.glob("*.npz")):
        with np.load(shard, allow_pickle=False) as arrays:
            rows = [(n, wanted[i]) for n, i in enumerate(arrays["image_id"].tolist()) if i in wanted]
            if not rows:
                continue
            transforms.add(str(arrays["transform"]))
            squares = arrays["pixels"]
        if pixels is None:
            pixels = np.zeros((len(table), *squares.shape[1:]), np.uint8)
        if len(transforms) > 1:
            raise DataError(f"{prepared}: {len(transforms)} different transforms; run `prepare`")
        for source, target in rows:
            pixels[target] = squares[source]
        found += len(rows)
    if pixels is None or found != len(table):
        raise DataError(f"{prepared}: expected pixels of {len(table)} images, found {found}; run `prepare`")
    return Examples(table, pixels, Transform(**json.loads(transforms.pop())))


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `rows`, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]
