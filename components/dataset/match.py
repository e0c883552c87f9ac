"""Step: find the images that are one picture filed twice; a new shard is compared with itself and all before it.

What a shard's file holds is a function of the shards up to it, the parameters and the code that compares. Its key is a
hash of that, chained from shard to shard: what changes anywhere makes all behind it stale, and nothing before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np

from components.dataset import neighbours as search
from components.dataset.keys import key_of
from components.dataset.matches import write_matches
from components.dataset.neighbours import neighbours
from components.dataset.store import keep_only, read_shard, shards
from components.errors import DataError
from components.params import Match
from components.radiograph import likeness as comparison
from components.radiograph.likeness import SIDE, likeness

CODE = (Path(__file__), Path(search.__file__), Path(comparison.__file__))


def match(*, features: Path, matches: Path, params: Match) -> None:
    """Write `matches/<shard>.parquet`: the pairs whose later image is in the shard; files of vanished shards go.

    A loose perceptual hash proposes a pair, a registration confirms it. Killed anywhere, it goes on where it was.

    Raises:
        DataError: there are no features, a file of them is damaged, or no disk space.
    """
    files = shards(features)
    if not files:
        raise DataError(f"{features}: no features; run `inspect`")
    keep_only(matches, {file.name for file in files})
    keys = list(_chained(files, params))
    stale = [n for n, file in enumerate(files) if key_of(matches / file.name) != keys[n]]
    if not stale:
        return
    shelf = Shelf(files)
    for begin, end in _runs(stale):
        first, last = shelf.starts[begin], shelf.starts[end]
        pairs = neighbours(shelf.codes[:last], params.bits, first=first)
        where = np.searchsorted(shelf.starts, pairs[:, 1], side="right") - 1
        for n in range(begin, end):
            mine = pairs[where == n]
            used, ends = np.unique(mine, return_inverse=True)
            alike = likeness(shelf.thumbnails(used), ends.reshape(-1, 2))
            same = alike >= params.likeness
            size = int(shelf.starts[n + 1] - shelf.starts[n])
            write_matches(matches / files[n].name, shelf.ids, mine[same], alike[same], compared=size, key=keys[n])


class Shelf:
    """The features of all shards, in order of arrival.

    Attributes:
        ids: (n,) image_ids. codes: (n,) uint64 perceptual hashes.
        starts: (shards + 1,) position of the first image of each shard, then n.
    """

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._read: dict[int, np.ndarray] = {}
        try:
            tables = [read_shard(file, ["image_id", "phash"]) for file in files]
            codes = [bytes.fromhex("".join(table.column("phash").to_pylist())) for table in tables]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{files[0].parent}: damaged ({type(error).__name__}); run `inspect`") from None
        self.ids = np.array([name for table in tables for name in table.column("image_id").to_pylist()], dtype=object)
        self.codes = np.frombuffer(b"".join(codes), dtype=">u8").astype(np.uint64)
        self.starts = np.concatenate(([0], np.cumsum([table.num_rows for table in tables])))

    def thumbnails(self, positions: np.ndarray) -> np.ndarray:
        """(n, SIDE, SIDE) uint8 of the images at these sorted positions; a file is read once, if it is needed."""
        shard = np.searchsorted(self.starts, positions, side="right") - 1
        parts = [self._all(n)[positions[shard == n] - self.starts[n]] for n in np.unique(shard).tolist()]
        return np.concatenate([np.empty((0, SIDE, SIDE), np.uint8), *parts])

    def _all(self, shard: int) -> np.ndarray:
        if shard not in self._read:
            column = read_shard(self._files[shard], ["thumbnail"]).column("thumbnail")
            self._read[shard] = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, SIDE, SIDE)
        return self._read[shard]


def _chained(files: list[Path], params: Match) -> Iterator[str]:
    """The key of each shard's matches."""
    link = sha256(b"".join(path.read_bytes() for path in CODE) + params.model_dump_json().encode()).hexdigest()
    for file in files:
        key = key_of(file)
        if key is None:
            raise DataError(f"{file}: does not say what it was made from; run `inspect`")
        link = sha256(f"{link} {key}".encode()).hexdigest()
        yield link


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last + 1)."""
    breaks = [0, *(n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1), len(numbers)]
    return [(numbers[a], numbers[b - 1] + 1) for a, b in pairwise(breaks)]
