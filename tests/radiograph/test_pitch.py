"""A picture at the common pitch: made smaller, never larger, of the same type."""

from __future__ import annotations

import numpy as np
import pytest

from components.radiograph.pitch import at_pitch, halved


def test_halving_averages_squares_and_drops_an_odd_line():
    picture = np.array([[0, 2, 10, 10, 9], [4, 6, 10, 10, 9], [7, 7, 7, 7, 7]], np.uint16)

    assert halved(picture, 2).tolist() == [[3, 10]]


@pytest.mark.parametrize(
    ("shape", "made"), [((2000, 1000), (256, 128)), ((513, 300), (256, 150)), ((90, 40), (90, 40))]
)
def test_the_long_side_is_256_at_most(shape, made):
    small = at_pitch(np.full(shape, 500, np.uint16))

    assert (small.shape, small.dtype) == (made, np.uint16)
    assert np.all(small == 500)
