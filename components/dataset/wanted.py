"""Which shards of pixels the steps of this revision have to look into: a build asks before it fetches anything.

`python -m components.dataset.wanted new` and `... sealed` print file names, one a line. It is a command, because the
revision that is built answers with its own code, whatever code builds it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from components.dataset.inspect import Features
from components.dataset.shards import fingerprints, stale
from components.dataset.squares import Squares
from components.errors import ConfigError, OsteoflowError
from components.params import Params, load
from components.radiograph.pixels import Transform


def new(params: Params) -> set[str]:
    """Shards that `inspect` or `prepare` has not seen, or saw with other code or another size.

    Raises:
        DataError: there is no catalog.
    """
    contents, squares = fingerprints(params.paths.catalog), Squares(Transform(size=params.prepare.size))
    return {*stale(contents, params.paths.features, Features()), *stale(contents, params.paths.prepared, squares)}


def sealed(accepted: Path) -> set[str]:
    """Shards that hold an image which evaluation and gate look at: accepted, of role `test`."""
    table = pd.read_parquet(accepted, columns=["role", "accepted", "shard"])
    return {f"{shard}.parquet" for shard in table.loc[table["accepted"] & (table["role"] == "test"), "shard"]}


def main(argv: list[str]) -> int:
    try:
        if argv not in (["new"], ["sealed"]):
            raise ConfigError("usage: python -m components.dataset.wanted new | sealed")
        params = load()
        names = new(params) if argv == ["new"] else sealed(params.paths.accepted)
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n".join(sorted(names)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
