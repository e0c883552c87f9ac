"""Audited performance: unbiased where corrections are not, and an alarm that may be looked at every day."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.errors import DataError
from components.monitoring.performance import audited, e_value
from tests.monitoring.windows import MONITOR


def production(seed, n, *, sensitivity=0.90, specificity=0.82, prevalence=0.3, read_flagged=0.95, read_other=0.05):
    """A frame of the prediction log whose truth is known for the cases that were drawn and read."""
    rng = np.random.default_rng(seed)
    label = rng.random(n) < prevalence
    flagged = np.where(label, rng.random(n) < sensitivity, rng.random(n) >= specificity)
    chance = np.where(flagged, read_flagged, read_other)
    drawn = rng.random(n) < chance
    return pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "patient_id": [f"patient-{i}" for i in range(n)],
            "call": np.where(flagged, "fracture", "no_fracture"),
            "audit": drawn,
            "inclusion_probability": chance,
            "label": np.where(drawn, label.astype(float), np.nan),
            "ai_visible": np.where(drawn, False, None),
        }
    )


def test_verification_bias_and_its_cure():
    """True .90/.82; 95% of flagged and 5% of other cases are read: naive .994/.194, weighted .899/.820."""
    found = audited(cases=production(seed=0, n=400_000), params=MONITOR)

    assert (found.naive_sensitivity.value, found.naive_specificity.value) == pytest.approx((0.994, 0.194), abs=0.005)
    assert (found.sensitivity.value, found.specificity.value) == pytest.approx((0.90, 0.82), abs=0.005)
    assert "people look where the model points" in found.reasons[0]


def test_the_interval_covers():
    """Of 100 audits of 3,000 cases, at least 88 intervals of sensitivity hold the true .90."""
    rows = [audited(cases=production(s, 3000, read_flagged=0.5, read_other=0.2), params=MONITOR) for s in range(100)]

    assert sum(row.sensitivity.low <= 0.90 <= row.sensitivity.high for row in rows) >= 88


def test_corrections_given_in_sight_of_the_ai_do_not_count_as_audit():
    cases = production(seed=1, n=2000).assign(ai_visible=True)

    found = audited(cases=cases, params=MONITOR)

    assert (found.read, found.sensitivity, found.e_value) == (0, None, 1.0)
    assert found.naive_sensitivity is not None


def test_review_counts_as_flagged():
    """A fracture that the model sends to a person is not missed."""
    cases = production(seed=2, n=400, read_flagged=1.0, read_other=1.0).replace({"call": {"no_fracture": "review"}})

    assert audited(cases=cases, params=MONITOR).sensitivity.value == 1.0


def test_a_perfect_audit_is_not_a_sure_one():
    """20 of 20: the exact lower bound is .832, not 1."""
    cases = production(seed=3, n=20, sensitivity=1.0, prevalence=1.0, read_flagged=1.0)

    found = audited(cases=cases, params=MONITOR)

    assert (found.sensitivity.value, found.sensitivity.n) == (1.0, 20)
    assert found.sensitivity.low == pytest.approx(0.832, abs=0.001)


def test_nothing_read_is_unknown_not_good():
    found = audited(cases=production(seed=4, n=100).assign(label=np.nan, ai_visible=None), params=MONITOR)

    assert (found.sensitivity, found.specificity, found.alarm) == (None, None, False)
    assert found.reasons[0].startswith("no audited fracture yet (0 of ")


def sets(cases, covered, *, promised=0.9, seed=7):
    """`cases` with prediction sets that hold the truth with probability `covered`."""
    names = np.where(cases["label"] == 1, ["fracture"], ["no_fracture"])
    other = np.where(cases["label"] == 1, ["no_fracture"], ["fracture"])
    chosen = np.where(np.random.default_rng(seed).random(len(cases)) < covered, names, other)
    return cases.assign(prediction_set=[{"labels": (name,), "coverage": promised} for name in chosen])


def test_sets_that_keep_their_promise_are_counted_and_not_complained_about():
    """Both classes of 3,000 read cases lie near .92, and .9 was promised."""
    found = audited(cases=sets(production(8, 3000, read_flagged=1.0, read_other=1.0), 0.92), params=MONITOR)

    assert found.promised == 0.9
    assert (found.fracture_covered.value, found.no_fracture_covered.value) == pytest.approx((0.92, 0.92), abs=0.02)
    assert found.fracture_covered.low < 0.92 < found.fracture_covered.high
    assert not any("prediction sets" in reason for reason in found.reasons)


def test_sets_that_break_their_promise_are_told():
    found = audited(cases=sets(production(9, 3000, read_flagged=1.0, read_other=1.0), 0.8), params=MONITOR)

    assert [reason for reason in found.reasons if "prediction sets hold" in reason and "promise 0.9" in reason]


def test_cases_without_a_set_do_not_count_towards_coverage():
    """A log of before sets, or a bundle without them: nothing is known, and nothing is complained about."""
    cases = production(8, 400, read_flagged=1.0, read_other=1.0)

    for missing in (cases, cases.assign(prediction_set=None)):
        found = audited(cases=missing, params=MONITOR)
        assert (found.fracture_covered, found.no_fracture_covered, found.promised) == (None, None, None)


def test_an_empty_log_is_unknown():
    assert audited(cases=production(seed=4, n=100).iloc[:0], params=MONITOR).sensitivity is None


def test_an_impossible_inclusion_probability_is_refused():
    cases = production(seed=5, n=100, read_flagged=1.0, read_other=1.0)
    cases.loc[[3, 4], "inclusion_probability"] = 0.0

    with pytest.raises(DataError, match="2 of 100 read cases have an inclusion probability outside"):
        audited(cases=cases, params=MONITOR)


def test_bundles_are_judged_apart():
    with pytest.raises(DataError, match="expected predictions of one bundle, found 2"):
        audited(cases=production(seed=6, n=100).assign(bundle_hash=["a", "b"] * 50), params=MONITOR)


def paths(sensitivity, *, runs, positives, seed):
    """(runs, positives) bool: which audited fracture was detected."""
    return np.random.default_rng(seed).random((runs, positives)) < sensitivity


def evidence(detected, floor=0.9):
    """e-value after each positive of one path: counts are all that matters, so a table answers."""
    n = len(detected)
    misses = np.cumsum(~detected)
    return np.array([table(n, floor)[i, m] for i, m in enumerate(misses, start=1)])


_TABLES: dict[tuple[int, float], np.ndarray] = {}


def table(n, floor):
    """[positives, misses] -> e-value, by the real function."""
    if (n, floor) not in _TABLES:
        made = np.zeros((n + 1, n + 1))
        for i in range(n + 1):
            for m in range(min(i, 60) + 1):
                made[i, m] = e_value(np.arange(i) >= m, np.ones(i), np.arange(i), floor=floor, lowest=1.0)
            made[i, 61:] = np.inf
        _TABLES[n, floor] = made
    return _TABLES[n, floor]


def test_looking_every_day_costs_nothing():
    """Sensitivity exactly at the floor, 300 looks in each of 3,000 runs: at most alpha of the runs ever alarm."""
    alarms = [evidence(path).max() >= 100 for path in paths(0.9, runs=3000, positives=300, seed=0)]

    assert np.mean(alarms) <= 0.01


def test_a_loss_of_a_tenth_is_seen_in_about_a_hundred_fractures():
    """Sensitivity .80: the alarm comes after some 104 audited positives."""
    found = [np.argmax(evidence(path) >= 100) + 1 for path in paths(0.8, runs=400, positives=300, seed=1)
             if evidence(path).max() >= 100]  # fmt: skip

    assert len(found) >= 390
    assert 90 <= np.mean(found) <= 120


def test_a_collapse_is_seen_at_once():
    """Sensitivity .30: within 15 audited positives."""
    found = [np.argmax(evidence(path) >= 100) + 1 for path in paths(0.3, runs=50, positives=300, seed=2)]

    assert np.mean(found) <= 15


def test_the_order_of_truth_does_not_matter():
    detected = paths(0.8, runs=1, positives=60, seed=3)[0]
    ones, names = np.ones(60), np.arange(60)

    assert e_value(detected, ones, names, floor=0.9, lowest=1.0) == pytest.approx(
        e_value(detected[::-1], ones, names, floor=0.9, lowest=1.0)
    )


def test_evidence_is_fair_when_cases_are_drawn_unequally():
    """At the floor, with flagged cases drawn ten times as often, e-values average at most 1."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(800):
        detected = rng.random(60) < 0.9
        chance = np.where(detected, 0.5, 0.05)
        drawn = rng.random(60) < chance
        found.append(e_value(detected[drawn], chance[drawn], np.arange(60)[drawn], floor=0.9, lowest=0.05))

    assert np.mean(found) <= 1 + 3 * np.std(found) / np.sqrt(len(found))


def test_many_images_of_one_patient_are_one_bet():
    """Ten misses of one patient are no alarm; of ten patients they are."""
    missed, ones = np.zeros(10, dtype=bool), np.ones(10)

    assert e_value(missed, ones, np.zeros(10), floor=0.9, lowest=1.0) < 100
    assert e_value(missed, ones, np.arange(10), floor=0.9, lowest=1.0) > 100
