"""What a picture looks like, in some forty numbers that no pose and no window decides: to tell a strange one by.

A photograph that was made gray is as sharp, as deep and as well exposed as a radiograph. What gives it away is how its
structure is spread: over scales, over the picture, over its dark and bright parts, and what lies along its rim.
"""

from __future__ import annotations

import cv2
import numpy as np

from components.radiograph.pitch import at_pitch

SIDE = 128  # pixels of the long side, about
SCALES = 5  # bands of structure, each twice as coarse as the one before
SMALLEST = 8  # pixels of the shorter side of a band
GREYS = 24  # steps of the histogram
DIRECTIONS = 12
CLASSES = ((-1.0, 0.2), (0.2, 0.55), (0.55, 2.0))  # dark, middle and bright parts
FEW = 20  # pixels of a class below which the whole picture stands in for it
LENGTH = 4 * SCALES + 4 + 5 + 5 + 1 + 2 * len(CLASSES)


def appearance(pixels: np.ndarray) -> np.ndarray:
    """The appearance of a picture.

    Args:
        pixels: (rows, columns) uint8 or uint16, bone bright; or what `halved` made of them for FINE, to the same end.

    Returns:
        (LENGTH,) float32: strength, kurtosis, skewness and unevenness of each band; grey values; rim and corners;
        directions and steepness of edges; local contrast in dark, middle and bright parts. Finite for any picture.
    """
    picture = _stretched(pixels)
    low = cv2.GaussianBlur(picture, (5, 5), 1.1)
    found = [*_bands(picture, low), *_greys(picture), *_rim(picture), *_edges(picture), *_contrasts(picture, low)]
    return np.array(found, np.float32)


def _stretched(pixels: np.ndarray) -> np.ndarray:
    """The picture at SIDE in [0, 1]; its darkest and brightest percent clip."""
    small = at_pitch(pixels)
    scale = min(1.0, SIDE / max(small.shape))
    size = [max(SMALLEST, round(side * scale)) for side in small.shape[::-1]]
    picture = cv2.resize(small, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    ordered = np.sort(picture, axis=None)
    low, high = float(ordered[len(ordered) // 100]), float(ordered[-1 - len(ordered) // 100])
    return np.asarray(np.clip((picture - low) / max(high - low, 1e-6), 0, 1))


def _bands(picture: np.ndarray, low: np.ndarray) -> list[float]:
    found: list[float] = []
    for scale in range(SCALES):
        detail = picture - low
        power = detail * detail
        mean = float(power.mean()) + 1e-9
        cells = np.sqrt(cv2.resize(power, (4, 4), interpolation=cv2.INTER_AREA))
        found += [
            0.5 * float(np.log(mean)),
            float(np.log(float(np.vdot(power, power)) / power.size / mean**2 + 1e-6)),
            float(np.vdot(power, detail)) / power.size / mean**1.5,
            float(np.log(cells.std() / (cells.mean() + 1e-9) + 0.01)),
        ]
        if scale < SCALES - 1:
            picture = low[::2, ::2]
            if min(picture.shape) < SMALLEST:
                picture = cv2.resize(picture, [max(SMALLEST, side) for side in picture.shape[::-1]])
            low = cv2.GaussianBlur(picture, (5, 5), 1.1)
    return found


def _greys(picture: np.ndarray) -> list[float]:
    counts = np.bincount((picture * (GREYS - 1e-3)).astype(np.int64).ravel(), minlength=GREYS)
    shares = counts / picture.size
    return [_entropy(shares), float(picture.mean()), float(picture.std()), float(np.log(shares.max()))]


def _rim(picture: np.ndarray) -> list[float]:
    """Mean grey of the four borders, darkest first, and of the corners."""
    wide = max(1, min(picture.shape) // 16)
    sides = (picture[:wide], picture[-wide:], picture[:, :wide], picture[:, -wide:])
    ends = (slice(None, 2 * wide), slice(-2 * wide, None))
    corners = [float(picture[top, left].mean()) for top in ends for left in ends]
    return [*sorted(float(side.mean()) for side in sides), float(np.mean(corners))]


def _edges(picture: np.ndarray) -> list[float]:
    across, down = (cv2.Sobel(picture, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    steep, angle = cv2.cartToPolar(across, down)
    direction = (angle * (DIRECTIONS / np.pi)).astype(np.int64).ravel() % DIRECTIONS
    weights = np.bincount(direction, steep.ravel(), DIRECTIONS)
    ordered = np.sort(steep, axis=None)
    steps = [float(np.log(ordered[int(share * len(ordered))] + 0.01)) for share in (0.5, 0.75, 0.9, 0.97)]
    return [_entropy(weights / (weights.sum() + 1e-9)), *steps]


def _contrasts(picture: np.ndarray, low: np.ndarray) -> list[float]:
    """How local contrast goes with brightness; of each class of brightness, its local contrast and its share."""
    contrast = np.log(cv2.blur(np.abs(picture - low), (9, 9)) + 1e-3)
    grey = cv2.blur(picture, (9, 9))
    spread = float(contrast.std() * grey.std())
    together = float(np.mean((contrast - contrast.mean()) * (grey - grey.mean())))
    found = [together / spread if spread > 1e-6 else 0.0]
    for least, most in CLASSES:
        part = (grey >= least) & (grey < most)
        count = int(np.count_nonzero(part))
        found += [float(contrast[part].mean() if count > FEW else contrast.mean()), count / part.size]
    return found


def _entropy(shares: np.ndarray) -> float:
    some = shares[shares > 0]
    return -float(np.sum(some * np.log(some)))
