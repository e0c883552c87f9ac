"""Tables with a row an image, as a folder with a file a shard: what has not changed is neither written nor sent again.

Read whole, by `read_rows` or `pandas.read_parquet(folder)`, they come in order of arrival.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pandas as pd
import pyarrow as pa

from components.dataset.keys import key_of, write_keyed
from components.dataset.store import atomic_path, keep_only, read_shard, shards
from components.errors import DataError


def write_rows(folder: Path, table: pd.DataFrame) -> int:
    """Make `folder` hold `table`: the rows of each `shard` in `<shard>.parquet`, in their order.

    A file that says in its footer that it holds these rows is left alone: to tell takes a hash of them, and not the
    writing. Killed anywhere, the same call finishes it.

    Args:
        table: one row an image, in order of arrival; its column `shard` names where the image is.

    Returns:
        How many files were written.

    Raises:
        DataError: no disk space.
    """
    # Of the whole: a shard may lack every value of a column, and to turn shard by shard takes ten times as long.
    whole = pa.Table.from_pandas(table, preserve_index=False)
    places = {f"{shard}.parquet": rows for shard, rows in table.groupby("shard", sort=False).indices.items()}
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


def read_rows(folder: Path) -> pd.DataFrame:
    """The whole table.

    Raises:
        DataError: there is none.
    """
    return pa.concat_tables([read_shard(file) for file in _files(folder)]).to_pandas()


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


def _key(part: pa.Table) -> str:
    """A hash of the rows, and of the version of what writes them: equal files stand wherever equal rows do."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, part.schema) as writer:
        writer.write_table(part)
    return sha256(pa.__version__.encode() + stream.getvalue()).hexdigest()
