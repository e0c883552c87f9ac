"""What all facts together tell is asked of few images, and an AUC is counted in bins: neither changes what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from components.dataset.shortcuts import SOME, _auc, _some, shortcuts


def test_trees_see_whole_groups_and_the_same_ones_when_more_arrive():
    groups = pd.Series([f"p{n // 4}" for n in range(30_000)])
    before, after = _some(groups[:25_000]), _some(groups)

    assert SOME <= after.sum() < SOME + 4
    assert (pd.Series(after).groupby(groups).nunique() == 1).all()
    assert not (after[:25_000] & ~before).any()  # who is seen was seen


def test_a_small_archive_is_seen_whole():
    assert _some(pd.Series(["a", "b", "b"])).all()
    assert len(_some(pd.Series([], dtype=object))) == 0


def test_what_is_planted_is_told_in_a_large_archive():
    """The hour agrees with the label in 70 of 100 images: an AUC of .70, alone and together."""
    rng = np.random.default_rng(7)
    n = 40_000
    label = rng.integers(0, 2, n).astype(float)
    stated = {"hardware": None, "rows": 300, "columns": 200, "bits_stored": 8, "age_years": rng.normal(50, 9, n)}
    names = {"site": "a", "device": "d", "body_region": "hand", "view": None, "sex": rng.choice(["F", "M"], n)}
    hour = np.where(rng.random(n) < 0.7, label, 1 - label)
    rows = pd.DataFrame({"label": label, "group_id": [f"p{k // 2}" for k in range(n)], "hour": hour} | stated | names)

    auc = shortcuts(rows).set_index("fact")["auc"]

    assert auc["hour"] == pytest.approx(0.7, abs=0.01)
    assert auc["all together"] == pytest.approx(0.7, abs=0.01)


def test_an_auc_of_bins_is_that_of_their_images():
    rng = np.random.default_rng(11)
    codes, label = rng.integers(0, 6, 500), rng.integers(0, 2, 500)
    share = np.array([0.1, 0.5, 0.5, 0.2, 0.9, 0.3])  # two bins of one score
    positives, negatives = (np.bincount(codes[label == value], minlength=6) for value in (1, 0))

    assert _auc(share, positives, negatives) == pytest.approx(roc_auc_score(label, share[codes]), abs=1e-12)
