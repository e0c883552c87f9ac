"""How good an image is, in numbers: what a monitor watches for drift and what `validate` refuses by.

Exposures are shares of the stored range (0 = blackest, 1 = whitest value that the file's bits can hold), so that
images of different depth compare. Thresholds are not here: they belong to a site (params.yaml, docs/data.md).

Levels are counted and noise is measured on stored pixels, in a part of the rows; everything else on a small picture.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.pitch import FINE, halved
from components.radiograph.scene import Scene, look
from components.radiograph.spectrum import powers

# Numbers that may drift; `measure` adds polarity_ok and phash.
FEATURES = (
    "exposure_median",
    "exposure_p1",
    "exposure_p99",
    "saturation",
    "grey_levels",
    "field_fraction",
    "sharpness",
    "noise",
    "cnr",
    "motion",
    "clutter",
    "deviation_index",
)
COUNTED = 2**18  # pixels whose levels are counted, about
SQUARES = 2**14  # squares of 2 x 2 pixels in which noise is measured, about
MAD = 0.6745  # median of |x| of a standard normal variable
QUARTILE = 3  # directions of the twelve that are at most as sharp as what speaks for sharpness


def measure(image: Radiograph, fine: np.ndarray | None = None) -> dict[str, float | int | bool | str | None]:
    """Measure one image: FEATURES, `polarity_ok` and `phash`.

    Args:
        fine: its pixels halved to FINE, where they are at hand.

    | key                          | meaning                                                         | unit          |
    |------------------------------|-----------------------------------------------------------------|---------------|
    | exposure_median, _p1, _p99   | percentiles of the foreground (anatomy)                         | stored range  |
    | saturation                   | share of the foreground at the ends of the stored range         | 0 to 1        |
    | grey_levels                  | distinct values in the foreground                               | count         |
    | field_fraction               | area inside the collimator                                      | 0 to 1        |
    | sharpness                    | fine over coarse power, lower quartile over directions          | per mille     |
    | noise                        | median abs(HH) / 0.6745 of the foreground, one-level Haar       | stored range  |
    | cnr                          | (bone - soft tissue) / noise                                    | ratio         |
    | motion                       | fine over coarser power: best direction over the median one     | ratio, >= 1   |
    | clutter                      | middle over coarse power, over kurtosis^1.5 of fine structure   | per mille     |
    | deviation_index              | 10 log10(EI / EI_T), or as stated; NaN where neither is known   | dB            |
    | polarity_ok                  | direct-exposure air is the darkest region; True where none seen | bool          |
    | phash                        | 64-bit DCT perceptual hash                                      | 16 hex digits |

    Source: clinical.md section 5; DI: IEC 62494-1.
    """
    fine = halved(image.pixels, FINE) if fine is None else fine
    scene = look(image, fine)
    counts = _counts(image.pixels, scene)
    levels = int(np.count_nonzero(counts))
    p1, median, p99 = (float(place) / scene.top for place in _quantiles(counts, (0.01, 0.5, 0.99)))
    noise = _noise(image.pixels, scene)
    sharpness, motion, clutter = _detail(scene.small)
    return {
        "exposure_median": median,
        "exposure_p1": p1,
        "exposure_p99": p99,
        "saturation": _saturation(counts, scene),
        "grey_levels": levels,
        "field_fraction": scene.field_fraction,
        "sharpness": sharpness,
        "noise": noise,
        "cnr": _contrast(counts) / scene.top / max(noise, scene.quantum),
        "motion": motion,
        "clutter": clutter,
        "deviation_index": _deviation(image.meta),
        "polarity_ok": scene.polarity_ok,
        "phash": phash(fine),
    }


def _counts(pixels: np.ndarray, scene: Scene) -> np.ndarray:
    """(top + 1,) how many stored pixels of the foreground have each value, in evenly spaced rows of the field."""
    part = pixels[scene.window]
    bins = int(scene.top) + 1
    counts = cv2.calcHist([part[:: max(1, part.size // COUNTED)]], [0], None, [bins], [0, bins]).ravel()
    low = math.floor(scene.air * scene.top) + 1 if scene.air > 0 else 0
    high = math.ceil(scene.glare * scene.top) if scene.glare < 1 else bins
    if counts[low:high].any():  # the small picture may show levels that the rows counted do not hold
        counts[:low] = counts[high:] = 0
    return np.asarray(counts)


def _quantiles(counts: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """The values below which `shares` of what was counted lies."""
    running = np.cumsum(counts, dtype=np.float64)
    return np.searchsorted(running, np.multiply(shares, running[-1]))


def _saturation(counts: np.ndarray, scene: Scene) -> float:
    ends = counts[-1] + (counts[0] if scene.air <= 0 else 0)
    return float(ends / counts.sum(dtype=np.float64))


def _contrast(counts: np.ndarray) -> float:
    """Median of the brighter class of the anatomy (bone) minus that of the darker (soft tissue); Otsu 1979.

    In grey levels.
    """
    values = np.arange(len(counts), dtype=np.float64)
    below = np.cumsum(counts, dtype=np.float64)
    total, moment = below[-1], np.cumsum(values * counts)
    inside = below * (total - below)
    between = (moment[-1] * below - moment * total) ** 2 / np.where(inside > 0, inside, np.inf)
    split = int(np.argmax(between))
    if between[split] <= 0:
        return 0.0
    soft, bone = _quantiles(counts[: split + 1], (0.5,)), _quantiles(counts[split + 1 :], (0.5,))
    return float(bone[0] + split + 1 - soft[0])


def _noise(pixels: np.ndarray, scene: Scene) -> float:
    """Robust standard deviation of the diagonal Haar detail: edges along rows and columns cancel in it."""
    part = pixels[scene.window]
    rows, columns = part.shape[0] // 2, part.shape[1] // 2 * 2
    if rows < 1 or columns < 2:
        return 0.0
    chosen = 2 * np.arange(0, rows, math.ceil(rows * columns / 2 / SQUARES))
    above = part[chosen, :columns].astype(np.float32)
    across = above - part[chosen + 1, :columns]
    detail = np.abs(across[:, ::2] - across[:, 1::2])
    inside = above[:, ::2] > scene.air * scene.top
    chosen = detail[inside] if inside.any() else detail.ravel()
    return float(np.partition(chosen, len(chosen) // 2)[len(chosen) // 2]) / 2 / MAD / scene.top


def _detail(small: np.ndarray) -> tuple[float, float, float]:
    """(sharpness, motion, clutter) of a field at PITCH.

    Fine structure counts in units of the coarse structure of its own direction: so neither contrast nor the way the
    bones run matters. Blur and motion starve most directions of it; motion spares the one across it. What is no
    radiograph, a photograph or a page of text, has structure everywhere, where a radiograph has it at few edges.
    """
    coarse, middle, fine = powers(small)
    if min(coarse.min(), middle.min()) <= 0:
        return 0.0, 1.0, 0.0
    quartile = float(np.partition(fine / coarse, QUARTILE - 1)[QUARTILE - 1])
    best = fine / (middle + coarse / 4)
    motion = float(best.max() / max(np.median(best), np.finfo(float).tiny))
    crowd = float(middle.sum() / coarse.sum()) / max(1.0, _kurtosis(small)) ** 1.5
    return 1000 * quartile, motion, 1000 * crowd


def _kurtosis(small: np.ndarray) -> float:
    """Of the band of structures some pixels wide: 3 for structure everywhere, large where it is rare and strong."""
    band = cv2.GaussianBlur(small, (0, 0), 1) - cv2.GaussianBlur(small, (0, 0), 2)
    square = band * band
    variance = float(square.mean())
    return float((square * square).mean()) / variance**2 if variance > 0 else 1.0


def _deviation(meta: ImageMeta) -> float:
    """From index and target, where the device states both; else what it says itself."""
    index, target = meta.exposure_index, meta.target_exposure_index
    if index is not None and target is not None and index > 0 and target > 0:
        return 10 * math.log10(index / target)
    return math.nan if meta.deviation_index is None else meta.deviation_index


def phash(pixels: np.ndarray) -> str:
    """Signs of the 63 lowest alternating DCT terms of a 32 x 32 thumbnail against their median, row by row."""
    thumbnail = cv2.resize(halved(pixels, FINE), (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    terms = cv2.dct(thumbnail)[:8, :8].ravel()
    bits = terms > np.median(terms[1:])
    bits[0] = False  # the mean says nothing about the picture
    return np.packbits(bits).tobytes().hex()
