"""The archive: immutable Parquet shards of images and of label events, and how anything is written whole or not at all.

Readers project columns: a catalog query never reads pixels. Shard names begin with the batch, batches with a running
number, so that sorting by name is sorting by arrival.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import DataError
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.labels import LabelEvent
from components.radiograph.pixels import decode, encode

IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("patient_id", pa.string()),
        ("study_id", pa.string()),
        ("source", pa.string()),
        ("grouping", pa.string()),
        ("site", pa.string()),
        ("device", pa.string()),
        ("view", pa.string()),
        ("body_region", pa.string()),
        ("laterality", pa.string()),
        ("sex", pa.string()),
        ("age_years", pa.int32()),
        ("hour", pa.int32()),
        ("study_day", pa.string()),
        ("photometric", pa.string()),
        ("bits_stored", pa.int32()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("window_center", pa.float64()),
        ("window_width", pa.float64()),
        ("exposure_index", pa.float64()),
        ("target_exposure_index", pa.float64()),
        ("deviation_index", pa.float64()),  # as the device states it, dB
        ("pixel_spacing_mm", pa.float64()),
        ("hardware", pa.bool_()),
        ("masked", pa.string()),  # JSON list of {x, y, width, height}: text stood there and was painted over
        ("pixel_sha256", pa.string()),
        ("batch", pa.string()),
        ("pixels", pa.binary()),
    ]
)
LABEL_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("image_id", pa.string()),
        ("time", pa.string()),
        ("label", pa.string()),
        ("boxes", pa.string()),  # JSON list of {x, y, width, height}, pixels of the stored image
        ("reader", pa.string()),
        ("provenance", pa.string()),
        ("ai_visible", pa.bool_()),
        ("batch", pa.string()),
    ]
)
CATALOG_COLUMNS = [name for name in IMAGE_SCHEMA.names if name != "pixels"]
NUMBERS = ("age_years", "hour", "window_center", "window_width")  # that may be missing
ROW_GROUP = 64  # images read together; small, so that a few images of a big shard cost little


@dataclass(frozen=True)
class Packed:
    """A radiograph ready to be stored: its pixels are a lossless PNG of the same depth."""

    meta: ImageMeta
    pixel_sha256: str
    pixels: bytes

    @classmethod
    def of(cls, image: Radiograph) -> Packed:
        return cls(meta=image.meta, pixel_sha256=image.sha256, pixels=encode(image.pixels))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, readable by its owner alone, that becomes `path` when the block ends well.

    Raises:
        DataError: the disk is full or refuses; nothing half-written stays.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            _sync(draft)
            draft.replace(path)
            _sync(path.parent)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that replaces the folder `path` when the block ends well, and vanishes otherwise.

    Raises:
        DataError: as for `atomic_path`.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        old = draft.with_suffix(".old")
        try:
            yield draft
            for file in draft.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                path.rename(old)
            draft.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(old, ignore_errors=True)


def write_images(folder: Path, images: Iterable[Radiograph | Packed], *, batch: str, shard_bytes: int) -> list[Path]:
    """Append `images` as new shards `<batch>-<n>.parquet`; no shard that stands is touched.

    Args:
        batch: a batch that stands already is continued with the next `n`.
        shard_bytes: encoded pixels after which the next shard begins.

    Returns:
        The new shards, in order.

    Raises:
        DataError: the disk refuses; the shards before stand, the one that failed does not.
    """
    written: list[Path] = []
    rows: list[dict[str, object]] = []
    size, number = 0, sum(path.stem.rpartition("-")[0] == batch for path in shards(folder))
    for image in images:
        packed = image if isinstance(image, Packed) else Packed.of(image)
        stored = {"pixel_sha256": packed.pixel_sha256, "batch": batch, "pixels": packed.pixels}
        rows.append(packed.meta.model_dump() | stored)
        size += len(packed.pixels)
        if size >= shard_bytes:
            written.append(_write_shard(folder, batch, number + len(written), rows))
            rows, size = [], 0
    if rows:
        written.append(_write_shard(folder, batch, number + len(written), rows))
    return written


def write_labels(folder: Path, events: Iterable[LabelEvent], *, batch: str) -> Path | None:
    """Append label events as `<batch>.parquet`, leaving out those that stand already; None when none is new."""
    if not (events := list(events)):
        return None
    known = {name for path in shards(folder) for name in read_shard(path, ["event_id"])[0].to_pylist()}
    rows = []
    for event in events:
        if event.event_id in known:
            continue
        known.add(event.event_id)
        boxes = json.dumps([box.model_dump() for box in event.boxes], sort_keys=True)
        rows.append(event.model_dump() | {"boxes": boxes, "batch": batch})
    if not rows:
        return None
    path = folder / f"{batch}.parquet"
    if path.exists():
        raise DataError(f"{path}: this batch of labels stands already; shards are never overwritten")
    with atomic_path(path) as draft:
        pq.write_table(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), draft)
    return path


def next_batch(folder: Path, content: str) -> str:
    """The name of the next batch in `folder`: a running number, then what it holds (12 characters of a hash)."""
    numbers = [int(path.name[:6]) for path in folder.glob("*.parquet") if path.name[:6].isdigit()]
    return f"{max(numbers, default=0) + 1:06d}-{content[:12]}"


def content_of(batch: str) -> str:
    """What a batch (or a shard of it) holds, by its name: all of it but the running number."""
    return batch.partition("-")[2]


def shards(folder: Path, batch: str | None = None) -> list[Path]:
    """The shards of `folder`, or of one batch of it, in order of arrival; none when it does not exist."""
    return sorted(path for path in folder.glob(f"{batch}-*.parquet" if batch else "[!.]*.parquet"))


def sweep(folder: Path) -> None:
    """Remove what a killed writer left half-written. Only for the one writer of `folder`, before it writes.

    A folder that was moved aside comes back where nothing took its place.
    """
    for draft in leftovers(folder):
        moved_from = folder / draft.stem[1:].rpartition(".")[0]
        if draft.suffix == ".old" and not moved_from.exists():
            draft.rename(moved_from)
        elif draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink()


def leftovers(folder: Path) -> list[Path]:
    """What `atomic_path` and `atomic_folder` have in hand in `folder`, or had when they were killed."""
    return [*folder.glob(".*.part"), *folder.glob(".*.old")]


def keep_only(folder: Path, names: set[str]) -> None:
    """Make `folder`, and leave only these files in it. For its one writer, before it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    for stray in [path for path in folder.iterdir() if path.is_file() and path.name not in names]:
        stray.unlink()


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of a shard, or the columns of it that it was written with, in the order of `columns`.

    In this thread: for files this small, threads cost more than they give.

    Raises:
        OSError, ValueError: it is not here, or no Parquet file.
    """
    with pq.ParquetFile(path) as file:
        table = file.read(columns, use_threads=False)
    if columns is None or (held := table.column_names) == list(columns):
        return table
    return table.select([name for name in columns if name in held])


def read_catalog(
    folder: Path, batch: str | None = None, columns: Sequence[str] = tuple(CATALOG_COLUMNS)
) -> pd.DataFrame:
    """Every image, or every one of a batch, but its pixels, in order of arrival, with the `shard` it is in.

    Args:
        folder: of shards, or of the files that `write_catalog` makes of them.
        columns: what is wanted of every image, beside its shard.

    What a column holds does not depend on what is missing from it: age_years, hour and windows are float64 with
    NaN, texts and `hardware` are objects with None. Columns that a shard was written without are missing from it.
    """
    table = catalog_table(folder, batch, columns)
    return framed(table) if table.num_rows else pd.DataFrame(columns=table.column_names)


def catalog_table(folder: Path, batch: str | None = None, columns: Sequence[str] = tuple(CATALOG_COLUMNS)) -> pa.Table:
    """What `read_catalog` reads, as it is stored; a column that every shard was written without is null throughout."""
    tables = []
    for path in shards(folder, batch):
        table = read_shard(path, columns)
        tables.append(table.append_column("shard", pa.repeat(path.stem, table.num_rows)))
    whole = pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    parts = {
        name: whole.column(name) if name in whole.column_names else pa.nulls(whole.num_rows, pa.float64())
        for name in (*columns, "shard")
    }
    return pa.table(parts)


def framed(table: pa.Table) -> pd.DataFrame:
    """An Arrow table with columns of the catalog as pandas holds them, see `read_catalog`."""
    held = dict.fromkeys(NUMBERS, "float64") | {"hardware": "object"}
    return table.to_pandas().astype({name: kind for name, kind in held.items() if name in table.column_names})


def write_catalog(studies: Path, catalog: Path) -> int:
    """Write `catalog`/<shard>.parquet, the shard without its pixels, for every shard of `studies` that has none there.

    Whoever knows the catalog knows every image and the SHA-256 of its pixels, and needs no shard for it.

    Returns:
        How many files were written.

    Raises:
        DataError: a shard cannot be read, or no disk space.
    """
    catalog.mkdir(parents=True, exist_ok=True)
    sweep(catalog)
    missing = [path for path in shards(studies) if not (catalog / path.name).exists()]
    for path in missing:
        try:
            table = read_shard(path, CATALOG_COLUMNS)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable shard ({type(error).__name__}); run `dvc checkout`") from None
        with atomic_path(catalog / path.name) as draft:
            pq.write_table(table, draft, compression="zstd")
    return len(missing)


def read_pixels(studies: Path, image_ids: Iterable[str], batch: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """The pixels of the named images, shard by shard, in order of arrival.

    Args:
        batch: the only batch to look in.

    Yields:
        (image_id, (rows, columns) uint8 or uint16).

    Raises:
        DataError: an image is not in the archive.
    """
    wanted = set(image_ids)
    for path in shards(studies, batch):
        if not wanted:
            return
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["image_id"]).column("image_id").to_pylist()
            if not wanted.intersection(ids):
                continue
            pixels = file.read_row_group(group, columns=["pixels"]).column("pixels")
            for position, image_id in enumerate(ids):
                if image_id in wanted:
                    wanted.discard(image_id)
                    yield image_id, decode(pixels[position].as_py())
    if wanted:
        raise DataError(f"{studies}: {len(wanted)} image(s) are not in the archive, for instance {min(wanted)}")


def count_events(labels: Path) -> int:
    """How many label events there are, from the shards' footers alone."""
    return sum(pq.read_metadata(path).num_rows for path in shards(labels))


def label_events(
    labels: Path, columns: Sequence[str] = tuple(LABEL_SCHEMA.names), batch: str | None = None
) -> pd.DataFrame:
    """Every label event, or every one of a batch, in order of arrival."""
    tables = [read_shard(path, columns) for path in shards(labels, batch)]
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame(columns=list(columns))


def _write_shard(folder: Path, batch: str, number: int, rows: list[dict[str, object]]) -> Path:
    path = folder / f"{batch}-{number:04d}.parquet"
    if path.exists():
        raise DataError(f"{path}: this shard stands already; shards are never overwritten")
    with atomic_path(path) as draft:
        # Pixels are compressed already; a second compression costs time and saves nothing.
        compression = {name: "NONE" if name == "pixels" else "ZSTD" for name in IMAGE_SCHEMA.names}
        table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
        pq.write_table(table, draft, compression=compression, row_group_size=ROW_GROUP, use_dictionary=CATALOG_COLUMNS)
    return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                f"{path.parent}: no space left for {path.name}; nothing half-written stays, make room and repeat"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS):
            raise DataError(
                f"{path.parent}: {path.name} cannot be written ({error.strerror}); allow it and repeat"
            ) from None
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
