"""Calibration: Platt's curve is right, thresholds keep their promise, each on its own role."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dataset.rows import write_rows
from components.errors import DataError
from components.model import examples, network
from components.model.calibrate import Calibrated, calibrate, platt, sigmoid
from components.params import Calibrate

POINTS = Calibrate(high_sensitivity=0.95, high_specificity=0.95, conformal_alpha=0.1)


def test_a_known_curve_is_recovered():
    """Simulation: 20,000 labels drawn from sigmoid(2 x logit - 1) give slope 2 and intercept -1 back."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, 20_000)
    labels = (random.random(20_000) < sigmoid(2 * logits - 1)).astype(float)

    assert platt(labels, logits) == pytest.approx((2, -1), abs=0.08)


def test_probabilities_match_frequencies():
    """Simulation: after calibration the mean probability is the share of fractures (Platt's targets move it little)."""
    random = np.random.default_rng(1)
    logits = random.normal(3, 10, 5_000)
    labels = (random.random(5_000) < sigmoid(0.3 * logits - 2)).astype(float)
    slope, intercept = platt(labels, logits)

    assert sigmoid(slope * logits + intercept).mean() == pytest.approx(labels.mean(), abs=0.002)


@given(
    logits=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=40),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_the_curve_is_finite_whatever_the_logits(logits, scale):
    """Separable, tied or huge logits still give numbers."""
    labels = np.arange(len(logits)) % 2.0

    assert np.isfinite(platt(labels, np.array(logits) * scale)).all()


def test_separated_classes_stay_short_of_certainty():
    """Perfect separation of 10 + 10 does not claim probability 1."""
    logits = np.r_[np.full(10, -5.0), np.full(10, 5.0)]
    slope, intercept = platt(np.r_[np.zeros(10), np.ones(10)], logits)

    assert sigmoid(slope * 5 + intercept) == pytest.approx(11 / 12, abs=1e-6)


def test_thresholds_keep_their_promise_on_tune(trained):
    """On `tune`, at least 95% of fractures lie at or above the low point and 95% of the others below the high one."""
    found = Calibrated.read(trained.calibration)
    tune = examples.load(**trained.inputs, roles=("tune",))
    logits = network.logits(network.load(trained.trained / "model.keras"), tune.pixels)
    probability = found.probability(logits)

    assert (probability[tune.labels == 1] >= found.thresholds.high_sensitivity.threshold).mean() >= 0.95
    assert (probability[tune.labels == 0] < found.thresholds.high_specificity.threshold).mean() >= 0.95


def test_every_number_names_its_role(trained):
    """The curve comes from `calibrate`, the thresholds from `tune`; both are written down."""
    body = json.loads(trained.calibration.read_text())

    assert (body["source_role"], body["n"]) == ("calibrate", 40)
    assert {point["source_role"] for point in body["thresholds"].values()} == {"tune"}


@pytest.mark.parametrize(("role", "first"), [("tune", 0), ("calibrate", 10)])
def test_a_role_without_fractures_is_refused(role, first, trained, make_archive, tmp_path):
    """The message says which role lacks what, and which step and parameter mend it."""
    labels = np.arange(22) % 2.0
    labels[first : first + (10 if role == "tune" else 12)] = 0
    found = make_archive(tmp_path / "archive", {"tune": 10, "calibrate": 12}, labels=labels)

    with pytest.raises(DataError, match=f"role {role} has 0 images with.*`intake`.*split.shares"):
        calibrate(**found.inputs, trained=trained.trained, calibration=tmp_path / "c.json", params=POINTS)


def test_a_network_that_learned_nothing_is_refused(trained, make_archive, tmp_path):
    """Scores that run against the labels are no basis for a threshold."""
    found = make_archive(tmp_path / "archive", {"tune": 20, "calibrate": 40})
    table = pd.read_parquet(found.inputs["accepted"])
    table["label"] = 1 - table["label"]
    write_rows(found.inputs["accepted"], table)

    with pytest.raises(DataError, match=r"slope -.*40 images of role calibrate"):
        calibrate(**found.inputs, trained=trained.trained, calibration=tmp_path / "c.json", params=POINTS)


def test_a_lost_calibration_names_the_step(tmp_path):
    with pytest.raises(DataError, match="run `calibrate`"):
        Calibrated.read(tmp_path / "calibration.json")
