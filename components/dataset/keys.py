"""Derived Parquet files say in their footer what they were made from: one that still says so is not made again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

KEY = b"osteoflow.key"


def key_of(path: Path) -> str | None:
    """The key that was written into `path`; None when it has none or is not readable."""
    try:
        return key_in(pq.read_metadata(path))
    except (OSError, ValueError):
        return None


def key_in(footer: pq.FileMetaData) -> str | None:
    """The key that a footer says; None when it says none."""
    key = (footer.metadata or {}).get(KEY)
    return None if key is None else key.decode()


def write_keyed(path: Path, table: pa.Table, key: str, *, compression: str = "snappy") -> None:
    """Write `table` and its key."""
    known = table.schema.metadata or {}
    pq.write_table(table.replace_schema_metadata({**known, KEY: key.encode()}), path, compression=compression)
