"""A small prepared archive that a network learns in seconds: a bright spot is a fracture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset.rows import write_rows
from components.params import Augment, Calibrate, Export, HeatMapChecks, RegionChecks, Train
from components.radiograph.pixels import Transform
from components.radiograph.quality import FEATURES

SIZE = 64
CHECKS = HeatMapChecks(images=20, max_similarity=0.5, min_boxes=10, min_pointed=0.2)
REGIONS = RegionChecks(min_images=20, min_accuracy=0.6, min_sure=0.5)
# Everything that is off by default, at once.
OPTIONS = {"two_scale": True, "region_weight": 0.5, "count_weight": 0.5, "layer_decay": 0.9, "ema": 0.9, "mixup": 0.2}


@dataclass(frozen=True)
class Prepared:
    """Where the inputs of the model steps lie, as the data-set steps leave them."""

    folder: Path

    @property
    def inputs(self) -> dict[str, Path]:
        return {"accepted": self.folder / "accepted", "prepared": self.folder / "prepared"}

    @property
    def features(self) -> Path:
        return self.folder / "features"


@dataclass(frozen=True)
class Trained(Prepared):
    """The same, with a trained and calibrated network."""

    @property
    def trained(self) -> Path:
        return self.folder / "models" / "trained"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.json"


def squares(labels: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """(n, SIZE, SIZE) uint8 noise; a fracture is a bright 9 x 9 spot anywhere; and its box, as cases.parquet has it."""
    random = np.random.default_rng(seed)
    pixels = random.normal(90, 15, (len(labels), SIZE, SIZE))
    boxes = ["[]"] * len(labels)
    for row in np.flatnonzero(labels == 1).tolist():
        y, x = (int(n) for n in random.integers(4, SIZE - 13, 2))
        pixels[row, y : y + 9, x : x + 9] += 120
        boxes[row] = json.dumps([{"x": x, "y": y, "width": 9, "height": 9}])
    return np.clip(pixels, 0, 255).astype(np.uint8), boxes


def write(
    folder: Path, roles: dict[str, int], *, labels: np.ndarray | None = None, seed: int = 0, regions: bool = False
) -> Prepared:
    """Write accepted/, prepared/*.npz (two shards) and features/*.parquet for `roles`: {role: images}.

    With `regions` every other patient's images are of a leg, which is darker at the top; each tenth image is of both
    regions, and each twelfth states none.
    """
    role = np.repeat(list(roles), list(roles.values()))
    label = np.arange(len(role)) % 2.0 if labels is None else labels
    image_id = np.array([f"image{n:04d}" for n in range(len(role))])
    (folder / "prepared").mkdir(parents=True)
    (folder / "features").mkdir()
    table = pd.DataFrame(
        {
            "image_id": image_id,
            "patient_id": [f"patient{n // 2:04d}" for n in range(len(role))],
            "group_id": [f"patient{n // 2:04d}" for n in range(len(role))],
            "study_id": image_id,
            "grouping": "patient",
            "rows": SIZE,
            "columns": SIZE,
            "role": role,
            "label": label,
            "accepted": True,
            "site": "north",
            "device": "A",
            "view": "frontal",
            "body_region": "hand",
            "shard": "a-0",
        }
    )
    pixels, table["boxes"] = squares(label, seed)
    if regions:
        number = np.arange(len(role))
        leg = number // 2 % 2 == 1
        pixels[leg, :20] //= 2
        table["body_region"] = np.where(leg, "leg", "hand")
        table.loc[number % 10 == 9, "body_region"] = "mixed"
        table.loc[number % 12 == 11, "body_region"] = "unknown"
    write_rows(folder / "accepted", table)
    for shard in range(2):
        rows = slice(shard, None, 2)
        transform = np.array(json.dumps(asdict(Transform(SIZE))))
        np.savez(folder / f"prepared/a-{shard}.npz", image_id=image_id[rows], pixels=pixels[rows], transform=transform)
        features = pd.DataFrame({"image_id": image_id[rows]} | {name: pixels[rows].mean((1, 2)) for name in FEATURES})
        features.to_parquet(folder / f"features/a-{shard}.parquet")
    return Prepared(folder)


def settings(**changes: object) -> Train:
    """Training parameters of the smallest real training."""
    return Train.model_validate(
        {
            "backbone": "residual",
            "weights": "none",
            "epochs_head": 0,
            "epochs": 4,
            "patience": 4,
            "batch_size": 16,
            "head_learning_rate": 0.003,
            "learning_rate": 0.003,
            "dropout": 0.1,
            "frozen_stride": 1,
            "box_weight": 1.0,
            "two_scale": False,
            "also": [],
            "region_weight": 0,
            "count_weight": 0,
            "layer_decay": 1,
            "ema": 0,
            "mixup": 0,
            "augment": Augment(rotate_degrees=10, translate=0.05, scale=0.1, exposure=0.1, noise=0.02, flip=True),
            "folds": 0,
            "mirror": False,
            "seed": 7,
        }
        | changes
    )


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., Prepared]:
    """`write`, for tests that need an archive of their own."""
    return write


@pytest.fixture(scope="session")
def make_params() -> Callable[..., Train]:
    """`settings`, for tests that change a training parameter."""
    return settings


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """160 images: 96 train, 24 tune, 40 calibrate."""
    return write(tmp_path_factory.mktemp("archive"), {"train": 96, "tune": 24, "calibrate": 40})


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same archive, trained and calibrated."""
    from components.model.calibrate import calibrate
    from components.model.train import train

    found = write(tmp_path_factory.mktemp("trained"), {"train": 96, "tune": 24, "calibrate": 40})
    made = Trained(found.folder)
    train(**made.inputs, trained=made.trained, params=settings())
    points = Calibrate(high_sensitivity=0.95, high_specificity=0.95, conformal_alpha=0.1)
    calibrate(**made.inputs, trained=made.trained, calibration=made.calibration, params=points)
    return made


@pytest.fixture(scope="session")
def released(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that `export` makes of `trained`."""
    from components.model.export import export

    bundle = tmp_path_factory.mktemp("released") / "bundle"
    params = Export(
        intended_use="decision support for research",
        variant="float32",
        parity=0.001,
        heat_map=CHECKS,
        regions=REGIONS,
        min_supported=0,
    )
    given = {"trained": trained.trained, "calibration": trained.calibration, "features": trained.features}
    export(**trained.inputs, **given, bundle=bundle, params=params)
    return bundle
