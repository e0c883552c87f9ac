"""Statistics: known values and invariants; what is promised of many samples is in test_promises."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError
from components.model import statistics as s
from components.model.reliability import calibration_error_null, calibration_line, net_benefit
from tests.benchmarks.promises import clustered

LABELS = np.array([0.0, 0, 1, 1])


def test_an_estimate_prints_as_journals_print_it():
    """Three decimals, no leading zero, the interval in brackets."""
    assert str(s.Estimate(0.9124, 0.8741, 0.9438, 400)) == ".912 (.874-.944)"
    assert str(s.Estimate(-0.03, -0.1, 1.0, 40)) == "-.030 (-.100 to 1.000)"


def test_auroc_counts_ties_half():
    """Three of four pairs are in order, and a tie is half a pair."""
    assert s.auroc(LABELS, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert s.auroc(LABELS, np.array([0.1, 0.5, 0.5, 0.8])) == 0.875


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40))
def test_a_weight_is_a_repetition(rows):
    """AUROC and AUPRC of weighted images equal those of images written down so often."""
    label, score, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    again = weight.astype(int)
    written = np.repeat(label, again), np.repeat(score, again)
    if len(set(written[0])) < 2:
        return

    for figure in (s.auroc_of, s.average_precision_of):
        weighted = figure(label, score)(weight[None])[0, 0]
        repeated = figure(*written)(np.ones((1, len(written[0]))))[0, 0]
        assert weighted == pytest.approx(repeated)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=25),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_a_resample_gives_what_the_definition_gives(rows, each, seed):
    """AUROC pair by pair, AUPRC step by step, a rate by counting, on every resample of patients."""
    label, score = (np.array(column, float) for column in zip(*rows, strict=True))
    if len(set(label)) < 2:
        return
    rates = s.ratios_of(((score >= 3) & (label == 1))[:, None], (label == 1)[:, None])
    drawn: list[np.ndarray] = []

    def figures(weights):
        drawn.extend(weights.copy())
        return np.hstack([f(weights) for f in (s.auroc_of(label, score), s.average_precision_of(label, score), rates)])

    found = s.bootstrap(np.arange(len(label)) // each, figures, resamples=5, seed=seed)

    assert found == pytest.approx(np.array([by_definition(label, score, weight) for weight in drawn]), nan_ok=True)


def by_definition(label: np.ndarray, score: np.ndarray, weight: np.ndarray) -> list[float]:
    """AUROC, AUPRC and the share of fractures that score 3 or more, of images written down `weight` times."""
    again = weight.astype(int)
    fractures, others = np.repeat(score[label == 1], again[label == 1]), np.repeat(score[label == 0], again[label == 0])
    if len(fractures) == 0:
        return [np.nan] * 3
    everyone = np.r_[fractures, others]
    pairs = [float(a > b) + (a == b) / 2 for a in fractures for b in others]
    precision = [np.mean(fractures >= at) * len(fractures) / np.sum(everyone >= at) for at in fractures]
    return [float(np.mean(pairs)) if pairs else np.nan, float(np.mean(precision)), float(np.mean(fractures >= 3))]


@given(st.lists(st.tuples(st.booleans(), st.floats(-5, 5)), min_size=4, max_size=30))
def test_auroc_looks_at_order_only(rows):
    """Doubling every score changes nothing, reversing the order mirrors it."""
    label, score = (np.array(column, float) for column in zip(*rows, strict=True))
    if len(set(label)) < 2:
        return

    assert s.auroc(label, score * 2) == pytest.approx(s.auroc(label, score))
    assert s.auroc(label, -score) == pytest.approx(1 - s.auroc(label, score))


def test_average_precision():
    """Ranked fracture, none, fracture, none: (1 + 2/3) / 2."""
    found = s.average_precision_of(np.array([1.0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1]))(np.ones((1, 4)))

    assert found[0, 0] == pytest.approx(5 / 6)


def test_one_class_alone_is_refused():
    """The message says what is missing."""
    with pytest.raises(DataError, match="fractures are missing: 0 images with and 2 without"):
        s.auroc(np.zeros(2), np.arange(2.0))


@given(st.lists(st.floats(0, 0.9375, width=32), min_size=1, max_size=50), st.floats(0.5, 1))
def test_thresholds_keep_what_they_promise(scores, target):
    """On the images they were chosen on: the largest that keeps sensitivity, the smallest that keeps specificity."""
    p = np.array(scores)
    low = s.high_sensitivity_threshold(np.ones(len(p)), p, target)
    high = s.high_specificity_threshold(np.zeros(len(p)), p, target)

    assert np.mean(p >= low) >= target - 1e-9
    assert np.mean(p >= np.nextafter(low, 2)) < target
    assert np.mean(p < high) >= target - 1e-9
    below = np.nextafter(np.float32(high), np.float32(-1))
    assert high == 0 or np.mean(p < below) < target


def test_thresholds_need_their_class():
    """Nothing can be kept of nothing, and probability 1 cannot be exceeded."""
    with pytest.raises(DataError, match="needs fractures, found 0"):
        s.high_sensitivity_threshold(np.zeros(3), np.arange(3) / 3, 0.95)
    with pytest.raises(DataError, match="needs non-fractures, found 0"):
        s.high_specificity_threshold(np.ones(3), np.arange(3) / 3, 0.95)
    with pytest.raises(DataError, match="2 of 2 non-fractures have probability 1"):
        s.high_specificity_threshold(np.zeros(2), np.ones(2), 0.95)


def test_no_error_is_not_certainty():
    """40 of 40, one a patient: Wilson's .912 to 1; with four images a patient the ten patients count."""
    assert str(s.rate(np.ones(40, bool), np.arange(40))) == "1.000 (.912-1.000)"
    assert str(s.rate(np.ones(40, bool), np.arange(40) // 4)) == "1.000 (.722-1.000)"
    assert s.rate(np.zeros(0, bool), np.zeros(0)) is None


def test_predictive_values_at_the_prevalence_of_use():
    """Sensitivity .9 and specificity .9 at 5%: PPV .321, NPV .994."""
    rates = np.array([0.9])

    assert s.predictive_value(rates, rates, 0.05, positive=True)[0] == pytest.approx(0.3214, abs=1e-4)
    assert s.predictive_value(rates, rates, 0.05, positive=False)[0] == pytest.approx(0.9942, abs=1e-4)


def test_net_benefit():
    """One true and one false positive of four, at .2: 1/4 - 1/4 * 1/4."""
    found = net_benefit(LABELS, np.array([0.1, 0.3, 0.1, 0.9]), np.array([0.2]))

    assert found[0] == pytest.approx(3 / 16)


def test_benjamini_hochberg_rejects_what_the_paper_rejects():
    """The worked example of Benjamini and Hochberg 1995, section 3.2: the four smallest of 15."""
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.759,
        1,
    ]

    assert s.benjamini_hochberg(p[::-1], 0.05).tolist() == [False] * 11 + [True] * 4
    assert s.benjamini_hochberg([], 0.05).tolist() == []


def test_the_same_seed_draws_the_same_patients():
    """An interval is a function of data and seed, whatever the size of the blocks it is computed in."""
    labels, scores, patients = clustered(np.random.default_rng(0), 40)
    draws = [s.bootstrap(patients, s.auroc_of(labels, scores), resamples=50, seed=1) for _ in range(2)]

    assert draws[0].shape == (50, 1)
    assert np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize(("images", "expected"), [(500, 0.045), (1000, 0.032)])
def test_chance_alone_gives_a_calibration_error(images, expected):
    """A perfectly calibrated, decided model (Beta(.4, .4)): mean 15-bin error .045 at 500 images, .032 at 1,000."""
    p = np.random.default_rng(2).beta(0.4, 0.4, images)
    mean, high = calibration_error_null(p, seed=0)

    assert mean == pytest.approx(expected, abs=0.002)
    assert mean < high < 1.5 * mean


def test_the_calibration_line_finds_overconfidence():
    """Logits twice too steep have slope .5; a calibrated model has 1 and 0 in its intervals."""
    random = np.random.default_rng(4)
    logits = random.normal(size=6000)
    labels = (random.random(6000) < 1 / (1 + np.exp(-logits))).astype(float)
    slope, intercept = calibration_line(labels, 1 / (1 + np.exp(-logits)), np.arange(6000) // 2)
    steep, _ = calibration_line(labels, 1 / (1 + np.exp(-2 * logits)), np.arange(6000) // 2)

    assert slope.low < 1 < slope.high
    assert intercept.low < 0 < intercept.high
    assert steep.value == pytest.approx(slope.value / 2, abs=1e-6)


def test_there_is_no_line_through_separated_classes():
    """Perfect separation and constant probabilities have no finite slope, and none is invented."""
    assert calibration_line(LABELS, np.array([0.1, 0.2, 0.8, 0.9]), np.arange(4)) is None
    assert calibration_line(LABELS, np.full(4, 0.3), np.arange(4)) is None


@pytest.mark.slow
def test_a_big_test_set_is_quick():
    """2,000 resamples of 100,000 images take less than 20 s of one core (3.4 s where it was measured)."""
    random = np.random.default_rng(0)
    labels = (random.random(100_000) < 0.3).astype(float)
    scores, patients = random.normal(size=100_000) + labels, np.arange(100_000) // 3
    started = time.process_time()
    s.bootstrap(patients, s.auroc_of(labels, scores), resamples=2000, seed=0)

    assert time.process_time() - started < 20
