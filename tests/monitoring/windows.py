"""Invented windows of production: what a bundle's reference and the prediction log hold, drawn from known laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from components.params import Monitor
from components.radiograph.quality import FEATURES

MONITOR = Monitor(window_days=30, min_cases=50, q=0.05, effect_floor=0.2, sensitivity_floor=0.9, alpha=0.01)
DIMENSIONS = 24


def window(
    seed: int,
    patients: int,
    *,
    shift: dict[str, float] | None = None,
    embedding_shift: float = 0.0,
    site: str = "site-a",
    hands: float = 0.6,
) -> pd.DataFrame:
    """Two images (frontal, lateral) a patient, correlated within the patient.

    Args:
        shift: standard deviations added to a feature's, or to `probability`'s, logit.
        embedding_shift: standard deviations added to the first two of the embedding's dimensions.
        hands: share of hands; the others are legs, whose images measure differently.
    """
    rng = np.random.default_rng(seed)
    shift = shift or {}
    person = np.repeat(np.arange(patients), 2)
    region = np.where(rng.random(patients) < hands, "hand", "leg")[person]
    table = pd.DataFrame(
        {
            "image_id": [f"image-{seed}-{i}" for i in range(len(person))],
            "patient_id": [f"patient-{seed}-{p}" for p in person],
            "site": site,
            "device": f"{site}-detector",
            "view": np.tile(["frontal", "lateral"], patients),
            "body_region": region,
            "time": pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(len(person)), unit="h"),
        }
    )
    for name in (*FEATURES, "probability"):
        own, shared = rng.normal(size=len(person)), rng.normal(size=patients)[person]
        table[name] = (own + shared) / np.sqrt(2) + 1.5 * (region == "leg") + shift.get(name, 0.0)
    table["probability"] = 1 / (1 + np.exp(-table["probability"]))
    vectors = rng.normal(size=(len(person), DIMENSIONS)) + rng.normal(size=(patients, DIMENSIONS))[person]
    vectors[:, 0] += 3 * (region == "leg")
    vectors[:, :2] += embedding_shift * np.sqrt(2)
    table["embedding"] = [v.astype(np.float32) for v in vectors]
    return table


def reference(folder: Path, table: pd.DataFrame | None = None) -> Path:
    """A bundle's reference.parquet of 300 patients of site-a, or of `table`."""
    path = folder / "reference.parquet"
    table = window(seed=1, patients=300) if table is None else table
    table.drop(columns=["time", "device"]).to_parquet(path, index=False)
    return path
