"""One output a shard: what `inspect` and `prepare` share, so that an archive that grows costs what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow.parquet as pq

from components.dataset.store import CATALOG_COLUMNS, atomic_path, keep_only, shards
from components.dataset.workers import ordered
from components.errors import DataError
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.pixels import decode

S = TypeVar("S")
R = TypeVar("R")
Task = tuple[Path, int]  # a shard and the number of one of its row groups
STORED_ONLY = ("pixel_sha256", "batch")  # columns of a shard that say nothing about the picture


class Output(Protocol[R]):
    """A kind of file that stands beside every shard.

    Attributes:
        suffix: of the file name, with its dot.
        version: of what is computed; a file of another version is made again.
    """

    suffix: str
    version: str

    def stands(self, path: Path) -> str | None:
        """The key that was written into `path`, None when it is not readable."""

    def write(self, path: Path, parts: list[R], key: str) -> None:
        """Write the parts of one shard, in order, and its key."""


def refresh(studies: Path, folder: Path, output: Output[R], work: Callable[[S, Task], R], shared: S) -> int:
    """Make the files of `folder` follow the shards of `studies`; return how many had to be written.

    Args:
        work: maps `shared` and a task to one part of the output; a module-level function.

    Raises:
        DataError: there are no shards, one is damaged, or the disk is full.
    """
    standing = shards(studies)
    if not standing:
        raise DataError(f"{studies}: no image shards; run `osteoflow intake SOURCE` or `dvc pull`")
    keep_only(folder, {f"{shard.stem}{output.suffix}" for shard in standing})
    keys = {shard: f"{output.version}:{fingerprint(shard)}" for shard in standing}
    stale = [shard for shard in standing if output.stands(folder / f"{shard.stem}{output.suffix}") != keys[shard]]
    groups = {shard: pq.ParquetFile(shard).metadata for shard in stale}
    tasks = [(shard, group) for shard in stale for group in range(groups[shard].num_row_groups)]
    parts = ordered(work, shared, tasks, images=sum(meta.num_rows for meta in groups.values()))
    for shard in stale:
        made = [next(parts) for _ in range(groups[shard].num_row_groups)]
        with atomic_path(folder / f"{shard.stem}{output.suffix}") as draft:
            output.write(draft, made, keys[shard])
    return len(stale)


def fingerprint(shard: Path) -> str:
    """What a shard holds, from its hashes: equal for equal images, whatever the file is called.

    Raises:
        DataError: the shard cannot be read.
    """
    try:
        table = pq.read_table(shard, columns=["image_id", "pixel_sha256"])
    except (OSError, ValueError) as error:
        raise DataError(f"{shard}: not a readable shard ({type(error).__name__}); run `dvc checkout`") from None
    said = "\n".join(f"{row['image_id']} {row['pixel_sha256']}" for row in table.to_pylist())
    return sha256(said.encode()).hexdigest()


def radiographs(shard: Path, group: int) -> Iterator[Radiograph]:
    """The images of one row group of a shard."""
    fields = [name for name in CATALOG_COLUMNS if name not in STORED_ONLY]
    for row in pq.ParquetFile(shard).read_row_group(group, columns=[*fields, "pixels"]).to_pylist():
        pixels = decode(row.pop("pixels"))
        yield Radiograph(meta=ImageMeta.model_validate(row), pixels=pixels)
