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
    """Both rates at once, as the gate asks for them: 200 patients of three images."""
    for covered in promises.difference_coverage(150, 3):
        assert 0.91 <= covered <= 0.99


@pytest.mark.parametrize(
    ("patients", "images", "alike", "rate", "apart", "true"),
    [
        (60, 3, 0.6, 0.9, 0.2, 0.0),
        (60, 9, 0.9, 0.7, 0.2, -0.03),
        (150, 3, 0.0, 0.7, 0.02, -0.03),
        (150, 1, 0.0, 0.9, 0.2, 0.0),
        (400, 3, 0.6, 0.98, 0.2, -0.03),
        (400, 9, 0.6, 0.9, 0.02, 0.0),
    ],
)
def test_a_paired_rate_covers_and_rarely_passes_a_loss_of_the_margin(patients, images, alike, rate, apart, true):
    """Between 93% and 97%, give or take the error of a thousand runs, wherever ten patients or more tell."""
    covered, above, _ = promises.rate_difference(1000, 13, patients, images, alike, rate, apart, true)

    assert 0.92 <= covered <= 0.98
    assert above <= 0.05


@pytest.mark.parametrize("images", [1, 3])
def test_where_bundles_hardly_disagree_the_interval_is_on_the_safe_side(images):
    """Two or three patients of thirty: nothing would hold 95% there, and more is held."""
    covered, above, disagreed = promises.rate_difference(1000, 17, 30, images, 0.6, 0.98, 0.2, -0.03)

    assert disagreed < 5
    assert covered >= 0.95
    assert above <= 0.02


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
