"""Evaluate: the served artefact, on the sealed images only, with intervals over patients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset.retirements import marks, write_retirements
from components.dataset.rows import write_rows
from components.dataset.store import write_images
from components.errors import DataError, PatientLeak
from components.model.evaluate import evaluate
from components.model.evaluation import Evaluation
from components.params import Evaluate
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.quality import FEATURES
from components.serving.bundle import Bundle
from tests.sweeps import QUICK

PARAMS = Evaluate(resamples=200, prevalences=(0.05, 0.2), min_slice=15, robustness=QUICK, seed=3)
SIDE = 64


def meta(number: int, **changes: object) -> ImageMeta:
    facts = {
        "image_id": f"test{number:04d}", "patient_id": f"p{number // 2:04d}", "study_id": f"s{number // 2:04d}",
        "source": "dicom", "grouping": "patient", "site": "north" if number % 4 else "south", "device": "A",
        "view": "frontal", "body_region": "hand", "sex": "F" if number % 3 else "M", "age_years": 20 + number % 60,
        "hour": number % 24, "photometric": "MONOCHROME2", "bits_stored": 8, "rows": SIDE, "columns": SIDE,
    }  # fmt: skip
    return ImageMeta.model_validate(facts | changes)


def picture(number: int, *, fracture: bool) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Noise; a fracture is a bright 9 x 9 spot, as in the training archive.

    Lines of black and white at the edges hold the transform's window still: the archive's squares never saw it.
    """
    random = np.random.default_rng(1000 + number)
    pixels, boxes = random.normal(90, 15, (SIDE, SIDE)), []
    if fracture:
        y, x = (int(v) for v in random.integers(4, SIDE - 13, 2))
        pixels[y : y + 9, x : x + 9] += 120
        boxes = [{"x": x, "y": y, "width": 9, "height": 9}]
    pixels[0], pixels[0, 0], pixels[-1] = 1, 0, 255
    return np.clip(pixels, 0, 255).astype(np.uint8), boxes


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """120 test images of 60 patients, a third fractured, and rows that must not count."""
    folder = tmp_path_factory.mktemp("sealed")
    images, rows = [], []
    for number in range(120):
        fracture = number % 3 == 0
        pixels, boxes = picture(number, fracture=fracture)
        images.append(Radiograph(meta(number), pixels))
        rows.append(meta(number).model_dump() | {
            "role": "test", "accepted": True, "label": float(fracture), "boxes": json.dumps(boxes), "ai_visible": False,
        })  # fmt: skip
    write_images(folder / "studies", images, batch="a", shard_bytes=10**7)
    extra = [{"accepted": False}, {"label": np.nan}, {"ai_visible": True}, {"role": "train"}, {"patient_id": "worn"}]
    rows += [rows[0] | {"image_id": f"not{n}"} | change for n, change in enumerate(extra)]
    write_rows(folder / "accepted", pd.DataFrame(rows).assign(shard="a-0000"))
    write_retirements(folder / "retirements", marks(["worn"]))
    (folder / "features").mkdir()
    pd.DataFrame([{"image_id": row["image_id"]} | dict.fromkeys(FEATURES, 5.0) for row in rows[:120]]).to_parquet(
        folder / "features/a-0000.parquet"
    )
    return folder


def run(archive: Path, bundle: Path, out: Path) -> Evaluation:
    given = {name: archive / name for name in ("accepted", "retirements", "studies", "features")}
    evaluate(**given, bundle=bundle, evaluation=out, params=PARAMS)
    return Evaluation.read(out)


