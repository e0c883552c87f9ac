"""Tables with a row an image, as a folder with a file a shard: what has not changed is neither written nor sent again.

Read whole, by `read_rows` or `pandas.read_parquet(folder)`, they come in order of arrival.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.dataset.keys import key_in, key_of, write_keyed
from components.dataset.store import atomic_path, keep_only, read_shard, shards
from components.errors import DataError

PANDAS = b"pandas"  # where pandas keeps in a footer what it knows of the columns


def write_rows(folder: Path, table: pd.DataFrame | pa.Table) -> int:
    """Make `folder` hold `table`: the rows of each `shard` in `<shard>.parquet`, in their order.

    A file that says in its footer that it holds these rows is left alone: to tell takes a hash of them, and not the
    writing. Killed anywhere, the same call finishes it.

    Args:
        table: one row an image, in order of arrival; its column `shard` names where the image is. What is no frame is
            as `as_of_pandas` gives it.

    Returns:
        How many files were written.

    Raises:
        DataError: no disk space.
    """
    # Of the whole: a shard may lack every value of a column, and to turn shard by shard takes ten times as long.
    whole = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    named = whole.column("shard").to_pandas()
    places = {f"{shard}.parquet": rows for shard, rows in named.groupby(named, sort=False).indices.items()}
    keep_only(folder, set(places))
    written = 0
    for name, rows in places.items():
        part = whole.take(pa.array(rows)).combine_chunks()
        key = _key(part)
        if key_of(folder / name) == key:
            continue
        with atomic_path(folder / name) as draft:
            write_keyed(draft, part, key, compression="zstd")
        written += 1
    return written


def as_of_pandas(table: pa.Table, framed: Callable[[pa.Table], pd.DataFrame]) -> pa.Table:
    """What `framed(table)` would be written as, to the byte, without putting every row through pandas.

    Types, and what a footer says of columns, follow from what a column holds at all: a value, and where none is. So a
    few rows tell them.

    Args:
        table: of texts, numbers and booleans. framed: gives the same rows as pandas holds them.
    """
    telling = sorted({place for column in table.columns for place in _telling(column)})
    few = framed(table.take(pa.array(telling, pa.int64())))
    schema = pa.Table.from_pandas(few, preserve_index=False).schema
    return pa.table([_held_as(table.column(field.name), field.type) for field in schema], schema=schema)


def _telling(column: pa.ChunkedArray) -> tuple[int, ...]:
    """Where a column's first value stands, and its first null; only what there is."""
    if column.null_count == 0:
        return (0,) if len(column) else ()
    valid = pc.is_valid(column)
    places = (pc.index(valid, pa.scalar(said)).as_py() for said in (True, False))
    return tuple(place for place in places if place >= 0)


def _held_as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_null(kind):
        return pa.nulls(len(column))
    if pa.types.is_floating(kind):  # pandas has NaN where Arrow has null, and beneath it
        return pa.array(column.to_numpy(), kind, from_pandas=True)
    return pa.concat_arrays(column.cast(kind).chunks)


def extend_rows(folder: Path, added: pd.DataFrame, *, of: Path) -> int:
    """Make `folder` hold the table `of`, each row with the columns of `added` behind its own.

    A file says in its footer which rows it was made from; where they and what is added are the same, it is left alone,
    and of the other columns nothing is read. Killed anywhere, the same call finishes it.

    Args:
        added: one row for each of `of`, in the order of `read_rows`; no column that `of` has.

    Returns:
        How many files were written.

    Raises:
        DataError: there is no table `of`, it has another number of rows, or no disk space.
    """
    files = _files(of)
    footers = [pq.read_metadata(file) for file in files]
    sizes = [footer.num_rows for footer in footers]
    if sum(sizes) != len(added):
        raise DataError(f"{of}: {sum(sizes)} rows, and {len(added)} were to be extended; nothing else may write here")
    whole = pa.Table.from_pandas(added, preserve_index=False)
    keep_only(folder, {file.name for file in files})
    written = start = 0
    for file, footer, size in zip(files, footers, sizes, strict=True):
        part = whole.take(pa.array(np.arange(start, start + size))).combine_chunks()
        start += size
        key = _key(part, key_in(footer) or _key(read_shard(file)))
        if key_of(folder / file.name) == key:
            continue
        with atomic_path(folder / file.name) as draft:
            write_keyed(draft, _beside(read_shard(file), part), key, compression="zstd")
        written += 1
    return written


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table, whole or the named columns of it.

    Raises:
        DataError: there is none.
    """
    return pa.concat_tables([read_shard(file, columns) for file in _files(folder)]).to_pandas()


def rows_sha256(folder: Path) -> str:
    """SHA-256 over the names and bytes of the table's files: equal for equal rows in equal shards.

    Raises:
        DataError: there are none.
    """
    said = [f"{file.name} {sha256(file.read_bytes()).hexdigest()}" for file in _files(folder)]
    return sha256("\n".join(said).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    if files := shards(folder):
        return files
    raise DataError(f"{folder}: no table here; run `dvc repro`, or `dvc pull`")


def _key(part: pa.Table, extended: str = "") -> str:
    """A hash of the rows, and of the version of what writes them: equal files stand wherever equal rows do.

    Args:
        extended: key of the rows that these stand beside.
    """
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, part.schema) as writer:
        writer.write_table(part)
    return sha256(f"{extended}{pa.__version__}".encode() + stream.getvalue()).hexdigest()


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    """One table of two, as if pandas had handed over both at once: what it says of its columns is put together."""
    told = [json.loads((table.schema.metadata or {}).get(PANDAS, b"{}")) for table in (left, right)]
    told[0]["columns"] = [*told[0].get("columns", []), *told[1].get("columns", [])]
    for name, column in zip(right.column_names, right.columns, strict=True):
        left = left.append_column(name, column)
    return left.replace_schema_metadata({PANDAS: json.dumps(told[0]).encode()})
