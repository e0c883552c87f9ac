"""The quality that `inspect` measured of a table's images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from components.errors import DataError
from components.radiograph.quality import FEATURES


def quality_of(table: pd.DataFrame, features: Path) -> pd.DataFrame:
    """(n, 1 + features) the quality of exactly the images of `table`, in their order.

    Raises:
        DataError: some have none.
    """
    columns = ["image_id", *FEATURES]
    files = [pd.read_parquet(file, columns=columns) for file in sorted(features.glob("*.parquet"))]
    known = pd.concat(files) if files else pd.DataFrame(columns=columns)
    if missing := int((~table["image_id"].isin(known["image_id"])).sum()):
        raise DataError(f"{features}: {missing} of {len(table)} images have no quality features; run `inspect`")
    return table[["image_id"]].merge(known, on="image_id", how="left", validate="one_to_one")
