"""How much fine and coarse structure a picture has, by direction: blur takes the fine, motion that of some directions.

The power spectrum of the windowed picture is summed over rings of spatial frequency and over directions. Its
resolution is that of the picture it is given: pictures that are to compare are given at one pitch.
"""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np

SIZE = 256  # of the transform; a smaller picture is padded
DIRECTIONS = 12
# Cycles a pixel. Coarse: 16 to 64 pixels a period; middle: 8 to 16; fine: 3 to 8. Beyond lies what resampling leaves.
RINGS = (1 / 64, 1 / 16, 1 / 8, 1 / 3)


def powers(picture: np.ndarray) -> np.ndarray:
    """Power by ring (coarse, middle, fine) and direction; a direction's neighbours are smoothed into it.

    Args:
        picture: (rows, columns) float32, neither side above SIZE.

    Returns:
        (3, DIRECTIONS) float64, up to a constant; above 0 unless the picture is flat.
    """
    rows, columns = picture.shape
    window, weight = _window(rows, columns)
    level = np.float32(np.vdot(picture, window) / weight)
    framed = np.zeros((SIZE, SIZE), np.float32)
    np.multiply(picture - level, window, out=framed[:rows, :columns])
    chosen, starts = _cells()
    parts = cv2.dft(framed).ravel()[chosen]
    power = np.add.reduceat(parts * parts, starts).reshape(len(RINGS) - 1, DIRECTIONS).astype(np.float64)
    return np.asarray((np.roll(power, 1, axis=1) + 2 * power + np.roll(power, -1, axis=1)) / 4)


@lru_cache(64)  # pictures of a site come in few shapes; a quarter of a megabyte each
def _window(rows: int, columns: int) -> tuple[np.ndarray, np.float32]:
    """Hann's window without its zeros, and its sum."""
    window = np.outer(*(np.hanning(length + 2)[1:-1].astype(np.float32) for length in (rows, columns)))
    return window, window.sum()


@cache
def _cells() -> tuple[np.ndarray, np.ndarray]:
    """(places, starts): where the numbers of the packed transform lie, cell by cell, and where each cell begins.

    OpenCV packs the transform of a real picture ("CCS"): real and imaginary parts beside each other, but below each
    other in the first column; every number stands for itself and for its conjugate.
    """
    row, column = np.mgrid[:SIZE, :SIZE]
    right = (column + 1) // 2 / SIZE
    down = np.where(column == 0, (row + 1) // 2 / SIZE, np.fft.fftfreq(SIZE)[row])
    ring = np.digitize(np.hypot(down, right), RINGS) - 1
    direction = np.floor(np.arctan2(down, right) / (np.pi / DIRECTIONS) + 0.5).astype(int) % DIRECTIONS
    cell = np.where((ring >= 0) & (ring < len(RINGS) - 1), ring * DIRECTIONS + direction, -1).ravel()
    order = np.argsort(cell, kind="stable")
    order = order[np.searchsorted(cell[order], 0) :]
    return order, np.searchsorted(cell[order], np.arange((len(RINGS) - 1) * DIRECTIONS))
