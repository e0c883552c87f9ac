"""What is like the reference is in scope; what is not is turned away, at the rate that is promised."""

from __future__ import annotations

import numpy as np
import pytest

from components.serving.scope import BLOCK, Scope


def cloud(random: np.random.Generator, n: int) -> np.ndarray:
    """(n, 8) around one direction."""
    return random.normal(size=(n, 8)) * 0.3 + np.eye(8)[0]


def test_pictures_of_the_same_kind_are_turned_away_once_in_n_plus_one():
    """400 references of 120 cases, ten new pictures each: 1 in 121 on average."""
    random = np.random.default_rng(0)
    away = []
    for _ in range(400):
        scope = Scope.of(cloud(random, 120))
        away += [not scope.holds(embedding) for embedding in cloud(random, 10)]

    assert np.mean(away) == pytest.approx(1 / 121, abs=0.005)


def test_another_kind_is_turned_away():
    scope = Scope.of(cloud(np.random.default_rng(0), 120))

    assert [scope.holds(np.eye(8)[k]) for k in (0, 1, 2)] == [True, False, False]
    assert scope.holds(5 * np.eye(8)[0]) is True


def test_a_small_reference_turns_nothing_away():
    """99 cases cannot show that something is rarer than one in a hundred."""
    random = np.random.default_rng(0)

    assert Scope.of(cloud(random, 99)).holds(-np.eye(8)[0]) is True
    assert Scope.of(cloud(random, 100)).holds(-np.eye(8)[0]) is False


def test_blocks_leave_no_seam():
    """A reference larger than one block: nobody is his own neighbour."""
    vectors = cloud(np.random.default_rng(1), BLOCK + 30)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = units @ units.T
    np.fill_diagonal(alike, -np.inf)

    assert Scope.of(vectors).least == pytest.approx(np.sort(alike, axis=1)[:, -3].min(), abs=1e-12)


def test_what_export_found_is_not_found_again():
    """A bundle that states it opens without comparing every case with every other."""
    vectors = cloud(np.random.default_rng(2), 120)
    found = Scope.of(vectors)

    assert Scope.of(vectors, least=found.least).least == found.least
    assert Scope.of(vectors, least=0.25).least == 0.25
