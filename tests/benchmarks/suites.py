"""Benchmark: the suites over a large set of invented rows, on one core (`python -m tests.benchmarks.suites`).

Prints one wall time of this machine; nothing is asserted. Nothing is decoded: rows and features are all it reads.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.rows import write_rows
from components.dataset.squares import Squares
from components.dataset.validate import validate
from components.params import load
from components.radiograph.pixels import Transform
from components.radiograph.quality import FEATURES


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    n = arguments.parse_args().rows
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    ids = np.array([f"image-{k:07d}" for k in range(n)], dtype=object)
    patient = rng.integers(0, n // 2, n)
    person = np.array([f"patient-{k:07d}" for k in range(n // 2)], dtype=object)[patient]
    roles = np.array(["train", "tune", "calibrate", "test"], dtype=object)
    table = pd.DataFrame(
        {
            "image_id": ids, "patient_id": person, "group_id": person, "picture_id": ids, "near_duplicate_of": None,
            "withdrawn": False,
            "role": roles[patient % 4], "grouping": "patient", "label": (rng.random(n) < 0.3).astype(float),
            "label_provenance": "archive", "ai_visible": False, "site": rng.choice(["a", "b", "c"], n),
            "device": rng.choice(["d", "e"], n), "view": rng.choice(["frontal", "lateral"], n), "laterality": "L",
            "body_region": rng.choice(["hand", "leg", "hip"], n), "sex": rng.choice(["F", "M"], n),
            "age_years": rng.integers(0, 95, n).astype(float), "hour": rng.integers(0, 24, n).astype(float),
            "hardware": rng.random(n) < 0.05, "rows": rng.integers(800, 3000, n), "columns": rng.integers(800, 3000, n),
            "bits_stored": 12, "shard": "000001-a-0000",
        }
    )  # fmt: skip
    features = pd.DataFrame(rng.random((n, len(FEATURES))), columns=list(FEATURES)).assign(
        image_id=ids,
        grey_levels=1000.0,
        sharpness=50.0,
        field_fraction=0.9,
        noise=0.01,
        polarity_ok=rng.random(n) > 0.02,
    )
    features["saturation"] *= 0.61  # some are beyond the limit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "features").mkdir()
        (folder / "limits.yaml").write_text("sites: {}\n")
        write_rows(folder / "splits", table)
        features.to_parquet(folder / "features" / "a.parquet")
        (folder / "prepared").mkdir()  # pictures of what fails; how large they are does not matter here
        squares = np.zeros((n, 16, 16), np.uint8)
        Squares(Transform(size=16)).write(folder / "prepared" / "000001-a-0000.npz", [(list(ids), squares)], "key")
        started, busy = time.perf_counter(), time.process_time()
        validate(
            splits=folder / "splits", features=folder / "features", prepared=folder / "prepared",
            batches=folder / "batches",
            limits=folder / "limits.yaml",
            accepted=folder / "accepted", validation=folder / "validation", params=load().validate_,
        )  # fmt: skip
        wall, cpu = time.perf_counter() - started, time.process_time() - busy
    print(f"{n:,} rows, one core: {wall:.1f} s ({cpu:.1f} s of processor time), imports included")


if __name__ == "__main__":
    main()
