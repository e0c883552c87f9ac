"""A file that states a body region or view that the bundle was not checked on gets no call, and says why."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from components.radiograph.phantom import DETECTOR_A, draw
from components.serving import caution
from components.serving.bundle import MANIFEST, Bundle, Manifest, Prediction, PredictionSet, Supported
from components.serving.service import Service

LIMBS = Supported(body_regions=("hand", "leg"), views=("frontal", "lateral"))
SAID = Prediction(
    0.9, 2.0, np.zeros((2, 2), np.float32), np.zeros(1), "fracture", supported=LIMBS,
    prediction_set=PredictionSet(labels=("fracture",), coverage=0.9),
)  # fmt: skip


@pytest.mark.parametrize(
    ("region", "view", "expected"),
    [
        ("hand", "lateral", None),
        ("unknown", "unknown", None),
        ("skull", "frontal", "skull"),
        ("leg", "oblique", "oblique"),
        ("skull", "oblique", "skull"),
    ],
)
def test_what_is_stated_has_to_be_among_what_was_checked(region, view, expected):
    """Nothing can be said of a file that states nothing."""
    assert LIMBS.lacks(region, view) == expected


def test_where_nobody_stated_a_view_none_is_asked_for():
    assert Supported(body_regions=("hand",), views=()).lacks("hand", "oblique") is None


def test_the_call_is_left_to_a_person():
    """The probability stays, for the log; the prediction set, which promises nothing here, does not."""
    said = caution.abstain(SAID, {}, "skull", "frontal")

    assert (said.call, said.probability, said.prediction_set) == ("review", 0.9, None)
    assert caution.reason(SAID, {}, "skull", "frontal") == "unsupported"


def test_it_is_said_in_words():
    assert str(LIMBS) == "body regions: hand, leg; views: frontal, lateral"
    assert str(Supported(body_regions=(), views=("frontal",))) == "views: frontal"


def test_a_bundle_without_such_a_list_calls_as_before():
    plain = dataclasses.replace(SAID, supported=None)

    assert caution.abstain(plain, {}, "skull", "oblique") is plain


def test_the_reason_is_told_and_withheld_with_the_answer():
    """A blind reader is not told what the model was made for."""
    quality = {"unsupported": "skull", "motion": 9.0}

    assert caution.warnings(quality) == [
        "The picture may be blurred by movement.",
        "The model was not checked on pictures of this kind (skull); it makes no call.",
    ]
    assert caution.warnings(quality, hidden=True) == ["The picture may be blurred by movement."]


def test_the_service_leaves_such_a_case_to_a_person(config, state, publish, tiny_bundle, tmp_path):
    """Of a bundle that was checked on arms alone legs are for review and say why; arms are called as ever."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "arms")
    made = Manifest.decode((folder / MANIFEST).read_bytes(), where="arms")
    arms = made.model_copy(update={"supported": Supported(body_regions=("arm",), views=())})
    (folder / MANIFEST).write_bytes(arms.encode())
    publish(state, folder)
    service, plain = Service(config), Bundle.open(folder)
    drawn = [draw(11, patient=n, detector=DETECTOR_A, fracture=False).dicom for n in range(8)]
    said = [service.predict(data, service.champion.current()) for data in drawn]

    assert {(one.body_region, one.quality.get("unsupported")) for one in said} == {("arm", None), ("leg", "leg")}
    assert {one.call for one in said if one.body_region == "leg"} == {"review"}
    assert all(one.call == plain.call(one.probability) for one in said if one.body_region == "arm")
