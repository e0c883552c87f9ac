"""A picture that shows another body region than its file states goes to a person, with that reason."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest

from components.model import network, runtime
from components.model.calibrate import Calibrated
from components.model.conversion import convert
from components.radiograph.phantom import DETECTOR_A, draw
from components.serving import caution
from components.serving.bundle import MANIFEST, MODEL, Bundle, Manifest, Prediction, PredictionSet, Regions
from components.serving.service import Service

SAID = Prediction(
    0.9, 2.0, np.zeros((2, 2), np.float32), np.zeros(1), "fracture",
    regions={"hand": 0.95, "leg": 0.05}, region="hand",
    prediction_set=PredictionSet(labels=("fracture",), coverage=0.9),
)  # fmt: skip


def test_another_region_leaves_the_call_to_a_person():
    """The probability stays, for the log; the prediction set, which would say more than the call, does not."""
    said = caution.abstain(SAID, {}, "leg")

    assert (said.call, said.probability, said.prediction_set) == ("review", 0.9, None)
    assert caution.other_region(SAID, "leg") == "hand"


@pytest.mark.parametrize("stated", ["hand", "unknown", "hip"])
def test_a_region_is_contradicted_only_by_who_knows_it(stated):
    """The same region, none, and one that was not learned keep the call."""
    assert caution.abstain(SAID, {}, stated) is SAID


def test_who_is_not_sure_contradicts_nothing():
    assert caution.other_region(dataclasses.replace(SAID, region=None), "leg") is None


def test_the_reason_is_told():
    assert caution.warnings({"region_seen": "hand"}) == [
        "The picture shows another body region than its file states: hand."
    ]


def test_what_the_model_says_of_the_picture_is_withheld_with_its_answer():
    """A blind reader is told what was measured, and nothing else."""
    quality = {"region_seen": "hand", "familiar": False, "motion": 9.0}

    assert caution.warnings(quality, hidden=True) == ["The picture may be blurred by movement."]


@pytest.fixture(scope="module")
def biased(tiny_bundle, tmp_path_factory):
    """The tiny bundle with a region output that sees an arm in every picture, and is heeded."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("biased") / "bundle")
    runtime.start(1)
    model = network.build("residual", 64, None, 0.0, regions=2)
    head = model.get_layer("region")
    head.set_weights([np.zeros(head.kernel.shape), np.array([5.0, -5.0])])
    curve = Calibrated.read(tiny_bundle.parent / "calibration.json")
    (folder / MODEL).write_bytes(convert(model, curve, "float32", np.zeros((1, 64, 64), np.uint8)))
    made = Manifest.decode((folder / MANIFEST).read_bytes(), where="biased")
    parts = made.parts | {MODEL: hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()}
    regions = Regions(names=("arm", "leg"), accuracy=None, sure=None, heeded=True, reasons=())
    (folder / MANIFEST).write_bytes(made.model_copy(update={"parts": parts, "regions": regions}).encode())
    return folder


def test_the_service_leaves_such_a_case_to_a_person(config, state, publish, biased):
    """A leg that looks like an arm is for review and says why; an arm is called as ever."""
    publish(state, biased)
    service = Service(config)
    drawn = [draw(11, patient=n, detector=DETECTOR_A, fracture=False).dicom for n in range(8)]
    said = [service.predict(data, service.champion.current()) for data in drawn]
    plain = Bundle.open(biased)

    seen = {(one.body_region, one.quality.get("region_seen")) for one in said}
    assert seen == {("arm", None), ("leg", "arm")}
    assert {one.call for one in said if one.body_region == "leg"} == {"review"}
    assert all(one.call == plain.call(one.probability) for one in said if one.body_region == "arm")
