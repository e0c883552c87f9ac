"""Tables with a row an image, as a folder with a file a shard: what has not changed is neither written nor sent again.

`pandas.read_parquet(folder)` reads the whole, in order of arrival.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.dataset.store import atomic_path, keep_only, shards
from components.errors import DataError


def write_rows(folder: Path, table: pd.DataFrame) -> int:
    """Make `folder` hold `table`: the rows of each `shard` in `<shard>.parquet`, in their order.

    A file that holds its rows already is left alone. Killed anywhere, the same call finishes it.

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
        file = pa.BufferOutputStream()
        pq.write_table(whole.take(pa.array(rows)).combine_chunks(), file, compression="zstd")
        data = file.getvalue().to_pybytes()
        if (folder / name).is_file() and (folder / name).read_bytes() == data:
            continue
        with atomic_path(folder / name) as draft:
            draft.write_bytes(data)
        written += 1
    return written


def rows_sha256(folder: Path) -> str:
    """SHA-256 over the names and bytes of the table's files: equal for equal rows in equal shards.

    Raises:
        DataError: there are none.
    """
    files = shards(folder)
    if not files:
        raise DataError(f"{folder}: no table here; run `dvc repro`, or `dvc pull`")
    said = [f"{file.name} {sha256(file.read_bytes()).hexdigest()}" for file in files]
    return sha256("\n".join(said).encode()).hexdigest()
