"""What is a picture in colour, and what may still be a radiograph with colour on it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from components.radiograph.colour import in_colour
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.phantom import DETECTOR_A, draw


@pytest.fixture(scope="module")
def gray() -> np.ndarray:
    """(rows, columns, 3) uint8: a phantom."""
    pixels = read(draw(3, patient=3, detector=DETECTOR_A, fracture=True).dicom, Pseudonyms(b"c" * 32)).pixels.astype(
        float
    )
    levels = (255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)
    return np.stack([levels] * 3, axis=-1)


def jpeg(channels: np.ndarray, quality: int) -> np.ndarray:
    Image.fromarray(channels).save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("number", [0, 1])
def test_photographs_and_parts_of_them_are_in_colour(number, quality):
    """scikit-learn's two; the smallest part is half of a side."""
    picture = load_sample_images().images[number]
    rows, columns = picture.shape[:2]
    parts = [picture[r : r + rows // 2, c : c + columns // 2] for r in (0, rows // 2) for c in (0, columns // 2)]

    assert [in_colour(jpeg(np.ascontiguousarray(part), quality)) for part in [picture, *parts]] == [True] * 5


@pytest.mark.parametrize("powers", [(1, 1, 1), (1.25, 1.1, 0.8), (0.8, 1.0, 1.35)], ids=["gray", "blue", "sepia"])
@pytest.mark.parametrize("quality", [30, 95])
def test_a_tint_is_no_colour(gray, powers, quality):
    tinted = (255 * (gray / 255) ** np.array(powers)).astype(np.uint8)

    assert not in_colour(jpeg(tinted, quality))


@pytest.mark.parametrize("share", [0.01, 0.08])
def test_a_mark_is_no_colour(gray, share):
    """Up to a twelfth of the picture."""
    marked, side = gray.copy(), int((share * gray.shape[0] * gray.shape[1]) ** 0.5)
    marked[:side, :side] = (200, 30, 30)

    assert not in_colour(jpeg(marked, 75))


@pytest.mark.real_data
def test_no_real_radiograph_is_in_colour(real_data):
    """Every hundredth of the subset, as it is and in sepia."""
    for path in sorted(Path(real_data / "fracatlas" / "images").rglob("*.jpg"))[::100]:
        levels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        sepia = (255 * (levels / 255) ** np.array([1.35, 1.0, 0.8])).astype(np.uint8)

        assert not in_colour(levels)
        assert not in_colour(sepia)
