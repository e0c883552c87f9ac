"""Test images, bundles that differ in their thresholds, and their evaluations: what the gate is asked about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset.retirements import write_retirements
from components.dataset.rows import write_rows
from components.dataset.store import write_images
from components.model.evaluate import evaluate
from components.params import Evaluate
from components.promotion.gate import Context
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.quality import FEATURES
from components.serving.bundle import Bundle
from tests.protocols import protocol_of
from tests.sweeps import QUICK

NAME = "osteoflow-fracture"
IMAGES = 240
JUDGE = Evaluate(resamples=200, prevalences=(0.1,), min_slice=30, robustness=QUICK, seed=0)
PARAMS = protocol_of(
    auroc_floor=0.8, sensitivity_floor=0.75, specificity_floor=0.75, margin=0.05, min_positives=60,
    min_negatives=60, look_budget=2,
)  # fmt: skip
FEW = PARAMS.model_copy(update={"min_positives": 10, "min_negatives": 10})


def context(version: int, champion: int | None = None) -> Context:
    return Context(
        name=NAME, version=version, champion_version=champion, proposer="engineer", git_commit="c" * 40,
        lock_sha256="1" * 64, data_sha256="d" * 64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tiny_bundle: Path, tmp_path_factory) -> Callable[..., dict[str, Path]]:
    """240 test images whose truth is what the tiny network happens to see, a tenth of it turned round.

    Returns a maker of bundles that differ in their thresholds: `world(high_sensitivity=.., high_specificity=..)` in
    quantiles of the probabilities, with the bundle's evaluation and the data beside it.
    """
    folder = tmp_path_factory.mktemp("world")
    random, bundle = np.random.default_rng(0), Bundle.open(tiny_bundle)
    images = []
    for n in range(IMAGES):
        pixels = random.normal(100, 4 + 30 * random.random(), (64, 64)) + np.linspace(0, 100 * random.random(), 64)
        meta = ImageMeta(
            image_id=f"i{n:03d}", patient_id=f"sealed{n // 2:03d}", study_id=f"s{n}", source="dicom",
            grouping="patient", site="north" if n < IMAGES // 2 else "south", device="A", view="frontal",
            body_region="hand", photometric="MONOCHROME2", bits_stored=8,
            rows=64, columns=64,
        )  # fmt: skip
        images.append(Radiograph(meta, np.clip(pixels, 0, 255).astype(np.uint8)))
    write_images(folder / "studies", images, batch="a", shard_bytes=10**7)
    scores = np.array([bundle.predict(image.pixels).probability for image in images])
    labels = (scores > np.median(scores)) ^ (random.random(IMAGES) < 0.1)
    rows = [
        image.meta.model_dump() | {"role": "test", "accepted": True, "boxes": "[]", "ai_visible": False}
        for image in images
    ]
    write_rows(folder / "accepted", pd.DataFrame(rows).assign(label=labels.astype(float), shard="a-0000"))
    write_retirements(folder / "retirements.csv", [])
    (folder / "features").mkdir()
    quality = pd.DataFrame([{"image_id": row["image_id"]} | dict.fromkeys(FEATURES, 5.0) for row in rows])
    quality.to_parquet(folder / "features/a-0000.parquet")

    def make(*, high_sensitivity: float, high_specificity: float) -> dict[str, Path]:
        place = folder / f"{high_sensitivity}-{high_specificity}"
        if not place.exists():
            shutil.copytree(tiny_bundle, place / "bundle")
            body = json.loads((place / "bundle/manifest.json").read_bytes())
            for name, share in (("high_sensitivity", high_sensitivity), ("high_specificity", high_specificity)):
                body["thresholds"][name]["threshold"] = float(np.quantile(scores, share))
            (place / "bundle/manifest.json").write_bytes(
                json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            )
            evaluate(
                accepted=folder / "accepted", retirements=folder / "retirements.csv", studies=folder / "studies",
                features=folder / "features", bundle=place / "bundle", evaluation=place / "evaluation",
                params=JUDGE,
            )  # fmt: skip
        return {
            "challenger": place / "bundle", "evaluation": place / "evaluation",
            "accepted": folder / "accepted", "studies": folder / "studies",
            "retirements": folder / "retirements.csv",
        }  # fmt: skip

    return make


@pytest.fixture
def sound(world):
    """Thresholds where they belong: about .9 of both rates."""
    return world(high_sensitivity=0.45, high_specificity=0.55)


@pytest.fixture
def drifted(world):
    """A champion that calls everything a fracture at one point, and nearly everything at the other."""
    return world(high_sensitivity=0.0, high_specificity=0.1)


def smaller(
    given: dict[str, Path], folder: Path, kept: Callable[[pd.DataFrame], pd.Series], retired: Collection[str] = ()
) -> dict[str, Path]:
    """The same bundle, evaluated on a part of the test images."""
    table = pd.read_parquet(given["accepted"])
    write_rows(folder / "accepted", table[kept(table)].reset_index(drop=True))
    write_retirements(folder / "retirements.csv", retired)
    evaluate(
        accepted=folder / "accepted", retirements=folder / "retirements.csv", studies=given["studies"],
        features=given["studies"].parent / "features", bundle=given["challenger"], evaluation=folder / "evaluation",
        params=JUDGE,
    )  # fmt: skip
    return (
        given
        | {name: folder / name for name in ("accepted", "evaluation")}
        | {"retirements": folder / "retirements.csv"}
    )
