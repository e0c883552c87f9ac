"""Pairs of images that are one picture: how `match` hands them on, a file a shard, to whoever reads all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from components.dataset.keys import write_keyed
from components.dataset.store import atomic_path, read_shard, shards
from components.errors import DataError

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # of this shard
        ("near_duplicate_of", pa.string()),  # an earlier image, of this or an earlier shard
        ("likeness", pa.float64()),
    ]
)
COMPARED = b"osteoflow.compared"  # how many images of this shard were compared with all before them


def write_matches(
    path: Path, ids: np.ndarray, pairs: np.ndarray, alike: np.ndarray, *, compared: int, key: str
) -> None:
    """Write the pairs whose later image is in one shard.

    Args:
        ids: image_ids, in order of arrival.
        pairs: (m, 2) positions in `ids`, the earlier image first; alike: their (m,) likeness.
        compared: images of the shard, matched or not.
    """
    columns = {"image_id": ids[pairs[:, 1]], "near_duplicate_of": ids[pairs[:, 0]], "likeness": alike}
    table = pa.Table.from_pydict(columns, schema=SCHEMA.with_metadata({COMPARED: str(compared).encode()}))
    with atomic_path(path) as draft:
        write_keyed(draft, table, key)


def read_matches(folder: Path, image_ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of all shards.

    Args:
        image_ids: every image, in order of arrival.

    Returns:
        (m, 2) positions in `image_ids`, the earlier image first, sorted; and their (m,) likeness.

    Raises:
        DataError: these images are not exactly the ones that were compared, or a file is damaged.
    """
    try:
        tables = [read_shard(path) for path in shards(folder)]
        compared = sum(int((table.schema.metadata or {})[COMPARED]) for table in tables)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: damaged ({type(error).__name__}); run `match`") from None
    table = pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default")
    places = pd.Index(image_ids)
    ends = [places.get_indexer(table.column(name).to_pylist()) for name in ("near_duplicate_of", "image_id")]
    pairs = np.stack(ends, axis=1).astype(np.int64)
    if compared != len(image_ids) or (pairs < 0).any():
        raise DataError(f"{folder}: not the {len(image_ids)} images at hand were compared, but {compared}; run `match`")
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], table.column("likeness").to_numpy()[order]
