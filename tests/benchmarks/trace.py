"""Benchmark: how long `osteoflow trace` takes where the prediction log holds a million predictions.

    python -m tests.benchmarks.trace [--predictions 1000000] [--runs 5]

A workspace of three images, and a log of the real schema (SQLite) whose rows are copies of one real row under other
names, four images a patient. Printed are medians: of the answer alone, and of the whole command with its start-up, by
the clock and in processor time, which other work on the machine does not lengthen. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from components.promotion.registry import Registry
from components.serving.cases import LoggedPrediction
from components.settings import Settings
from flows import clients, patients, trace
from tests.flows.test_patients import made
from tests.promotion.conftest import NAME

EMBEDDING = 64
IMAGES_PER_PATIENT = 4
NAMED = {
    "id": "printf('%020x', n)",
    "image_id": "printf('image-%012d', n)",
    "patient_id": f"printf('%020x', 4096 + n / {IMAGES_PER_PATIENT})",
    "time": "strftime('%Y-%m-%d %H:%M:%S.000000', 1735689600 + 30 * n, 'unixepoch')",
}


def fill(settings: Settings, predictions: int) -> None:
    """Log one prediction, and copy it under other names."""
    row = {
        "id": "0" * 20, "time": datetime(2025, 1, 1, tzinfo=UTC), "image_id": "first", "patient_id": "0" * 20,
        "study_id": "s", "site": "A", "device": "A", "view": "frontal", "body_region": "hand", "bundle_hash": "2" * 64,
        "version": "2", "call": "fracture", "probability": 0.9, "logit": 2.2, "audit": False,
        "inclusion_probability": 1.0, "quality": {"noise": 0.01, "sharpness": 20.0},
        "embedding": np.random.default_rng(0).random(EMBEDDING).tolist(),
    }  # fmt: skip
    clients.prediction_log(settings).add_prediction(LoggedPrediction.model_validate(row))
    with sqlite3.connect(str(settings.log_url).removeprefix("sqlite:///")) as database:
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(predictions)")]
        values = ", ".join(NAMED.get(name, f'one."{name}"') for name in columns)
        database.execute(
            f"WITH RECURSIVE every(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM every WHERE n < {predictions}) "
            f"INSERT INTO predictions SELECT {values} FROM every, (SELECT * FROM predictions LIMIT 1) AS one"
        )


def median(act: Callable[[], object], runs: int) -> float:
    """Seconds."""
    spent = []
    for _ in range(runs):
        started = time.perf_counter()
        act()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def processor() -> float:
    """Seconds that finished children have spent."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--predictions", type=int, default=1_000_000)
    arguments.add_argument("--runs", type=int, default=5)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = folder / "mlflow.db"
        Registry(f"sqlite:///{store}", artifact_root=folder).versions(NAME)
        settings, _ = made(folder, store)
        started = time.perf_counter()
        fill(settings, chosen.predictions)
        size = Path(str(settings.log_url).removeprefix("sqlite:///")).stat().st_size
        print(
            f"{chosen.predictions} predictions, {size / 1e9:.2f} GB, written in {time.perf_counter() - started:.0f} s"
        )
        middle = chosen.predictions // 2
        prediction, image = f"{middle:020x}", f"image-{middle:012d}"
        patient = f"{4096 + middle // IMAGES_PER_PATIENT:020x}"
        own = {"OSTEOFLOW_WORKSPACE": str(settings.workspace), "OSTEOFLOW_KEY_DIR": str(settings.key_dir)}
        answers: dict[str, tuple[str, Callable[[], object]]] = {
            "prediction": (prediction, lambda: trace.prediction(settings, prediction)),
            "image": (image, lambda: trace.image(settings, image)),
            "patient": (patient, lambda: patients.trace(settings, patient)),
        }
        for kind, (identity, answer) in answers.items():
            command = [sys.executable, "-m", "flows.cli", "trace", kind, identity]
            environment = os.environ | own

            def whole(command: list[str] = command, environment: dict[str, str] = environment) -> None:
                subprocess.run(command, env=environment, check=True, capture_output=True)

            first = median(answer, 1)
            alone, busy = median(answer, chosen.runs), processor()
            all_of_it = median(whole, chosen.runs)
            busy = (processor() - busy) / chosen.runs
            print(
                f"trace {kind:<10}  first {first:.2f} s, then {alone:.3f} s; "
                f"the command {all_of_it:.2f} s, {busy:.2f} s of processor time"
            )


if __name__ == "__main__":
    main()
