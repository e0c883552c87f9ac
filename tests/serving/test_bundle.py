"""The release bundle: it runs without TensorFlow, from any thread, and refuses whatever does not match its manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.errors import BundleCorrupt
from components.serving.bundle import Bundle, Manifest, PredictionSet
from components.serving.scope import Scope

PARTS = ("model.tflite", "reference.parquet", "training_images.parquet", "model_card.md")


def picture(seed: int, rows: int = 300, columns: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, (rows, columns)).astype(np.uint16)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def opened(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def rewrite(folder: Path, change) -> None:
    """Change the manifest's body and write it as canonically as the original."""
    body = json.loads((folder / "manifest.json").read_bytes())
    change(body)
    (folder / "manifest.json").write_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def test_the_hash_is_the_manifests(tiny_bundle, opened):
    """The bundle's identity is the SHA-256 of manifest.json; a signed record names it."""
    assert opened.hash == hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    assert Bundle.open(tiny_bundle, expected_hash=opened.hash).hash == opened.hash


def test_the_manifest_survives_its_round_trip(tiny_bundle):
    raw = (tiny_bundle / "manifest.json").read_bytes()

    assert Manifest.decode(raw, where="m").encode() == raw


def test_a_prediction_is_complete(opened):
    """Probability and call, a heat map in the image's own pixels, an embedding."""
    found = opened.predict(picture(0))

    assert 0 < found.probability < 1
    assert found.heat_map.shape == (300, 200)
    assert found.heat_map.dtype == np.float32
    assert (float(found.heat_map.min()) >= 0, float(found.heat_map.max()) <= 1) == (True, True)
    assert found.embedding.shape == (160,)
    assert found.call == opened.call(found.probability)


def test_the_probability_is_the_calibrated_logit(opened):
    """Calibration is inside the graph: slope 1, intercept 0 in this bundle."""
    found = opened.predict(picture(1))

    assert found.probability == pytest.approx(1 / (1 + np.exp(-found.logit)), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_depths_are_taken(dtype, opened):
    assert 0 <= opened.predict(np.random.default_rng(2).integers(0, 256, (80, 90)).astype(dtype)).probability <= 1


def test_exposure_does_not_change_the_answer(opened):
    """Invariance: twice the exposure (same picture, scaled) gives the same probability, the window takes it out."""
    image = picture(3) // 2

    assert opened.predict(image * 2).probability == pytest.approx(opened.predict(image).probability, abs=2e-3)


def test_three_calls(opened):
    """Below both thresholds, between them, at or above both."""
    low = opened.manifest.thresholds.high_sensitivity.threshold
    high = opened.manifest.thresholds.high_specificity.threshold

    assert [opened.call(p) for p in (np.nextafter(low, 0), low, np.nextafter(high, 0), high)] == [
        "no_fracture",
        "review",
        "review",
        "fracture",
    ]


def test_crossed_thresholds_still_make_sense(opened):
    """A model so good that the high-sensitivity point lies above the high-specificity point: between is review."""
    points = opened.manifest.thresholds
    crossed = points.model_copy(
        update={"high_sensitivity": points.high_specificity, "high_specificity": points.high_sensitivity}
    )
    bundle = Bundle(
        opened.folder,
        opened.manifest.model_copy(update={"thresholds": crossed}),
        opened.hash,
        opened.graph,
        opened.scope,
    )
    low = points.high_sensitivity.threshold

    assert (bundle.call(low), bundle.call(np.nextafter(low, 0)), bundle.call(1.0)) == (
        "review",
        "no_fracture",
        "fracture",
    )


def test_a_prediction_says_which_labels_are_left(opened):
    """By the cuts of the manifest, with the coverage they promise; nothing from a bundle without cuts."""
    cuts = opened.manifest.conformal
    sets = [cuts.model_copy(update={"fracture_from": low, "no_fracture_to": high}) for low, high in ((1, 0), (0, 1))]
    manifests = [opened.manifest.model_copy(update={"conformal": found}) for found in (*sets, None)]
    given = [
        Bundle(opened.folder, manifest, opened.hash, opened.graph, opened.scope).predict(picture(0)).prediction_set
        for manifest in manifests
    ]

    assert given == [
        PredictionSet(labels=(), coverage=0.9),
        PredictionSet(labels=("fracture", "no_fracture"), coverage=0.9),
        None,
    ]


def test_one_label_is_settled_and_both_or_none_are_not(opened):
    cuts = opened.manifest.conformal.model_copy(update={"fracture_from": 0.3, "no_fracture_to": 0.6})

    assert [cuts.prediction_set(p).settled for p in (0.2, 0.3, 0.6, 0.7)] == [True, False, False, True]
    crossed = cuts.model_copy(update={"fracture_from": 0.6, "no_fracture_to": 0.3})
    assert not crossed.prediction_set(0.5).settled


def test_what_is_like_nothing_in_the_reference_gets_no_call(opened):
    """The probability stays; the call is left to a person, and no set promises anything."""
    said = opened.predict(picture(0))
    away = Scope(-said.embedding[None].astype(float), least=0.0)
    strange = Bundle(opened.folder, opened.manifest, opened.hash, opened.graph, away).predict(picture(0))

    assert (strange.call, strange.probability, strange.prediction_set) == ("review", said.probability, None)


def test_threads_get_their_own_answers(opened):
    """Forty predictions from eight threads equal the forty made one by one."""
    images = [picture(seed, 64, 64) for seed in range(40)]
    expected = [opened.predict(image).logit for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: opened.predict(image).logit, images))

    assert found == expected


