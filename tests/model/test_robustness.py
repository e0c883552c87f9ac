"""Worse pictures, the other polarity, and what is no radiograph."""

from __future__ import annotations

import numpy as np
import pytest

from components.model.robustness import WORSEN, Sweep, foreign, steps
from components.params import Evaluate
from components.serving.bundle import Bundle
from tests.model.test_evaluate import picture
from tests.sweeps import QUICK

PARAMS = Evaluate(resamples=200, prevalences=(0.1,), min_slice=15, robustness=QUICK, seed=3)
STILL = {"noise": 0.0, "blur": 1e-3, "gamma": 1.0, "gain": 1.0, "rotation": 0.0, "resolution": 1.0}


@pytest.fixture(scope="module")
def bundle(released) -> Bundle:
    return Bundle.open(released)


@pytest.fixture(scope="module")
def swept(bundle):
    """(labels, probabilities, the sweep's table) of 40 pictures, a quarter with a fracture."""
    labels = (np.arange(40) % 4 == 0).astype(float)
    pictures = [picture(n, fracture=bool(labels[n]))[0] for n in range(40)]
    params = PARAMS.model_copy(update={"robustness": QUICK.model_copy(update={"images": 24, "noise": (0.0, 2.0)})})
    sweep = Sweep.of(bundle, labels, np.full(40, 8), params)
    probabilities = np.array([bundle.predict(p).probability for p in pictures])
    for row, pixels in enumerate(pictures):
        sweep.offer(row, pixels)
    patients = np.array([f"p{n}" for n in range(40)])
    return labels, probabilities, sweep.found(labels, probabilities, patients, np.ones(40, dtype=bool))


@pytest.mark.parametrize("name", sorted(STILL))
def test_the_mildest_strength_changes_nothing(name):
    """At its neutral strength every way leaves the picture as it is."""
    pixels = picture(0, fracture=True)[0]

    assert np.array_equal(WORSEN[name](pixels, STILL[name], np.random.default_rng(0)), pixels)


@pytest.mark.parametrize("name", sorted(WORSEN))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_comes_out_is_a_picture(name, dtype):
    """Two dimensions, unsigned whole numbers; another size only where resolution is lost; also of a flat one."""
    strength = next(s for n, s in steps(PARAMS) if n == name)
    for pixels in (np.full((40, 30), 7, dtype), np.arange(1200, dtype=dtype).reshape(40, 30)):
        worse = WORSEN[name](pixels, strength, np.random.default_rng(0))

        assert worse.shape == ((20, 15) if name == "resolution" else (40, 30))
        assert worse.dtype == (np.uint8 if name == "jpeg" else dtype)


def test_half_of_the_drawn_have_a_fracture_as_far_as_there_are_any(bundle):
    def drawn(ill: int, well: int, images: int) -> tuple[int, int]:
        params = PARAMS.model_copy(update={"robustness": QUICK.model_copy(update={"images": images})})
        labels = np.array([1.0] * ill + [0.0] * well)
        rows = Sweep.of(bundle, labels, np.full(len(labels), 8), params).rows
        return int(labels[rows].sum()), len(set(rows.tolist()))

    assert drawn(50, 50, 20) == (10, 20)
    assert drawn(3, 50, 20) == (3, 20)
    assert drawn(50, 3, 20) == (17, 20)
    assert drawn(5, 6, 20) == (5, 11)


def test_every_way_has_its_row(swept):
    """No noise flips nothing and loses nothing; noise of twice the range leaves nothing to see."""
    _, _, found = swept
    rows = {(row.name, row.strength): row for row in found.perturbed}

    assert (found.images, found.positives) == (24, 10)
    assert (rows["noise", 0.0].drop.value, rows["noise", 0.0].flips.value) == (0.0, 0.0)
    assert rows["noise", 2.0].auroc.value < found.auroc.value
    assert rows["noise", 2.0].drop.value == pytest.approx(found.auroc.value - rows["noise", 2.0].auroc.value)
    assert {row.name for row in found.perturbed} == set(WORSEN)
    assert {row.auroc.n for row in found.perturbed} == {24}


def test_polarity_changes_nothing(swept):
    """The same picture as MONOCHROME1 scores the same to the last bit."""
    _, _, found = swept

    assert (found.polarity.images, found.polarity.largest_difference) == (24, 0.0)


def test_blank_film_and_text_are_left_to_a_person(bundle):
    """Whatever the network says; the photographs are reported as they come."""
    found = {row.picture: row for row in foreign(bundle)}

    assert (found["blank film"].abstained, found["page of text"].abstained) == (True, True)
    assert "This does not look like a radiograph." in found["page of text"].warnings
    assert len(found) == 4
