"""What a network says beside fracture or not, and the training options that leave today's network as it is when off."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from components.errors import BundleCorrupt
from components.model import ensemble, examples, heads, network, regions, runtime
from components.model.calibrate import calibrate
from components.model.examples import vocabulary
from components.model.export import export
from components.model.train import train
from components.model.training import Training
from components.params import Calibrate, Evaluate, Export, RegionChecks
from components.serving.bundle import Bundle, Outputs
from tests.model.conftest import CHECKS, OPTIONS, REGIONS, Trained, settings, write
from tests.model.killed import killed
from tests.sweeps import QUICK

JUDGE = Evaluate(resamples=200, prevalences=(0.1,), min_slice=10, robustness=QUICK, seed=0)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Trained:
    """An archive of hands and legs, trained with every option, and calibrated."""
    roles = {"train": 96, "tune": 24, "calibrate": 40}
    made = Trained(write(tmp_path_factory.mktemp("told"), roles, regions=True).folder)
    train(**made.inputs, trained=made.trained, params=settings(**OPTIONS))
    points = Calibrate(high_sensitivity=0.95, high_specificity=0.95, conformal_alpha=0.1)
    calibrate(**made.inputs, trained=made.trained, calibration=made.calibration, params=points)
    return made


@pytest.fixture(scope="module")
def bundle(told, tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("told") / "bundle"
    params = Export(
        intended_use="research", variant="float32", parity=0.001, heat_map=CHECKS, regions=REGIONS, min_supported=0
    )
    given = {"trained": told.trained, "calibration": told.calibration, "features": told.features}
    export(**told.inputs, **given, bundle=folder, params=params)
    return Bundle.open(folder)


def test_the_regions_of_role_train_are_told_apart(told, bundle):
    """The record and the manifest name them; a picture of several, or of none that is stated, is no region."""
    assert Training.read(told.trained).regions == ("hand", "leg")
    assert bundle.manifest.regions.names == ("hand", "leg")


def test_the_card_says_what_else_the_bundle_says(bundle):
    card = (bundle.folder / "model_card.md").read_text()

    assert "and a heat map. It also names the body region (hand, leg): a file's region that it contradicts" in card
    assert "It also expects a number of fractures, which is reported and decides nothing." in card


def test_it_learns_regions_and_fractures_together(told, bundle):
    """Minimum function, with every option on: fractures, and regions of patients that it was not fitted to."""
    known = examples.load(**told.inputs, roles=("tune", "calibrate")).table["body_region"].isin(["hand", "leg"]).sum()

    assert Training.read(told.trained).tune_auroc > 0.95
    assert (bundle.manifest.regions.accuracy.n, bundle.manifest.regions.accuracy.value > 0.9) == (known, True)
    assert bundle.manifest.regions.heeded


def test_the_learning_curve_tells_both_losses(told):
    first, *_ = json.loads((told.trained / "history.json").read_text())

    assert {"region_loss", "fracture_loss"} <= set(first)


def test_the_released_graph_tells_what_the_network_tells(told, bundle):
    """Probabilities of the regions add up to 1 and agree with Keras; so does the expected number of fractures."""
    data = examples.load(**told.inputs, roles=("tune",))
    found = network.load(told.trained / "model.keras").predict_on_batch(data.pixels[..., None].astype(np.float32))
    logits = np.asarray(found["region"], np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    outputs = [bundle.graph.run(square) for square in data.pixels]

    np.testing.assert_allclose([output.region for output in outputs], expected, atol=1e-3)
    np.testing.assert_allclose(
        [output.fractures for output in outputs], np.asarray(found["fractures"])[:, 0], rtol=1e-3, atol=1e-4
    )


def test_a_prediction_names_the_region_it_is_sure_of(told, bundle):
    """From .9 on, and only from a bundle whose check lets it."""
    said = bundle.predict(examples.load(**told.inputs, roles=("tune",)).pixels[0])
    barred = bundle.manifest.regions.model_copy(update={"heeded": False})
    silent = Bundle(
        bundle.folder, bundle.manifest.model_copy(update={"regions": barred}), "", bundle.graph, bundle.scope
    )

    assert set(said.regions) == {"hand", "leg"}
    assert [b.sure({"hand": 0.9, "leg": 0.1}) for b in (bundle, silent)] == ["hand", None]
    assert bundle.sure({"hand": 0.89, "leg": 0.11}) is None


def test_other_names_than_the_graph_tells_are_refused(bundle, tmp_path):
    """A manifest that names a third region is not this graph's."""
    shutil.copytree(bundle.folder, tmp_path / "b")
    named = bundle.manifest.regions.model_copy(update={"names": ("hand", "hip", "leg")})
    (tmp_path / "b/manifest.json").write_bytes(bundle.manifest.model_copy(update={"regions": named}).encode())

    with pytest.raises(BundleCorrupt, match="tells 2 body regions apart, the manifest names 3"):
        Bundle.open(tmp_path / "b")


@pytest.mark.slow
def test_a_killed_training_continues_its_average_too(told, tmp_path):
    """SIGKILL after the second epoch, with every option on: same bytes as an undisturbed run."""
    call = {**told.inputs, "trained": tmp_path / "models" / "trained", "params": settings(**OPTIONS)}
    assert killed(call, epochs=2) == -signal.SIGKILL
    train(**call)

    for name in ("model.keras", "training.json", "history.json"):
        assert (tmp_path / "models" / "trained" / name).read_bytes() == (told.trained / name).read_bytes(), name


