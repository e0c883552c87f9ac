"""Benchmark: what `curate`, `split` and `validate` cost, each alone, when 100 images come to an archive.

Tables of drawn facts, no pixels: these steps read and write tables alone. First all three make an archive of each size
stand; then a shard of 100 images is added and each is run again, as its own process, its start included. CPU seconds
are user and system time of that process. Nothing is asserted.

    python -m tests.benchmarks.steps --sizes 1000,100000 --times 3
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.dataset import inspect
from components.dataset.keys import write_keyed
from components.dataset.match import match
from components.dataset.store import CATALOG_COLUMNS, IMAGE_SCHEMA, write_labels
from components.params import load
from components.radiograph.likeness import SIDE
from components.radiograph.quality import FEATURES
from tests.benchmarks.archives import BATCH, REPOSITORY, SCALE, SEED, described, told

NEW = 100
STEPS = {
    "curate": ("catalog", "labels", "cases"),
    "split": ("cases", "matches", "merges", "withdrawals", "splits"),
    "validate": ("splits", "features", "prepared", "batches", "limits", "accepted", "validation"),
}
Cost = dict[str, float]


def arrive(folder: Path, start: int, stop: int) -> None:
    """One shard of each table that the steps begin with: the catalog, label events, features."""
    metas, batch = described(start, stop), f"{start // NEW + 1:06d}-drawn"
    rows = [meta.model_dump() | {"pixel_sha256": f"{start + n:064x}", "batch": batch} for n, meta in enumerate(metas)]
    schema = pa.schema([IMAGE_SCHEMA.field(name) for name in CATALOG_COLUMNS])
    (folder / "data/catalog").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"data/catalog/{batch}-0000.parquet")
    write_labels(folder / "data/labels", map(told, metas), batch=f"{batch}-0000")
    random = np.random.default_rng((SEED, start))
    table = pa.table(
        {"image_id": [meta.image_id for meta in metas]}
        | {name: random.uniform(0.3, 0.6, len(metas)) * SCALE.get(name, 1) for name in FEATURES}
        | {"polarity_ok": [True] * len(metas)}
        | {"phash": [random.bytes(8).hex() for _ in metas]}
        | {"thumbnail": [random.bytes(SIDE * SIDE) for _ in metas]},
        schema=inspect.SCHEMA,
    )
    (folder / "data/features").mkdir(parents=True, exist_ok=True)
    write_keyed(folder / f"data/features/{batch}-0000.parquet", table, f"drawn:{batch}")


def run(folder: Path) -> Cost:
    """CPU seconds of each step, in turn."""
    paths = load(folder / "params.yaml").paths
    match(features=folder / paths.features, matches=folder / paths.matches, params=load(folder / "params.yaml").match)
    cost = {}
    for step, names in STEPS.items():
        words = [word for name in names for word in (f"--{name}", str(getattr(paths, name)))]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "components", step, *words],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cost[step] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,100000")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the archives stand and stay; else in a folder of this run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="steps-") as own:
        for size in map(int, arguments.sizes.split(",")):
            folder = (arguments.folder or Path(own)) / str(size)
            if not folder.exists():
                (folder / "data").mkdir(parents=True)
                for name in (
                    "data/merges.csv",
                    "data/withdrawals.csv",
                    "data/retirements.csv",
                    "data/limits.yaml",
                    "params.yaml",
                ):
                    shutil.copy(REPOSITORY / name, folder / name)
                for start in range(0, size, BATCH):
                    arrive(folder, start, min(size, start + BATCH))
                first = run(folder)
                print(f"{size:>8} the first time: " + ", ".join(f"{k} {v:.1f}" for k, v in first.items()), flush=True)
            costs = []
            for _ in range(arguments.times):
                here = sum(pq.read_metadata(path).num_rows for path in (folder / "data/catalog").iterdir())
                arrive(folder, here, here + NEW)
                costs.append(run(folder))
                load_ = os.getloadavg()[0]
                said = ", ".join(f"{k} {v:.2f}" for k, v in costs[-1].items())
                print(f"{size:>8} {NEW} more: {said} CPU s, load {load_:.0f}", flush=True)
            if costs:
                middle = {step: statistics.median(cost[step] for cost in costs) for step in STEPS}
                print(f"{size:>8} medians: " + ", ".join(f"{k} {v:.2f}" for k, v in middle.items()), flush=True)


if __name__ == "__main__":
    main()
