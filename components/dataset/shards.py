"""One output a shard: what `inspect` and `prepare` share, so that an archive that grows costs what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.dataset.store import CATALOG_COLUMNS, atomic_path, keep_only, read_shard, shards
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


def refresh(
    catalog: Path, studies: Path, folder: Path, output: Output[R], work: Callable[[S, Task], R], shared: S
) -> int:
    """Make the files of `folder` follow the shards that `catalog` names; return how many had to be written.

    Args:
        studies: the shards; those whose files stand need not be here.
        work: maps `shared` and a task to one part of the output; a module-level function.

    Raises:
        DataError: there are no shards, one that is needed is missing or damaged, or the disk is full.
    """
    keys = stale(fingerprints(catalog), folder, output)
    keep_only(folder, {f"{entry.stem}{output.suffix}" for entry in shards(catalog)})
    for name, key in keys.items():
        if fingerprint(studies / name) != key.partition(":")[2]:
            raise DataError(f"{studies / name}: not what the catalog says; run `dvc checkout {studies}.dvc`")
    groups = {name: pq.ParquetFile(studies / name).metadata for name in keys}
    tasks = [(studies / name, group) for name in keys for group in range(groups[name].num_row_groups)]
    parts = ordered(work, shared, tasks, images=sum(meta.num_rows for meta in groups.values()))
    for name, key in keys.items():
        made = [next(parts) for _ in range(groups[name].num_row_groups)]
        with atomic_path(folder / Path(name).with_suffix(output.suffix)) as draft:
            output.write(draft, made, key)
    return len(keys)


def fingerprints(catalog: Path) -> dict[str, str]:
    """What every shard holds: file name -> fingerprint.

    Raises:
        DataError: there are no shards, or an entry of the catalog is damaged.
    """
    entries = shards(catalog)
    if not entries:
        raise DataError(f"{catalog}: no images; run `osteoflow intake SOURCE` or `dvc pull`")
    return {entry.name: fingerprint(entry) for entry in entries}


def stale(contents: dict[str, str], folder: Path, output: Output[R]) -> dict[str, str]:
    """The shards whose file in `folder` is missing or of other content or code: file name -> the key it should have.

    Args:
        contents: as `fingerprints` tells them.
    """
    keys = {name: f"{output.version}:{content}" for name, content in contents.items()}
    return {
        name: key for name, key in keys.items() if output.stands(folder / Path(name).with_suffix(output.suffix)) != key
    }


def fingerprint(shard: Path) -> str:
    """What a shard, or its entry in the catalog, holds, from its hashes: equal for equal images.

    Raises:
        DataError: it is not here, or cannot be read.
    """
    if not shard.exists():
        raise DataError(f"{shard}: not here; run `dvc pull {shard}`")
    try:
        ids, hashes = read_shard(shard, ["image_id", "pixel_sha256"]).columns
    except (OSError, ValueError) as error:
        raise DataError(f"{shard}: not a readable shard ({type(error).__name__}); run `dvc checkout`") from None
    lines = pc.binary_join_element_wise(ids, hashes, " ").to_pylist()
    return sha256("\n".join(lines).encode()).hexdigest()


def radiographs(shard: Path, group: int) -> Iterator[Radiograph]:
    """The images of one row group of a shard."""
    fields = [name for name in CATALOG_COLUMNS if name not in STORED_ONLY]
    for row in pq.ParquetFile(shard).read_row_group(group, columns=[*fields, "pixels"]).to_pylist():
        pixels = decode(row.pop("pixels"))
        yield Radiograph(meta=ImageMeta.model_validate(row), pixels=pixels)
