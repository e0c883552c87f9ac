"""How good an image is, in numbers: what a monitor watches for drift and what `validate` refuses by.

Exposures are shares of the stored range (0 = blackest, 1 = whitest value that the file's bits can hold), so that
images of different depth compare. Thresholds are not here: they belong to a site (params.yaml, docs/data.md).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from components.radiograph.image import Radiograph
from components.radiograph.scene import PITCH, Scene, look, otsu

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
    "deviation_index",
)
THIN = 3  # every third pixel is enough for a mean or a median
MAD = 0.6745  # median of |x| of a standard normal variable


def measure(image: Radiograph) -> dict[str, float | int | bool | str | None]:
    """Measure one image: FEATURES, `polarity_ok` and `phash`.

    | key                          | meaning                                                         | unit          |
    |------------------------------|-----------------------------------------------------------------|---------------|
    | exposure_median, _p1, _p99   | percentiles of the foreground (anatomy)                         | stored range  |
    | saturation                   | share of the foreground at the ends of the stored range         | 0 to 1        |
    | grey_levels                  | distinct values in the foreground                               | count         |
    | field_fraction               | area inside the collimator                                      | 0 to 1        |
    | sharpness                    | variance of the Laplacian of the foreground, long side 512 px   | (1/255)^2     |
    | noise                        | median abs(HH) / 0.6745 of the foreground, one-level Haar       | stored range  |
    | cnr                          | (bone - soft tissue) / noise                                    | ratio         |
    | motion                       | fine texture across the blur over along it (>= 1)               | ratio, >= 1   |
    | deviation_index              | 10 log10(EI / EI_T); NaN where the device states no index       | dB            |
    | polarity_ok                  | direct-exposure air is the darkest region; True where none seen | bool          |
    | phash                        | 64-bit DCT perceptual hash                                      | 16 hex digits |

    Source: clinical.md section 5; DI: IEC 62494-1.
    """
    scene = look(image)
    levels, saturation = _histogram(image, scene)
    p1, median, p99 = (float(value) for value in np.percentile(scene.anatomy, (1, 50, 99)))
    noise = _noise(image.pixels, scene)
    return {
        "exposure_median": median,
        "exposure_p1": p1,
        "exposure_p99": p99,
        "saturation": saturation,
        "grey_levels": levels,
        "field_fraction": scene.field_fraction,
        "sharpness": _sharpness(scene),
        "noise": noise,
        "cnr": _contrast(scene.anatomy[::THIN]) / max(noise, scene.quantum),
        "motion": _motion(scene),
        "deviation_index": _deviation(image.meta.exposure_index, image.meta.target_exposure_index),
        "polarity_ok": scene.polarity_ok,
        "phash": _phash(image.pixels),
    }


def _histogram(image: Radiograph, scene: Scene) -> tuple[int, float]:
    """(distinct grey levels, share at the ends of the range) of the foreground, on stored values."""
    counts = np.bincount(image.pixels[scene.window].ravel(), minlength=int(scene.top) + 1)
    counts[: math.floor(scene.air * scene.top)] = 0
    total = max(1, int(counts.sum()))
    ends = int(counts[int(scene.top)]) + (int(counts[0]) if scene.air <= 0 else 0)
    return int(np.count_nonzero(counts)), ends / total


def _sharpness(scene: Scene) -> float:
    edges = cv2.Laplacian(scene.small * np.float32(255), cv2.CV_32F)
    return float(edges[scene.foreground].var())


def _noise(pixels: np.ndarray, scene: Scene) -> float:
    """Robust standard deviation of the diagonal Haar detail: edges along rows and columns cancel in it."""
    part = pixels[scene.window]
    step = 2 * max(1, min(part.shape) // (2 * PITCH))
    rows, columns = part.shape[0] // 2 * 2, part.shape[1] // 2 * 2
    if rows < 2 or columns < 2:
        return 0.0
    corner = [part[i:rows:step, j:columns:step].astype(np.float32) for i in (0, 1) for j in (0, 1)]
    detail = (corner[0] - corner[1] - corner[2] + corner[3]) / 2
    inside = corner[0] > scene.air * scene.top
    chosen = detail[inside] if inside.any() else detail
    return float(np.median(np.abs(chosen))) / MAD / scene.top


def _contrast(anatomy: np.ndarray) -> float:
    """Median of the brighter half of the anatomy (bone) minus that of the darker (soft tissue)."""
    bone = anatomy > otsu(anatomy)
    if bone.all() or not bone.any():
        return 0.0
    return float(np.median(anatomy[bone]) - np.median(anatomy[~bone]))


def _motion(scene: Scene) -> float:
    """Blur along one direction starves that direction of fine texture: strongest over weakest of orthogonal pairs.

    Edges are few and strong and say where bones lie, not how the patient moved: the top tenth is left out.
    """
    strength = []
    for right, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
        kernel = np.zeros((3, 3), np.float32)
        kernel[1, 1] = -2
        kernel[1 + down, 1 + right] += 1
        kernel[1 - down, 1 - right] += 1
        detail = np.abs(cv2.filter2D(scene.small, cv2.CV_32F, kernel)[scene.foreground][::THIN])
        kept = max(1, int(0.9 * detail.size))
        strength.append(float(np.partition(detail, kept - 1)[:kept].mean()))
    pairs = ((strength[0], strength[1]), (strength[2], strength[3]))
    return max(max(pair) / min(pair) if min(pair) > 0 else 1.0 for pair in pairs)


def _deviation(index: float | None, target: float | None) -> float:
    if index is None or target is None or index <= 0 or target <= 0:
        return math.nan
    return 10 * math.log10(index / target)


def _phash(pixels: np.ndarray) -> str:
    """Signs of the 63 lowest alternating DCT terms of a 32 x 32 thumbnail against their median, row by row."""
    thumbnail = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    terms = cv2.dct(thumbnail)[:8, :8].ravel()
    bits = terms > np.median(terms[1:])
    bits[0] = False  # the mean says nothing about the picture
    return np.packbits(bits).tobytes().hex()
