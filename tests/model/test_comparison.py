"""How two bundles differ on the same images: the interval of a paired difference, by the published method."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.model.comparison import paired_difference, paired_rate
from components.model.statistics import Z95


def gains(won: int, lost: int, n: int) -> np.ndarray:
    return np.repeat([1, -1, 0], [won, lost, n - won - lost])


def test_independent_images_give_the_published_interval():
    """One pair won, seven lost of 21 (airway hyper-responsiveness, Bentur et al. 2009): Tango's -.517 to -.026."""
    found = paired_rate(gains(1, 7, 21), np.arange(21))

    assert (round(found.low, 3), round(found.high, 3), found.n) == (-0.517, -0.026, 21)


@pytest.mark.parametrize("n", [10, 60, 400])
def test_no_disagreement_has_the_width_that_n_images_allow(n):
    """z^2 / (n + z^2) on either side: 60 fractures do not exclude a loss of 3%."""
    found = paired_rate(np.zeros(n, int), np.arange(n))

    assert (found.low, found.high) == pytest.approx((-(Z95**2) / (n + Z95**2), Z95**2 / (n + Z95**2)))


@given(won=st.integers(0, 12), lost=st.integers(0, 12), rest=st.integers(0, 60), images=st.integers(1, 4))
def test_a_mirrored_comparison_has_the_mirrored_interval(won, lost, rest, images):
    """It holds the difference found, stays within -1 to 1, and is the same from the other side."""
    n = max(1, won + lost + rest)
    one, whose = gains(won, lost, n), np.arange(n) // images
    found, mirrored = paired_rate(one, whose), paired_rate(-one, whose)

    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-7)
    assert found.high > found.low


def test_images_that_repeat_each_other_tell_nothing_new():
    """Three copies of each image leave the interval of one each, but for the small-sample factor."""
    one = gains(8, 12, 100)
    alone, copied = paired_rate(one, np.arange(100)), paired_rate(np.repeat(one, 3), np.repeat(np.arange(100), 3))

    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.001)


def test_few_disagreements_do_not_say_how_alike_images_are():
    """Four patients with one image of three each: all images of a patient count as one, which is the careful side."""
    one = np.repeat(gains(2, 2, 60), 3)
    one[1::3] = one[2::3] = 0
    found, independent = paired_rate(one, np.repeat(np.arange(60), 3)), paired_rate(gains(2, 2, 180), np.arange(180))

    assert (found.high, independent.high) == pytest.approx((0.0698, 0.0299), abs=0.0005)


def test_the_mean_of_both_rates_is_wider_where_patients_have_both_kinds():
    """What goes well or badly together in a patient does not average out."""
    labels, mine, theirs = np.tile([1.0, 0.0], 100), np.tile([0.9, 0.1], 100), np.tile([0.9, 0.1], 100)
    for start, swap in ((mine, range(20, 60)), (theirs, range(20))):  # the whole patient fails
        start[list(swap)] = 1 - start[list(swap)]

    def width(patients: np.ndarray) -> float:
        found = paired_difference(
            labels, patients, challenger=(mine, 0.5), champion=(theirs, 0.5), promise="sensitivity",
            resamples=50, seed=0,
        )  # fmt: skip
        return found.balanced.high - found.balanced.low

    assert width(np.arange(200) // 2) > 1.3 * width(np.arange(200))
