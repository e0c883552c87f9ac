"""Distances and their p-values: equal to the textbook's in the simple case, honest under clustering and case mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from components.monitoring.shift import comparable, domain_auc, mix, stratified_ks


def ks(reference, current, old=None, new=None, patients=None):
    return stratified_ks(
        reference,
        current,
        reference_strata=np.full(len(reference), "all") if old is None else old,
        current_strata=np.full(len(current), "all") if new is None else new,
        reference_patients=len(reference),
        current_patients=len(current) if patients is None else patients,
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=20, max_size=60), st.lists(st.integers(0, 40), min_size=20, max_size=60))
def test_one_stratum_is_the_ordinary_ks_distance(before, now):
    """Without strata the distance is scipy's, ties and all."""
    before, now = np.array(before, dtype=float), np.array(now, dtype=float)

    assert ks(before, now).statistic == pytest.approx(ks_2samp(before, now, method="asymp").statistic, abs=1e-12)


def test_p_is_scipys_asymptotic_one():
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=200), rng.normal(0.3, size=80)

    assert ks(before, now).p == pytest.approx(ks_2samp(before, now, method="asymp").pvalue, rel=1e-9)


def shifted_mix(seed):
    """100 of 500 reference cases are legs, 160 of 200 current ones; legs measure higher; nothing moved."""
    rng = np.random.default_rng(seed)
    old, new = np.repeat(["hand", "leg"], [400, 100]), np.repeat(["hand", "leg"], [40, 160])
    before, now = (rng.normal(size=len(s)) + 3 * (s == "leg") for s in (old, new))
    return before, now, old, new


def test_another_mix_of_body_regions_is_no_shift():
    """Compared as one the windows lie apart; within body regions they do not."""
    before, now, old, new = shifted_mix(seed=0)

    assert ks(before, now).statistic > 0.5
    assert ks(before, now, old, new).statistic < 0.15


def test_p_is_honest_under_another_mix():
    """200 null draws: p <= .05 in at most 18 (the 99.5th percentile of a binomial with mean 10)."""
    found = [ks(*shifted_mix(seed)).p for seed in range(200)]

    assert sum(p <= 0.05 for p in found) <= 18


def test_patients_set_the_p_value():
    """The same distance from fewer patients is weaker evidence."""
    rng = np.random.default_rng(2)
    before, now = rng.normal(size=300), rng.normal(0.5, size=90)

    assert ks(before, now, patients=30).p > 10 * ks(before, now, patients=90).p


def test_strata_the_reference_hardly_knows_are_left_out():
    old = np.repeat(["hand frontal", "hip frontal"], [60, 3])
    new = np.repeat(["hand frontal", "hip frontal"], [50, 20])

    known, here = comparable(old, new, at_least=50)

    assert ((known != "").sum(), (here != "").sum()) == (60, 50)


def test_too_few_comparable_cases_are_compared_as_one():
    known, here = comparable(np.full(60, "hand frontal"), np.full(70, "hip frontal"), at_least=50)

    assert set(known) == set(here) == {"all"}


def test_mix_of_equal_shares_is_zero_and_of_disjoint_ones_is_one():
    same = mix(np.repeat(["a", "b"], [60, 40]), np.repeat(["a", "b"], [30, 20]), patients_per_case=1.0)
    apart = mix(np.repeat("a", 100), np.repeat("b", 50), patients_per_case=1.0)

    assert (same.statistic, same.p) == (pytest.approx(0), pytest.approx(1))
    assert apart.statistic == 1.0
    assert apart.p < 1e-9


def auc(points, is_current, seed=0, strata=None):
    strata = np.full(len(points), "all") if strata is None else strata
    patients = np.arange(len(points)).astype(str)
    return domain_auc(points, is_current, patients=patients, strata=strata, resamples=199, seed=seed)


def test_embeddings_of_one_law_are_not_told_apart_and_p_is_uniform():
    """40 null draws: p <= .1 about four times."""
    found = [auc(np.random.default_rng(s).normal(size=(160, 12)), np.arange(160) >= 100, seed=s)[1] for s in range(40)]

    assert sum(p <= 0.1 for p in found) <= 8
    assert 0.35 < np.mean(found) < 0.65


def test_a_shift_of_place_or_of_spread_is_seen():
    rng = np.random.default_rng(3)
    moved, wider = rng.normal(size=(300, 8)), rng.normal(size=(300, 8))
    moved[200:, 0] += 1.5
    wider[200:] *= 1.6

    assert auc(moved, np.arange(300) >= 200)[0] > 0.75
    assert auc(wider, np.arange(300) >= 200)[0] > 0.65


def test_identical_embeddings_are_not_told_apart():
    assert auc(np.ones((100, 4)), np.arange(100) >= 50) == (0.5, 1.0)