def test_predictions_outlive_the_next_one(opened):
    """What was returned is a copy: the next prediction does not write over it."""
    first = opened.predict(picture(4)).embedding
    kept = first.copy()
    opened.predict(picture(5))

    assert np.array_equal(first, kept)


@pytest.mark.parametrize("name", [*PARTS, "manifest.json"])
def test_a_missing_part_is_named(name, bundle):
    (bundle / name).unlink()

    with pytest.raises(BundleCorrupt, match=name):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", PARTS)
def test_a_truncated_part_is_named(name, bundle):
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(BundleCorrupt, match=name):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", PARTS)
def test_one_changed_bit_is_noticed(name, bundle):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)

    with pytest.raises(BundleCorrupt, match=f"{name}: SHA-256"):
        Bundle.open(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format":1}\n'])
def test_a_damaged_manifest_is_refused(content, bundle):
    (bundle / "manifest.json").write_bytes(content)

    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        Bundle.open(bundle)


def test_another_format_is_refused(bundle):
    rewrite(bundle, lambda body: body.update(format=2))

    with pytest.raises(BundleCorrupt, match="expected bundle format 1, found 2"):
        Bundle.open(bundle)


def test_an_unknown_key_is_refused(bundle):
    """A key this version would ignore could be one that matters."""
    rewrite(bundle, lambda body: body["transform"].update(equalise=True))

    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        Bundle.open(bundle)


def test_an_older_bundle_stays_the_bundle_it_is(bundle):
    """From before study thresholds, sets and heat-map checks: it opens under its signed hash, and its map is hidden."""
    rewrite(bundle, lambda body: [body.pop(name) for name in ("study_thresholds", "conformal", "heat_map")])
    found = Bundle.open(bundle)

    assert (found.manifest.study_thresholds, found.manifest.conformal) == (None, None)
    assert (found.manifest.heat_map.shown, found.manifest.heat_map.reasons) == (
        False,
        ("the bundle is older than its checks",),
    )
    assert found.hash == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def test_a_threshold_chosen_on_test_is_refused(bundle):
    rewrite(bundle, lambda body: body["thresholds"]["high_sensitivity"].update(source_role="test"))

    with pytest.raises(BundleCorrupt, match=r"thresholds\.high_sensitivity\.source_role"):
        Bundle.open(bundle)


def test_a_part_outside_the_folder_is_refused(bundle):
    """Only the parts this format knows can be named, no path among them."""
    rewrite(bundle, lambda body: body["parts"].update({"../../etc/passwd": "0" * 64}))

    with pytest.raises(BundleCorrupt, match="expected parts"):
        Bundle.open(bundle)


def test_another_transform_is_refused(bundle):
    """A bundle whose preprocessing this version does not reproduce pixel for pixel never serves."""
    rewrite(bundle, lambda body: body.update(golden="0" * 64))

    with pytest.raises(BundleCorrupt, match="golden image"):
        Bundle.open(bundle)


def test_another_bundle_is_refused(tiny_bundle):
    """The folder holds a sound bundle, but not the one that was signed."""
    with pytest.raises(BundleCorrupt, match="expected bundle 000"):
        Bundle.open(tiny_bundle, expected_hash="0" * 64)


def test_a_model_litert_cannot_run_is_refused(bundle):
    """Hashes may match and the file still be no model."""
    (bundle / "model.tflite").write_bytes(b"no model")
    digest = hashlib.sha256(b"no model").hexdigest()
    rewrite(bundle, lambda body: body["parts"].update({"model.tflite": digest}))

    with pytest.raises(BundleCorrupt, match=r"model\.tflite: LiteRT refuses it"):
        Bundle.open(bundle)


def test_a_model_of_another_size_is_refused(bundle):
    def grow(body):
        from components.radiograph.pixels import Transform

        body["model"]["size"] = body["transform"]["size"] = 96
        body["golden"] = Transform(96).golden()

    rewrite(bundle, grow)

    with pytest.raises(BundleCorrupt, match=r"expected input image \(1, 96, 96, 1\)"):
        Bundle.open(bundle)


def test_the_reference_and_the_seen_patients_can_be_read(tiny_bundle):
    assert len(pd.read_parquet(tiny_bundle / "reference.parquet")) == 12
    assert len(pd.read_parquet(tiny_bundle / "training_images.parquet")) == 4


def test_serving_needs_no_tensorflow(tiny_bundle):
    """A process that opens a bundle and predicts never imports tensorflow, keras, mlflow or prefect."""
    script = f"""
import sys
import numpy as np
from pathlib import Path
from components.serving.bundle import Bundle
Bundle.open(Path({str(tiny_bundle)!r})).predict(np.arange(12000, dtype=np.uint16).reshape(100, 120))
print(sorted({{"tensorflow", "keras", "mlflow", "prefect"}} & set(sys.modules)))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)

    assert done.stdout.strip() == "[]"
