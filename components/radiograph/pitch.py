"""A smaller picture of the same thing, fast: what is measured at a pitch of its own need not see every pixel."""

from __future__ import annotations

import cv2
import numpy as np


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