@pytest.fixture(scope="module")
def done(archive, released, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "evaluation"
    run(archive, released, folder)
    return folder


def changed(archive: Path, folder: Path, change) -> Path:
    """The same archive with another table `accepted`."""
    folder.mkdir(exist_ok=True)
    for name in ("studies", "features", "retirements"):
        (folder / name).symlink_to(archive / name)
    write_rows(folder / "accepted", change(pd.read_parquet(archive / "accepted")))
    return folder


def test_only_sealed_images_count(done):
    """Rows not accepted, without a label, read with the AI in view or retired are left out and counted by reason."""
    found = Evaluation.read(done)

    assert (found.images, found.patients, found.positives, found.negatives) == (120, 60, 40, 80)
    assert found.excluded == {
        "not accepted by `validate`": 1, "label unknown": 1, "the AI was visible to a reader": 1,
        "retired by a refresh": 1,
    }  # fmt: skip


def test_denominators_are_the_right_ones(done):
    """Sensitivity is over the fractures, specificity over the others, AUROC over all."""
    found = Evaluation.read(done)

    assert (found.auroc.n, found.sensitivity.n, found.specificity.n, found.review.share.n) == (120, 40, 80, 120)
    assert found.auroc.low > 0.7
    assert found.localisation.hit_rate is not None
    assert found.localisation.hit_rate.n == 40


def test_precision_is_over_what_was_called(done):
    """At the high-specificity point: fractures among the calls, at this test set's own prevalence."""
    table = pd.read_parquet(done / "predictions.parquet")
    point = Evaluation.read(done).points.high_specificity
    called = table[table["probability"] >= point.threshold]

    assert point.precision.n == len(called)
    assert point.precision.value == called["label"].mean()


def test_sets_are_the_bundles(done, released):
    """Coverage is over each class, at the cuts that `calibrate` fixed."""
    table, cuts = pd.read_parquet(done / "predictions.parquet"), Bundle.open(released).manifest.conformal
    found = Evaluation.read(done).sets
    fractures = table[table["label"] == 1]

    assert (found.fracture_covered.n, found.no_fracture_covered.n, found.settled.n) == (40, 80, 120)
    assert found.fracture_covered.value == (fractures["probability"] >= cuts.fracture_from).mean()
    assert found.settled.value + found.both.value + found.none.value == pytest.approx(1)


def test_studies_are_cases_of_their_own(done):
    """60 studies of two images, 40 with a fracture; one of them is judged without the image that was left out."""
    found = Evaluation.read(done).studies

    assert (found.studies, found.several, found.positives, found.negatives) == (60, 60, 40, 20)
    assert (found.mixed, found.incomplete) == (40, 1)
    assert (found.maximum.auroc.n, found.as_served.high_sensitivity.sensitivity.n) == (60, 40)
    assert found.noisy_or.points.high_specificity.specificity.n == 20


def test_localisation_stands_beside_chance(done, released):
    """Boxes of 9 x 9 in 64 x 64; whether readers see the map is the bundle's word, and the page says it."""
    found = Evaluation.read(done).localisation

    assert found.chance == pytest.approx(81 / 4096)
    assert found.heat_map_shown is Bundle.open(released).manifest.heat_map.shown
    assert ("Readers are not shown the heat map" in (done / "report.html").read_text()) is not found.heat_map_shown


def test_the_scores_are_the_served_ones(done, archive, released):
    """predictions.parquet holds what Bundle.predict says, for every image, with its call."""
    table = pd.read_parquet(done / "predictions.parquet").set_index("image_id")
    bundle = Bundle.open(released)
    served = [bundle.predict(picture(n, fracture=n % 3 == 0)[0]) for n in (0, 1, 2)]
    stored = table.loc[["test0000", "test0001", "test0002"]]

    assert list(stored["probability"]) == [p.probability for p in served]
    assert list(stored["call"]) == [p.call for p in served]


def test_the_same_inputs_give_the_same_bytes(done, archive, released, tmp_path):
    """No clock, no path, no dictionary order: DVC's cache can trust it."""
    run(archive, released, tmp_path / "again")

    for name in ("evaluation.json", "predictions.parquet", "errors.csv", "report.html", "model_card.xml"):
        assert (tmp_path / "again" / name).read_bytes() == (done / name).read_bytes(), name


def test_small_slices_are_not_judged(done):
    """Below min_slice of either class a slice is `insufficient` and shows no figure."""
    slices = {(s.column, s.value): s for s in Evaluation.read(done).slices}

    assert slices["site", "south"].verdict == "insufficient"
    assert slices["site", "south"].sensitivity is None
    assert slices["site", "north"].verdict == "measured"
    assert slices["site", "north"].sensitivity.n == 30
    assert {c for c, _ in slices} == {"site", "sex", "age_years", "hour"}


def test_weak_grouping_marks_the_evidence(archive, released, tmp_path):
    """Without patient ids every reader is told so."""
    weak = changed(archive, tmp_path / "weak", lambda table: table.assign(grouping="weak"))
    found = run(weak, released, tmp_path / "out")

    assert found.evidence == "weak grouping"
    page = (tmp_path / "out/report.html").read_text()
    assert "<strong>Weak grouping. Some images came without patient ids" in page
    assert "images; weak grouping</small>" in page


def test_named_patients_are_no_weak_grouping(archive, released, tmp_path):
    run(archive, released, tmp_path / "out")

    assert "eak grouping" not in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(("label", "missing"), [(0.0, "no fractures"), (1.0, "no non-fractures")])
def test_a_one_sided_test_set_is_refused(archive, released, tmp_path, label, missing):
    """All negative or all positive measures nothing; the message says which is missing."""
    one = changed(archive, tmp_path / "one", lambda table: table[table["label"] == label])

    with pytest.raises(DataError, match=missing):
        run(one, released, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_test_patient_the_bundle_learned_from_stops_everything(archive, released, tmp_path):
    """Evidence from training patients is no evidence."""
    learned = pd.read_parquet(released / "training_images.parquet")["patient_id"].iloc[0]
    leaky = changed(archive, tmp_path / "leak", lambda table: table.assign(
        patient_id=table["patient_id"].replace("p0000", learned)))  # fmt: skip

    with pytest.raises(PatientLeak, match="learned from 1 of 60 test patients"):
        run(leaky, released, tmp_path / "out")


def test_an_image_missing_from_the_archive_is_named(archive, released, tmp_path):
    """A test row without pixels is an error, never a smaller test set."""
    gone = changed(archive, tmp_path / "gone", lambda table: table.assign(
        image_id=table["image_id"].replace("test0007", "nowhere")))  # fmt: skip

    with pytest.raises(DataError, match="nowhere"):
        run(gone, released, tmp_path / "out")
