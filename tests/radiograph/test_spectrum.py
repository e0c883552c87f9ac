"""A grating's power lies in its own ring and direction, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from components.radiograph.spectrum import powers


def grating(period: float, degrees: float) -> np.ndarray:
    """256 x 200; `degrees` of its wave vector, from rightwards to downwards."""
    down, right = np.mgrid[:256, :200]
    turn = np.radians(degrees)
    return np.sin(2 * np.pi / period * (right * np.cos(turn) + down * np.sin(turn))).astype(np.float32)


@pytest.mark.parametrize(("period", "ring"), [(32, 0), (11, 1), (5, 2)])
@pytest.mark.parametrize(("degrees", "direction"), [(0, 0), (45, 3), (90, 6), (135, 9)])
def test_a_gratings_power_lies_where_it_belongs(period, ring, degrees, direction):
    found = powers(grating(period, degrees))

    assert np.unravel_index(found.argmax(), found.shape) == (ring, direction)
    assert found[ring].sum() > 0.95 * found.sum()


def test_a_flat_picture_has_no_power():
    assert powers(np.full((256, 100), 0.5, np.float32)).max() < 1e-6
