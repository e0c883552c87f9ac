"""Tables of a small data set for the tests of `validate`: 40 good images, which tests spoil."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.rows import write_rows
from components.dataset.validate import validate
from components.params import DatasetExpectations, ImageExpectations, ImageWarnings, Validate

ROLES = ("train", "tune", "calibrate", "test")
# Limits that refuse nothing; a test closes what it is about.
OPEN = ImageExpectations(
    min_side_px=1,
    max_saturation=1.0,
    min_grey_levels=1,
    min_field_fraction=0.0,
    min_sharpness=0.0,
    min_aspect=0.0,
    max_noise=1.0,
    max_clutter=1e6,
    warn=ImageWarnings(
        min_cnr=0.0, max_motion=1e6, max_clutter=1e6, min_deep_levels=0, deviation=100.0, far_deviation=100.0
    ),
)
PARAMS = Validate(
    images=ImageExpectations(
        min_side_px=96,
        max_saturation=0.6,
        min_grey_levels=32,
        min_field_fraction=0.05,
        min_sharpness=1.0,
        min_aspect=0.2,
        max_noise=0.08,
        max_clutter=50.0,
        warn=ImageWarnings(
            min_cnr=3.0, max_motion=8.0, max_clutter=13.0, min_deep_levels=257, deviation=1.0, far_deviation=3.0
        ),
    ),
    dataset=DatasetExpectations(
        min_positives=8,
        min_negatives=8,
        prevalence=(0.1, 0.8),
        max_quarantined=0.25,
        max_prevalence_effect=0.7,
        min_stratum=10,
        max_missing=0.5,
        max_ai_visible=0.1,
        max_shortcut_auc=0.75,
    ),
)


class Tables:
    """40 good images, ten a role, every third with a fracture; tests spoil them."""

    def __init__(self, folder: Path, squares: Callable[[Path, pd.DataFrame], Path]) -> None:
        n, self.squares = 40, squares
        ids = [f"image-{k:02d}" for k in range(n)]
        self.folder = folder
        (folder / "limits.yaml").write_text("sites: {}\n")
        self.splits = pd.DataFrame(
            {
                "image_id": ids, "patient_id": [f"p{k}" for k in range(n)], "site": "a", "view": "frontal",
                "body_region": "hand", "sex": ["F", None] * 20, "age_years": [30.0, np.nan] * 20, "hardware": None,
                "device": "d", "laterality": "L", "hour": 9.0, "bits_stored": 8, "grouping": "patient",
                "label_provenance": "archive", "ai_visible": False, "rows": 300, "columns": 200,
                "label": [1.0 if k % 3 == 0 else 0.0 for k in range(n)],
                "role": [ROLES[k % 4] for k in range(n)], "group_id": [f"p{k}" for k in range(n)],
                "near_duplicate_of": None, "likeness": np.nan, "picture_id": ids, "withdrawn": False,
                "shard": "000001-a-0000",
            }
        )  # fmt: skip
        self.features = pd.DataFrame(
            {
                "image_id": ids, "exposure_median": 0.5, "exposure_p1": 0.1, "exposure_p99": 0.9, "saturation": 0.01,
                "grey_levels": 200.0, "field_fraction": 0.9, "sharpness": 50.0, "noise": 0.01, "cnr": 20.0,
                "motion": 1.0, "clutter": 1.0, "deviation_index": np.nan, "polarity_ok": True, "phash": "0" * 16,
            }
        )  # fmt: skip

    def run(self, params: Validate = PARAMS) -> pd.DataFrame:
        (self.folder / "features").mkdir(exist_ok=True)
        write_rows(self.folder / "splits", self.splits)
        self.features.to_parquet(self.folder / "features" / "a.parquet")
        validate(
            splits=self.folder / "splits", features=self.folder / "features",
            prepared=self.squares(self.folder / "prepared", self.splits),
            batches=self.folder / "batches", limits=self.folder / "limits.yaml", accepted=self.folder / "accepted",
            validation=self.folder / "validation", params=params,
        )  # fmt: skip
        return pd.read_parquet(self.folder / "accepted")

    def pages(self) -> dict[str, bytes]:
        top = self.folder / "validation"
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}

    @property
    def results(self) -> dict:
        return json.loads((self.folder / "validation" / "results.json").read_text())
