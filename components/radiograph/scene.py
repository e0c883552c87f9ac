"""What there is to measure in an image: the field inside the collimator, the anatomy in it, and the air around that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from components.radiograph.image import Radiograph
from components.radiograph.pitch import at_pitch

FLAT = 0.01  # of the stored range: a border line this close to its extreme carries no picture
PENUMBRA = 2  # lines over which a leaf's edge fades
LEAF = 0.95  # share of a line at one extreme that makes it part of the collimator's shadow
RIM = 0.4  # share of the field's edge that air around a limb reaches, at least
EVEN = 0.7  # its standard deviation against the anatomy's, at most
TWO_CLASSES = 0.85  # share of the variance that a split must explain to be one
SMALLEST = 4  # lines that a field has at least


@dataclass(frozen=True)
class Scene:
    """The field inside the collimator, small and in [0, 1], and which of its levels are anatomy.

    Attributes:
        window: rows and columns of the field in the original image.
        small: (h, w) float32, the field at PITCH.
        air: darkest value of anatomy, in [0, 1]; below it is air.
        glare: its brightest; 1 unless the polarity is wrong, and what is above it is air.
        top: whitest value the bits can hold.
    """

    window: tuple[slice, slice]
    field_fraction: float
    small: np.ndarray
    air: float
    glare: float
    top: float
    polarity_ok: bool

    @property
    def quantum(self) -> float:
        """Standard deviation of rounding to whole grey levels: no noise below it can be seen."""
        return 1.0 / (self.top * math.sqrt(12))


def look(image: Radiograph, fine: np.ndarray) -> Scene:
    """Find field, anatomy and air of an image.

    Args:
        fine: its pixels, or what `halved` made of them.
    """
    pixels = image.pixels
    top = float(2**image.meta.bits_stored - 1)
    if pixels.max() > top:  # a modality LUT may widen the range
        top = float(np.iinfo(pixels.dtype).max)
    small = at_pitch(fine).astype(np.float32) / np.float32(top)
    inside = _field(small)
    fraction = (inside[0].stop - inside[0].start) * (inside[1].stop - inside[1].start) / small.size
    ratio = (pixels.shape[0] / small.shape[0], pixels.shape[1] / small.shape[1])
    window = (
        slice(math.ceil(inside[0].start * ratio[0]), max(1, math.floor(inside[0].stop * ratio[0]))),
        slice(math.ceil(inside[1].start * ratio[1]), max(1, math.floor(inside[1].stop * ratio[1]))),
    )
    field = np.ascontiguousarray(small[inside])
    air, glare = _anatomy(field)
    return Scene(window, fraction, field, air, glare, top, polarity_ok=glare >= 1)


def _field(small: np.ndarray) -> tuple[slice, slice]:
    """The rectangle inside the collimator: from each side, lines that hold nothing but one extreme are its leaves.

    A shutter paints them black or white. Without one they are merely bright; air never is on all four sides.
    """
    whole = (slice(0, small.shape[0]), slice(0, small.shape[1]))
    field = _inside(whole, small <= FLAT, small >= 1 - FLAT)
    part = small[field]
    level = otsu(part[::2, ::2])
    bright = part >= level
    if min(_share(edge) for edge in (bright[0], bright[-1], bright[:, 0], bright[:, -1])) >= LEAF:
        field = _inside(field, np.zeros(small.shape, bool), small >= level)
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
        # Only the colour of the outermost line is the leaf's: dark air behind a white border belongs to the field.
        leaf = next((colour for colour in (black, white) if _share(colour[::step][0]) >= LEAF), None)
        closed = 0
        if leaf is not None:
            lines = leaf.mean(axis=1)[::step] >= LEAF
            closed = len(lines) if lines.all() else int(np.argmin(lines)) + PENUMBRA
        edges.append(closed)
    return slice(start + edges[0], max(start + edges[0], start + len(black) - edges[1]))


def _anatomy(field: np.ndarray) -> tuple[float, float]:
    """(darkest, brightest) level of the anatomy in a field.

    Air is even and reaches the field's edge. If only the bright end of the picture does so, the polarity is wrong.
    """
    thin = np.ascontiguousarray(field[::2, ::2])
    dark, bright = _end(thin), -_end(-thin)
    if _is_air(thin, thin <= dark):
        return dark, 1.0
    if _is_air(thin, thin >= bright) and _rim(thin >= bright) > _rim(thin <= dark):
        return 0.0, bright
    return 0.0, 1.0  # anatomy fills the field (chest, hip): nothing is air


def _is_air(field: np.ndarray, part: np.ndarray) -> bool:
    """Whether `part` covers enough of the field's edge, and is far more even than the rest."""
    if part.all() or not part.any():
        return False
    return bool(_rim(part) > RIM and field[part].std() < EVEN * field[~part].std())


def _rim(part: np.ndarray) -> float:
    """Share of the field's edge that `part` covers."""
    return _share(np.concatenate((part[0], part[-1], part[:, 0], part[:, -1])))


def _share(part: np.ndarray) -> float:
    """Share of what is true in it; several times as fast as the mean."""
    return np.count_nonzero(part) / part.size


def _end(values: np.ndarray) -> float:
    """Where the lowest class of `values` ends: Otsu's split, and again below it if two classes lie there."""
    split = otsu(values)
    lower = values[values <= split]
    second = otsu(lower)
    below = lower <= second
    share = float(below.mean())
    if not 0 < share < 1:
        return split
    gap = float(lower[~below].mean() - lower[below].mean())
    # Share of the variance that the split explains: .75 for an even spread, .64 for one normal class.
    return second if share * (1 - share) * gap**2 / float(lower.var()) > TWO_CLASSES else split


def otsu(values: np.ndarray) -> float:
    """The value that splits `values` (in [0, 1]) into the two most even classes (Otsu 1979), on 256 bins."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return high
    eight = ((values - low) * (255.0 / (high - low))).astype(np.uint8)
    level, _ = cv2.threshold(eight.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return low + (float(level) + 0.5) * (high - low) / 255.0
