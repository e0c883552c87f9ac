"""Statistical promises, kept in simulation: patients of several images that resemble each other, and a known truth.

`python -m tests.benchmarks.promises` prints the same with more runs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.model.slices import slices
from tests.benchmarks import promises


def test_intervals_over_patients_cover_and_intervals_over_images_do_not():
    """AUROC of three correlated images a patient: drawing patients covers about 95%, drawing images far less."""
    assert 0.93 <= promises.auroc_coverage(300, 11) <= 0.97
    assert promises.auroc_coverage(100, 11, images_as_patients=True) < 0.82


def test_rates_cover_too():
    """Wilson with the design effect: sensitivity .9 over 60 patients of three correlated images."""
    assert 0.93 <= promises.sensitivity_coverage(2000, 5) <= 0.97


def test_paired_differences_cover():
    """Two made-up patients a class keep them on the safe side, so above 97% is no surprise."""
    sensitivity, specificity = promises.difference_coverage(120, 3)

    assert sensitivity >= 0.93
    assert specificity >= 0.93


def test_a_model_that_serves_everyone_alike_is_seldom_flagged():
    """No slice differs: at most about 5% of evaluations flag any, and the intervals hold the difference of 0."""
    flagged, single, covered = promises.false_flags(80, 9)

    assert flagged <= 0.08
    assert single <= 0.06
    assert 0.93 <= covered <= 0.99


def test_a_slice_that_is_served_worse_is_flagged():
    """At site d the fractures score two standard deviations lower; only that slice is far from its rest."""
    random = np.random.default_rng(2)
    labels, scores, patients = promises.clustered(random, 400)
    site = np.repeat(random.choice(list("abcd"), 400), 3)
    scores[(site == "d") & (labels == 1)] -= 2
    table = pd.DataFrame({"label": labels, "patient_id": patients, "site": site})
    found = {s.value: s for s in slices(table, 1 / (1 + np.exp(-scores)), promises.CUTS, promises.SLICING)}

    assert found["d"].flagged
    assert found["d"].difference_sensitivity.high < 0
    assert found["d"].p_specificity > 0.05


def test_the_calibration_test_keeps_its_level():
    """Of 300 calibrated models, about 5% exceed the null's 95th percentile."""
    assert 0.02 <= promises.calibration_alarms(300, 8) <= 0.08


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_either_class_is_covered_in_the_mean_over_draws(alpha):
    """Of a new patient's images at least 1 - alpha, and not much more, from 30 fractured patients and 60 others.

    The fractures are harder, and that is not paid for by the others.
    """
    for covered in promises.set_coverage(400, 7, alpha):
        assert 1 - alpha <= covered <= 1 - alpha + 0.04
