"""How good an image is, in numbers: what a monitor watches for drift and what `validate` refuses by.

Exposures are shares of the stored range (0 = blackest, 1 = whitest value that the file's bits can hold), so that
images of different depth compare. Thresholds are not here: they belong to a site (params.yaml, docs/data.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from components.radiograph.image import Radiograph

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
PITCH = 512  # pixels of the long side at which sharpness and motion are comparable between devices
FLAT = 0.01  # of the stored range: a border line this close to its extreme carries no picture
LEAF = 0.98  # share of a line at one extreme that makes it part of the collimator's shadow
RIM = 0.4  # share of the field's edge that air around a limb reaches, at least
EVEN = 0.7  # its standard deviation against the anatomy's, at most
TWO_CLASSES = 0.85
SMALLEST = 8  # lines that a field has at least
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
    scene = _look(image)
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
        "cnr": _contrast(scene.anatomy) / max(noise, scene.quantum),
        "motion": _motion(scene),
        "deviation_index": _deviation(image.meta.exposure_index, image.meta.target_exposure_index),
        "polarity_ok": scene.polarity_ok,
        "phash": _phash(scene.small),
    }


@dataclass(frozen=True)
class _Scene:
    """The field inside the collimator, small and in [0, 1], and which part of it is anatomy.

    Attributes:
        window: rows and columns of the field in the original image.
        small: (h, w) float32, the field at PITCH.
        foreground: (h, w) bool.
        air: darkest value of anatomy, in [0, 1]; below it is air.
        top: whitest value the bits can hold.
    """

    window: tuple[slice, slice]
    field_fraction: float
    small: np.ndarray
    foreground: np.ndarray
    air: float
    top: float
    polarity_ok: bool

    @property
    def anatomy(self) -> np.ndarray:
        return self.small[self.foreground]

    @property
    def quantum(self) -> float:
        """Standard deviation of rounding to whole grey levels: no noise below it can be seen."""
        return 1.0 / (self.top * math.sqrt(12))


def _look(image: Radiograph) -> _Scene:
    pixels = image.pixels
    top = float(2**image.meta.bits_stored - 1)
    if pixels.max() > top:  # a modality LUT may widen the range
        top = float(np.iinfo(pixels.dtype).max)
    scale = PITCH / max(pixels.shape)
    shape = (max(8, round(pixels.shape[1] * scale)), max(8, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = small.astype(np.float32) / np.float32(top)
    inside = _field(small)
    fraction = (inside[0].stop - inside[0].start) * (inside[1].stop - inside[1].start) / small.size
    ratio = (pixels.shape[0] / small.shape[0], pixels.shape[1] / small.shape[1])
    window = (
        slice(math.ceil(inside[0].start * ratio[0]), max(1, math.floor(inside[0].stop * ratio[0]))),
        slice(math.ceil(inside[1].start * ratio[1]), max(1, math.floor(inside[1].stop * ratio[1]))),
    )
    field = np.ascontiguousarray(small[inside])
    foreground, air, polarity_ok = _anatomy(field)
    return _Scene(window, fraction, field, foreground, air, top, polarity_ok)


def _field(small: np.ndarray) -> tuple[slice, slice]:
    """The rectangle inside the collimator: from each side, lines that hold nothing but one extreme are its leaves.

    A shutter paints them black or white. Without one they are merely bright; air never is on all four sides.
    """
    whole = (slice(0, small.shape[0]), slice(0, small.shape[1]))
    field = _inside(whole, small <= FLAT, small >= 1 - FLAT)
    part = small[field]
    bright = part >= -_end(-part)
    if min(edge.mean() for edge in (bright[0], bright[-1], bright[:, 0], bright[:, -1])) >= LEAF:
        field = _inside(field, np.zeros(small.shape, bool), small >= -_end(-part))
    return field


def _inside(outer: tuple[slice, slice], black: np.ndarray, white: np.ndarray) -> tuple[slice, slice]:
    """`outer` without its border lines of one colour; `outer` itself where nothing would be left."""
    rows = _opening(black[outer], white[outer], outer[0].start)
    columns = _opening(black[rows, outer[1]].T, white[rows, outer[1]].T, outer[1].start)
    return outer if min(rows.stop - rows.start, columns.stop - columns.start) < SMALLEST else (rows, columns)


def _opening(black: np.ndarray, white: np.ndarray, start: int) -> slice:
    """First to last line (axis 0) that is not part of a black or a white border; lines count from `start`."""
    if black.size == 0:
        return slice(start, start)
    edges = []
    for step in (1, -1):
        closed = [colour.mean(axis=1)[::step] >= LEAF for colour in (black, white)]
        # Only the colour of the outermost line is the leaf's: dark air behind a white border belongs to the field.
        leaf = next((same for same in closed if same[0]), np.zeros(1, bool))
        edges.append(int(np.argmin(leaf)) if not leaf.all() else len(leaf))
    return slice(start + edges[0], max(start + edges[0], start + len(black) - edges[1]))


def _anatomy(field: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """(foreground, darkest anatomy, polarity_ok) of a field.

    Air is even and reaches the field's edge. If only the bright end of the picture does so, the polarity is wrong.
    """
    dark, bright = _end(field), -_end(-field)
    if _is_air(field, field <= dark):
        return field > dark, dark, True
    if _is_air(field, field >= bright):
        return field < bright, 0.0, False
    return np.ones(field.shape, bool), 0.0, True  # anatomy fills the field (chest, hip): nothing is air


def _is_air(field: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` covers enough of the field's edge, and is far more even than the rest."""
    if part.all() or not part.any():
        return False
    rim = np.concatenate((part[0], part[-1], part[:, 0], part[:, -1])).mean()
    return bool(rim > RIM and field[part].std() < EVEN * field[~part].std())


