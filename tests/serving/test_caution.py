"""What is no radiograph gets no call, and keeps its number for the log."""

from __future__ import annotations

import numpy as np
import pytest

from components.serving.bundle import Prediction, PredictionSet
from components.serving.caution import abstain

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