def test_further_outputs_move_no_other_weight():
    """What starts at random starts where it would without them."""
    made = []
    for asked in ({}, {"regions": 3, "fractures": True}):
        runtime.start(1)
        made.append(network.build("residual", 32, None, 0.2, **asked))
    plain, more = ({w.path: np.asarray(w) for w in model.weights} for model in made)

    assert set(more) - set(plain) == {"region/kernel", "region/bias", "fractures/kernel", "fractures/bias"}
    assert all(np.array_equal(more[path], weight) for path, weight in plain.items())


def test_an_ensemble_tells_its_members_mean():
    """Of region and number alike; an ensemble of networks that tell neither does not."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1)).astype(np.float32)
    members = [network.build("residual", 32, None, 0.0, regions=2, fractures=True) for _ in range(2)]
    joined = ensemble.join(members, mirror=False)
    plain = ensemble.join([network.build("residual", 32, None, 0.0)], mirror=True)

    for name in ("region", "fractures"):
        expected = np.mean([np.asarray(member(pixels)[name]) for member in members], axis=0)
        np.testing.assert_allclose(np.asarray(joined(pixels)[name]), expected, atol=1e-5)
    assert set(plain.output) == {"logit", "evidence", "embedding"}


def test_one_region_is_nothing_to_tell_apart():
    """`mixed` and `unknown` are no regions; the order is the alphabet's."""
    assert vocabulary(["leg", "unknown", "mixed", None, "hand", "leg"]) == ("hand", "leg")
    assert vocabulary(["leg", "leg", "unknown", "mixed"]) == ()


def test_fractures_are_counted_by_their_boxes(archive):
    """None without a fracture; unknown where nobody has said where they are."""
    data = examples.load(**archive.inputs, roles=("train",))
    two = json.dumps([{"x": 1, "y": 1, "width": 5, "height": 5}, {"x": 9, "y": 9, "width": 5, "height": 5}])
    table = data.table[:3].assign(label=[1.0, 0.0, 1.0], boxes=[two, "[]", "[]"])

    np.testing.assert_array_equal(examples.counted(table), [2, 0, np.nan])


TABLE = pd.DataFrame(
    {
        "patient_id": [f"p{n}" for n in range(40)],
        "body_region": ["hand"] * 19 + ["mixed"] + ["leg"] * 19 + ["unknown"],
        "label": [0.0, 1.0] * 20,
        "boxes": ["[]", json.dumps([{"x": 1, "y": 1, "width": 5, "height": 5}])] * 19 + ["[]", "[]"],
    }
)


def outputs(right: float) -> list[Outputs]:
    """Sure of every image; right on the first 19 and on as much of the other legs."""
    none = Outputs(0.5, 0.0, np.zeros((2, 2)), np.zeros(2))
    hands = [n < 20 or n >= 20 + 20 * right for n in range(40)]
    return [dataclasses.replace(none, region=np.array([0.95, 0.05] if hand else [0.05, 0.95])) for hand in hands]


@pytest.mark.parametrize(
    ("right", "images", "reasons"),
    [
        (1.0, 30, ()),
        (1.0, 39, ("38 images have a region that it knows, 39 are needed to judge it",)),
        (0.0, 30, ("it names too few regions right", "where it is sure it is not shown to be right")),
    ],
)
def test_only_a_region_that_is_shown_to_be_right_is_heeded(right, images, reasons):
    """On enough images, by the lower bound; the reasons say what failed, and with what figures."""
    data = examples.Examples(TABLE, np.zeros((40, 2, 2), np.uint8), None)
    asked = RegionChecks(min_images=images, min_accuracy=0.8, min_sure=0.9)
    found = regions.check(("hand", "leg"), data, outputs(right), asked)

    assert (found.heeded, len(found.reasons)) == (not reasons, len(reasons))
    assert all(said.startswith(reason) for said, reason in zip(found.reasons, reasons, strict=True))


def test_region_and_number_are_judged_with_their_denominators():
    """38 images have a region, one leg in ten is taken for a hand with .95; and 39 have a known number."""
    said = [(dict(zip(("hand", "leg"), o.region.tolist(), strict=True)), 0.5) for o in outputs(0.9)]
    found = heads.figures(said, TABLE, TABLE["patient_id"].to_numpy(str), JUDGE)

    region, counts = found.regions, found.counts
    assert (region.accuracy.n, round(region.accuracy.value, 3), region.untold) == (38, 0.974, 2)
    assert [(one.name, one.recall.n, round(one.recall.value, 3)) for one in region.each] == [
        ("hand", 19, 1.0),
        ("leg", 19, 0.947),
    ]
    assert round(region.contradicted.value, 3) == 0.026
    assert (counts.error.n, counts.error.value, counts.on_fractures.n, counts.uncounted) == (39, 0.5, 19, 1)
    assert counts.of_none == pytest.approx(19 / 39)


def test_a_bundle_that_tells_nothing_else_is_judged_on_nothing_else():
    assert heads.figures([({}, None)] * 40, TABLE, TABLE["patient_id"].to_numpy(str), JUDGE) is None