def _end(values: np.ndarray) -> float:
    """Where the lowest class of `values` ends: Otsu's split, and again below it if two classes lie there."""
    split = _otsu(values)
    lower = values[values <= split]
    second = _otsu(lower)
    below = lower <= second
    share = float(below.mean())
    if not 0 < share < 1:
        return split
    gap = float(lower[~below].mean() - lower[below].mean())
    # Share of the variance that the split explains: .75 for an even spread, .64 for one normal class.
    return second if share * (1 - share) * gap**2 / float(lower.var()) > TWO_CLASSES else split


def _otsu(values: np.ndarray) -> float:
    """The value that splits `values` (in [0, 1]) into the two most even classes (Otsu 1979), on 256 bins."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return high
    eight = ((values - low) * (255.0 / (high - low))).astype(np.uint8)
    level, _ = cv2.threshold(eight.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return low + (float(level) + 0.5) * (high - low) / 255.0


def _histogram(image: Radiograph, scene: _Scene) -> tuple[int, float]:
    """(distinct grey levels, share at the ends of the range) of the foreground, on stored values."""
    counts = np.bincount(image.pixels[scene.window].ravel(), minlength=int(scene.top) + 1)
    counts[: math.floor(scene.air * scene.top)] = 0
    total = max(1, int(counts.sum()))
    ends = int(counts[int(scene.top)]) + (int(counts[0]) if scene.air <= 0 else 0)
    return int(np.count_nonzero(counts)), ends / total


def _sharpness(scene: _Scene) -> float:
    edges = cv2.Laplacian(scene.small * np.float32(255), cv2.CV_32F)
    return float(edges[scene.foreground].var())


def _noise(pixels: np.ndarray, scene: _Scene) -> float:
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
    bone = anatomy > _otsu(anatomy)
    if bone.all() or not bone.any():
        return 0.0
    return float(np.median(anatomy[bone]) - np.median(anatomy[~bone]))


def _motion(scene: _Scene) -> float:
    """Blur along one direction starves that direction of fine texture: strongest over weakest of orthogonal pairs.

    Edges are few and strong and say where bones lie, not how the patient moved: the top tenth is left out.
    """
    strength = []
    for right, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
        kernel = np.zeros((3, 3), np.float32)
        kernel[1, 1] = -2
        kernel[1 + down, 1 + right] += 1
        kernel[1 - down, 1 - right] += 1
        detail = np.abs(cv2.filter2D(scene.small, cv2.CV_32F, kernel)[scene.foreground])
        strength.append(float(detail[detail <= np.percentile(detail, 90)].mean()))
    pairs = ((strength[0], strength[1]), (strength[2], strength[3]))
    return max(max(pair) / min(pair) if min(pair) > 0 else 1.0 for pair in pairs)


def _deviation(index: float | None, target: float | None) -> float:
    if index is None or target is None or index <= 0 or target <= 0:
        return math.nan
    return 10 * math.log10(index / target)


def _phash(small: np.ndarray) -> str:
    """Signs of the 63 lowest alternating DCT terms of a 32 x 32 thumbnail against their median, row by row."""
    thumbnail = cv2.resize(small, (32, 32), interpolation=cv2.INTER_AREA)
    terms = cv2.dct(thumbnail)[:8, :8].ravel()
    bits = terms > np.median(terms[1:])
    bits[0] = False  # the mean says nothing about the picture
    return np.packbits(bits).tobytes().hex()
