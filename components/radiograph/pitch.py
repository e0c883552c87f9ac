"""A smaller picture of the same thing, fast: what is measured at a pitch of its own need not see every pixel."""

from __future__ import annotations

import cv2
import numpy as np

PITCH = 256  # pixels of the long side at which devices compare; few are coarser, and none is made finer than it is
SMALLEST = 8  # pixels of a side
FINE = 512  # what copies are recognised from: from 256, two people of FracAtlas passed for one


def halved(pixels: np.ndarray, long_side: int) -> np.ndarray:
    """`pixels`, averaged in squares of 2 x 2 until the long side is below twice `long_side`; an odd last line goes.

    Halving is some forty times as fast as resampling by any other factor, and what is left is resampled cheaply.

    Args:
        pixels: (rows, columns) uint8 or uint16.
        long_side: pixels.

    Returns:
        (rows, columns) of the same type; `pixels` itself where it is small already.
    """
    while max(pixels.shape) >= 2 * long_side and min(pixels.shape) > 1:
        rows, columns = (side // 2 * 2 for side in pixels.shape)
        pixels = cv2.resize(pixels[:rows, :columns], (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
    return pixels


def at_pitch(pixels: np.ndarray) -> np.ndarray:
    """`pixels` with a long side of PITCH, or as they are where they are coarser; of the same type."""
    reduced = halved(pixels, PITCH)
    scale = min(1.0, PITCH / max(reduced.shape))
    shape = [max(SMALLEST, round(side * scale)) for side in reduced.shape[::-1]]
    if tuple(shape) == reduced.shape[::-1]:
        return reduced
    return np.asarray(cv2.resize(reduced, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
