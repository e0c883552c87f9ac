"""What is no radiograph gets no call, and keeps its number for the log."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.serving.bundle import Prediction, PredictionSet, Supported
from components.serving.caution import WHY, abstain, reason

LEFT = PredictionSet(labels=("fracture",), coverage=0.9)
SAID = Prediction(0.9, 2.0, np.zeros((2, 2), np.float32), np.zeros(1), "fracture", prediction_set=LEFT)


@pytest.mark.parametrize("quality", [{"clutter": 51.0}, {"grey_levels": 63}])
def test_what_is_no_radiograph_is_left_to_a_person(quality):
    said = abstain(SAID, quality)

    assert (said.call, said.probability, said.prediction_set) == ("review", 0.9, None)


@pytest.mark.parametrize(
    "quality", [{}, {"clutter": 50.0, "grey_levels": 64}, {"cnr": 1.0, "motion": 9.0}, {"clutter": None}]
)
def test_a_poor_radiograph_keeps_its_call(quality):
    """It is warned about, and judged."""
    assert abstain(SAID, quality) is SAID


SEEN = {"regions": {"hand": 0.95, "leg": 0.05}, "region": "hand"}


@pytest.mark.parametrize(
    ("changed", "quality", "stated", "expected"),
    [
        ({}, {}, "leg", None),
        ({"call": "review"}, {}, "leg", "between_points"),
        ({"call": "review", "familiar": False}, {}, "leg", "unfamiliar"),
        (SEEN, {}, "leg", "other_region"),
        (SEEN, {}, "hand", None),
        ({"call": "review", "familiar": False}, {"clutter": 51.0}, "leg", "no_radiograph"),
        (SEEN | {"supported": Supported(body_regions=("hand",), views=())}, {}, "leg", "unsupported"),
    ],
)
def test_there_is_a_reason_where_a_person_decides(changed, quality, stated, expected):
    """And none where the call stands; of several the plainest is told."""
    said = dataclasses.replace(SAID, **changed)

    assert reason(said, quality, stated) == expected
    assert (abstain(said, quality, stated).call == "review") == (expected is not None)


def test_reasons_fit_into_a_structured_report():
    """A code has at most 16 characters, its meaning 64 (DICOM PS3.5, SH and LO)."""
    assert all(len(code) <= 16 and len(meaning) <= 64 for code, meaning in WHY.items())
