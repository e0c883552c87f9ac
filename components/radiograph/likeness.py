"""Whether two radiographs are one picture, filed twice: re-encoded, resized, cropped a little, windowed, marked.

Two people in one pose look alike at every coarse scale, and a crop of a few percent changes more numbers than another
person does. So what is kept of an image is a small picture of it, and two of them are laid over each other before they
are compared: what remains different afterwards are the bones.

Source: local contrast normalisation, Jarrett et al., ICCV 2009; tangent distance, Simard et al., NIPS 1992;
registration by the enhanced correlation coefficient, Evangelidis and Psarakis, IEEE TPAMI 30 (2008).
"""

from __future__ import annotations

import cv2
import numpy as np

from components.radiograph.pitch import FINE, halved

SIDE = 48  # pixels of a thumbnail; 2.3 kB an image
CLIPPED = SIDE * SIDE // 200  # half a percent
COARSE = 24
# Below these likenesses of coarse thumbnails, as they lie and to first order, no registration is tried. Of the copies
# that registration would confirm they lose 0.1 percent each; of the pairs of FracAtlas's hashes they spare 8 in 10.
UNMOVED, GATE = 0.68, 0.86
BLOCK = 2048  # pairs at a time
BEND = 0.12  # largest part of a registration that is no shift: 12% of scale or 7 degrees
DRIFT = 0.10  # largest shift, of the side
CELLS = 4  # the picture is compared in 4 x 4 cells,
UNLIKE = 0.25  # and this share of them, the worst, may differ: a marker, a ruler, a window
STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 1e-3)

_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
_CELL = (np.arange(SIDE) * CELLS // SIDE)[:, None] * CELLS + np.arange(SIDE) * CELLS // SIDE


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """The whole picture as (SIDE, SIDE) uint8, squeezed to a square; its darkest and brightest half percent clip.

    Args:
        pixels: (rows, columns) uint8 or uint16.
    """
    pixels = halved(pixels, FINE)
    shrinks = min(pixels.shape) > SIDE
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    ordered = np.sort(small, axis=None)
    low, high = float(ordered[CLIPPED]), float(ordered[-1 - CLIPPED])
    span = max(high - low, 1.0)
    return np.asarray(cv2.convertScaleAbs(np.maximum(small, low).astype(np.float32) - low, alpha=255.0 / span))


def likeness(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How much each pair shows the same, once laid over each other: 1 = one picture; 0 = not alike, not tried.

    A mirrored picture is another picture: left is not right.

    Args:
        thumbnails: (n, SIDE, SIDE) uint8, see `thumbnail`.
        pairs: (m, 2) positions in `thumbnails`.

    Returns:
        (m,) float64: mean correlation of the better cells, 0 to 1; the same to the last bit in whatever company.
    """
    found = np.zeros(len(pairs))
    pairs = np.sort(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    coarse = _coarse(thumbnails)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        one, other = (coarse[pairs[block, end]].reshape(len(block), 1, COARSE**2) for end in (0, 1))
        block = block[(one @ other.swapaxes(1, 2))[:, 0, 0] >= UNMOVED]
        for row in block[_to_first_order(coarse, pairs[block]) >= GATE]:
            found[row] = _registered(*(_detail(thumbnails[end], sigma=3.0) for end in pairs[row]))
    return found


def _detail(small: np.ndarray, sigma: float) -> np.ndarray:
    """Local contrast, whatever window and gamma did to it: (h, w) float32 around 0 with unit spread nearby."""
    picture = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 0.7)
    picture -= cv2.GaussianBlur(picture, (0, 0), sigma)
    spread = cv2.GaussianBlur(picture * picture, (0, 0), 1.5 * sigma)
    return np.asarray(picture / (np.sqrt(spread) + 1.0))


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """(n, COARSE, COARSE) float32 of length 1, or 0 where a thumbnail is flat."""
    vectors = np.zeros((len(thumbnails), COARSE, COARSE), np.float32)
    for vector, whole in zip(vectors, thumbnails, strict=True):
        vector[:] = _detail(cv2.resize(whole, (COARSE, COARSE), interpolation=cv2.INTER_AREA), sigma=1.5)
        vector /= np.linalg.norm(vector) + 1e-6
    return vectors


def _to_first_order(coarse: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(m,) cosine between one end and the plane of the small shifts, turns and scalings of the other."""
    firsts, first = np.unique(pairs[:, 0], return_inverse=True)
    planes = _planes(coarse[firsts])
    others = coarse[pairs[:, 1]].reshape(len(pairs), 1, COARSE**2)
    # A product of its own for every pair: in one large product, a number's last digit depends on its company.
    return np.asarray(np.linalg.norm((others @ planes[first])[:, 0], axis=1))


def _planes(vectors: np.ndarray) -> np.ndarray:
    """(n, COARSE**2, 5) orthonormal: the picture and its derivatives by two shifts, scale and turn."""
    down, right = np.gradient(vectors, axis=(1, 2))
    y, x = np.mgrid[:COARSE, :COARSE].astype(np.float32) - np.float32((COARSE - 1) / 2)
    basis = np.stack([vectors, right, down, right * x + down * y, down * x - right * y], axis=-1)
    return np.asarray(np.linalg.qr(basis.reshape(len(vectors), COARSE**2, 5))[0])


def _registered(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two details after the best small affine registration; 0 where none is found."""
    warp = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, STEPS, None, 3)
    except cv2.error:  # it did not converge, or a picture is flat
        return 0.0
    middle = warp @ np.array([SIDE / 2, SIDE / 2, 1], np.float32) - SIDE / 2
    if np.abs(warp[:, :2] - np.eye(2)).max() > BEND or np.abs(middle).max() > DRIFT * SIDE:
        return 0.0
    moved = cv2.warpAffine(other, warp, (SIDE, SIDE), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    x = warp[0, 0] * _X + warp[0, 1] * _Y + warp[0, 2]
    y = warp[1, 0] * _X + warp[1, 1] * _Y + warp[1, 2]
    shared = (x >= 0) & (y >= 0) & (x <= SIDE - 1) & (y <= SIDE - 1)
    return _agreement(one[shared], moved[shared], _CELL[shared])


def _agreement(one: np.ndarray, other: np.ndarray, cell: np.ndarray) -> float:
    """Mean correlation over the cells, without the worst of them; cells that are mostly cut off do not count."""
    count = np.bincount(cell, minlength=CELLS**2)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights=values, minlength=CELLS**2) / np.maximum(count, 1)

    a, b = mean(one), mean(other)
    product, first, second = mean(one * other) - a * b, mean(one * one) - a * a, mean(other * other) - b * b
    ratio = product / np.sqrt(np.maximum(first * second, 1e-12))
    whole = np.sort(ratio[count > SIDE**2 / CELLS**2 / 2])
    return 0.0 if len(whole) < CELLS**2 / 2 else max(0.0, float(whole[int(len(whole) * UNLIKE) :].mean()))
