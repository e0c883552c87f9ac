"""Defects that are planted into clean pictures, one function a kind, for the quality benchmark and its tests.

Each takes an 8-bit radiograph (MONOCHROME2) and a generator, and returns an 8-bit picture. Lengths are shares of the
long side, so that a defect is as bad in a large picture as in a small one.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

Defect = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def blur(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), max(pixels.shape) * rng.uniform(0.01, 0.02))


def dark(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _rounded(pixels * rng.uniform(0.05, 0.15))


def bright(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _rounded(255 - (255.0 - pixels) * rng.uniform(0.05, 0.15))


def blank(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _rounded(rng.uniform(20, 235) + rng.normal(0, 1, pixels.shape))


def odd_aspect(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = pixels.shape
    return cv2.resize(pixels, (columns * 2, max(1, round(rows / rng.uniform(4, 8)))), interpolation=cv2.INTER_AREA)


def polarity(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - pixels


def noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _rounded(pixels + rng.normal(0, rng.uniform(30, 50), pixels.shape))


def saturation(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The anatomy pushed against the white end: three quarters of the lit pixels clip."""
    level = max(1.0, float(np.percentile(pixels[pixels > 5], 25))) if (pixels > 5).any() else 1.0
    return _rounded(pixels * (255.0 / level))


def low_bit_depth(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels // 16 * 16


def motion(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length = round(max(pixels.shape) * rng.uniform(0.03, 0.06)) | 1
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return cv2.filter2D(pixels, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def collimation(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An opening of a tenth to a fifth of the area; the shutter blackens the rest."""
    rows, columns = pixels.shape
    side = np.sqrt(rng.uniform(0.1, 0.2))
    top, left = (int(n * (1 - side) * rng.uniform(0.3, 0.7)) for n in (rows, columns))
    clipped = np.zeros_like(pixels)
    opening = (slice(top, top + int(rows * side)), slice(left, left + int(columns * side)))
    clipped[opening] = pixels[opening]
    return clipped


def photo(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part of one of scikit-learn's two sample photographs (a palace, a flower), gray."""
    pictures = load_sample_images().images
    return part(pictures[rng.integers(len(pictures))], pixels.shape, rng)


def portrait(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part of matplotlib's sample photograph of Grace Hopper, gray; nothing was chosen by it."""
    from matplotlib import cbook, image  # comes with cleanvision

    return part(image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)), pixels.shape, rng)


def part(picture: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A part of a picture in colour or gray, at least half of either side, as a gray one of `shape`."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    rows, columns = (int(n * rng.uniform(0.5, 0.95)) for n in gray.shape)
    top, left = int(rng.integers(gray.shape[0] - rows)), int(rng.integers(gray.shape[1] - columns))
    return cv2.resize(gray[top : top + rows, left : left + columns], shape[::-1])


def document(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scanned page of text."""
    rows, columns = pixels.shape
    page = np.full((rows, columns), rng.integers(235, 256), np.uint8)
    step = max(10, rows // 30)
    for y in range(2 * step, rows - step, step):
        text = "".join(rng.choice(list("etaoinshrdlu   cmfwyp"), 80))
        cv2.putText(page, text[: int(rng.integers(40, 80))], (step, y), cv2.FONT_HERSHEY_SIMPLEX, step / 40, (30,), 1)
    page[:, columns - step :] = 240
    return _rounded(cv2.GaussianBlur(page, (0, 0), 0.6) + rng.normal(0, 2, page.shape))


def noise_frame(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, pixels.shape, np.uint8)


def near_duplicate(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture again: two percent cut off, four fifths of its size, JPEG."""
    rows, columns = pixels.shape
    part = pixels[int(0.01 * rows) : int(0.99 * rows), int(0.01 * columns) : int(0.99 * columns)]
    small = cv2.resize(part, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


DEFECTS: dict[str, Defect] = {
    "blur": blur,
    "motion": motion,
    "noise": noise,
    "dark": dark,
    "bright": bright,
    "saturation": saturation,
    "low bit depth": low_bit_depth,
    "blank": blank,
    "odd aspect": odd_aspect,
    "wrong polarity": polarity,
    "clipped collimation": collimation,
    "photograph": photo,
    "photograph, unseen": portrait,
    "scanned document": document,
    "noise frame": noise_frame,
}
COPIES: dict[str, Defect] = {"exact duplicate": lambda pixels, _: pixels, "near-duplicate": near_duplicate}
