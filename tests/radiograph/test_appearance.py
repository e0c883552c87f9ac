"""What a picture looks like: what changes it, and what does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from components.radiograph.appearance import LENGTH, appearance


def clouds(seed: int = 1, rows: int = 512, columns: int = 400, smooth: float = 4) -> np.ndarray:
    field = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(field, (0, 0), smooth), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((512, 400), np.uint8),
        np.full((9, 9), 65535, np.uint16),
        np.zeros((1, 1), np.uint8),
        np.zeros((4, 3000), np.uint8),
        np.eye(300, dtype=np.uint8) * 255,
        clouds(),
    ],
    ids=["black", "white", "one pixel", "a strip", "a line", "clouds"],
)
def test_any_picture_has_one(pixels):
    found = appearance(pixels)

    assert (found.shape, found.dtype) == ((LENGTH,), np.float32)
    assert np.isfinite(found).all()


def test_neither_depth_nor_exposure_nor_size_decides():
    pixels = clouds()
    deep = (pixels.astype(np.uint16) * 30 + 500).astype(np.uint16)
    large = cv2.resize(pixels, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)

    assert appearance(deep) == pytest.approx(appearance(pixels), abs=0.02)
    assert appearance(large) == pytest.approx(appearance(pixels), abs=0.25)


def test_coarser_structure_is_another_appearance():
    assert np.abs(appearance(clouds(smooth=8)) - appearance(clouds())).max() > 1
