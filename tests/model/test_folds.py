"""Folds: whole groups, evenly, and what is said of who was not seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError
from components.model import examples, folds, network, runtime


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=30, max_size=60), seed=st.integers(0, 99)
)
def test_a_group_is_in_one_fold_and_folds_are_even(sizes, seed):
    """Whatever the groups are: none is torn, and no fold has more fractures than another by more than a group's."""
    groups = [f"g{n}" for n, (size, _) in enumerate(sizes) for _ in range(size)] + [f"p{n}" for n in range(10)]
    labels = np.array([float(i < many) for size, many in sizes for i in range(size)] + [1.0] * 5 + [0.0] * 5)

    seat = folds.deal(groups, labels, 5, seed)

    assert all(len({int(fold) for g, fold in zip(groups, seat, strict=True) if g == name}) == 1 for name in set(groups))
    fractures = np.bincount(seat, weights=labels, minlength=5)
    assert fractures.max() - fractures.min() <= 2


def test_the_order_of_images_decides_nothing():
    """The same groups in another order are dealt alike; another seed deals otherwise."""
    groups = [f"g{n}" for n in range(40)]
    labels = np.arange(40) % 2.0
    back = folds.deal(groups[::-1], labels[::-1], 4, 1)[::-1]

    assert folds.deal(groups, labels, 4, 1).tolist() == back.tolist()
    assert folds.deal(groups, labels, 4, 2).tolist() != back.tolist()


def test_too_few_fractures_for_the_folds():
    """Two patients with a fracture cannot be in five folds; the message says what to change."""
    with pytest.raises(
        DataError, match=r"3 of 5 folds .* 2 fractures among 10 images of 10 groups; lower train\.folds"
    ):
        folds.deal([f"g{n}" for n in range(10)], np.array([1.0, 1] + [0] * 8), 5, 0)


def test_held_out_tells_of_the_fold_and_of_tune(archive):
    """Every unseen image has the network's logit; a fracture also where its map is highest; tune rows come along."""
    data = examples.load(**archive.inputs, roles=("train", "tune"))
    runtime.start(3)
    model = network.build("residual", 64, None, 0.0)
    unseen, tune = data.role("train").where(np.arange(96) < 20), data.role("tune")

    said = folds.held_out(model, unseen, tune, 4)

    assert (len(said), set(said["fold"]), said["role"].value_counts().to_dict()) == (44, {4}, {"train": 20, "tune": 24})
    np.testing.assert_allclose(said["logit"][:20], network.logits(model, unseen.pixels), rtol=1e-6)
    fractures = said["label"] == 1
    peaks = said[["peak_x", "peak_y"]][(said["role"] == "train") & fractures].dropna()
    assert said.loc[~fractures | (said["role"] == "tune"), "peak_x"].isna().all()
    assert ((peaks > 0) & (peaks < 64)).all().all()
