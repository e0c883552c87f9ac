"""From stored values to the picture the sender means: modality LUT, VOI LUT, presentation, in the order of PS3.3.

Every step maps single values, so all of them together are one table over the values that the bits can hold. What is
affine stays exact: a linear rescale gives units, not another picture, and only its sign matters; a linear window is a
way of looking, and is handed on beside the pixels. What is not (a modality table, a VOI table, a sigmoid) is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from components.errors import UnreadableImage

MONOCHROME1 = "MONOCHROME1"
SIGMOID, EXACT = "SIGMOID", "LINEAR_EXACT"  # PS3.3 C.11.2.1.2.1; anything else is LINEAR, as absent is


@dataclass(frozen=True)
class Picture:
    """What is kept of a DICOM image's pixels.

    Attributes:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2, lowest value 0.
        bits: depth of their full range.
        window: (center, width) of the sender's linear window in units of `pixels`: black at center - width / 2, white
            at center + width / 2 and beyond; None where none is stated or a table has replaced it.
    """

    pixels: np.ndarray
    bits: int
    window: tuple[float, float] | None


@dataclass(frozen=True)
class Table:
    """A lookup table of PS3.3 C.11: inputs below `first` give its first entry, those past its end its last."""

    first: int
    entries: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.entries[np.clip(values - self.first, 0, len(self.entries) - 1)])


def picture(stored: np.ndarray, dataset: Dataset) -> Picture:
    """Map stored values to the picture.

    Args:
        stored: (rows, columns), as `decoders.stored_values` gives them.
        dataset: their header; its photometric interpretation is MONOCHROME1 or MONOCHROME2.

    Raises:
        UnreadableImage: reason undecodable: a lookup table contradicts its descriptor.
    """
    bits, signed = int(dataset.BitsStored), stored.dtype.kind == "i"
    lowest = -(2 ** (bits - 1)) if signed else 0
    domain = np.arange(lowest, lowest + 2**bits)
    slope, intercept, window, curve = 1.0, 0.0, _window(dataset), None
    if modality := _table(dataset, "ModalityLUTSequence", signed):
        meant = curve = modality(domain)
        # Descriptors claim 16 bits for less: the range is what the table can give.
        bits, signed = max(1, int(curve.max()).bit_length()), False
    else:
        slope, intercept = _rescale(dataset)
        meant = slope * domain + intercept
        signed = signed or bool(meant.min() < 0)
        intercept += slope * lowest  # from here on of what is black, not of zero
    if voi := _table(dataset, "VOILUTSequence", signed):
        curve = voi(np.floor(meant + 0.5).astype(np.int64))
        bits, slope, window = max(1, int(curve.max()).bit_length()), 1.0, None
    elif window and str(dataset.get("VOILUTFunction", "") or "").upper() == SIGMOID:
        share = 1 / (1 + np.exp(np.clip(-4 * (meant - window[0]) / window[1], -700, 700)))
        curve, slope, window = np.rint(share * (2**bits - 1)).astype(np.int64), 1.0, None
    pixels = _mapped(stored, curve, lowest).astype(np.uint8 if bits <= 8 else np.uint16, copy=False)
    top = 2**bits - 1
    if window:
        window = ((window[0] - intercept) / slope, abs(window[1] / slope))
    if (dataset.PhotometricInterpretation == MONOCHROME1) != (slope < 0):
        pixels = np.subtract(pixels.dtype.type(top), pixels)
        window = (top - window[0], window[1]) if window else None
    pixels[_padding(dataset, stored)] = 0
    return Picture(pixels, bits, window)


def _mapped(stored: np.ndarray, curve: np.ndarray | None, lowest: int) -> np.ndarray:
    """`curve` at every stored value, its first entry being the lowest's; without one, how far each lies above that."""
    if curve is not None:
        return np.asarray(curve.astype(np.uint16)[stored.astype(np.int32) - lowest])
    return stored.copy() if lowest == 0 else stored.astype(np.int32) - lowest


def _rescale(dataset: Dataset) -> tuple[float, float]:
    """(slope, intercept); a slope of 0 would leave no picture and counts as none.

    Raises:
        UnreadableImage: reason undecodable: one is not finite.
    """
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise UnreadableImage("its rescale is not finite", reason="undecodable")
    return slope, intercept


def _table(dataset: Dataset, name: str, signed: bool) -> Table | None:
    """The first table of a sequence (C.11.1.1, C.11.2.1.1); None when there is none.

    Args:
        signed: whether the values it maps may be negative; its first value is read accordingly.

    Raises:
        UnreadableImage: reason undecodable: fewer entries than it says.
    """
    if not (sequence := dataset.get(name)):
        return None
    item = sequence[0]
    count, first, _ = (int(value) & 0xFFFF for value in item.LUTDescriptor)
    count = count or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        raw = np.frombuffer(data, np.uint8)
        words = raw[: len(raw) // 2 * 2].view(f"{order}u2")
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16)
        raw = np.stack([words & 0xFF, words >> 8], axis=-1).reshape(-1).astype(np.uint8)
    entries = words if len(words) >= count else raw  # 8-bit entries, two to a word, the first in the low byte
    if len(entries) < count:
        raise UnreadableImage("a lookup table has fewer entries than it says", reason="undecodable")
    return Table(first - 0x10000 if signed and first >= 0x8000 else first, entries[:count].astype(np.int64))


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """(center, width) of the first window, both ends where black and white are reached; None when it is none.

    Source: PS3.3 C.11.2.1.2.1 (LINEAR: from center - 0.5 - (width - 1) / 2 to center - 0.5 + (width - 1) / 2) and
    C.11.2.1.3 (SIGMOID and LINEAR_EXACT: as stated).
    """
    try:
        center, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        function = str(dataset.get("VOILUTFunction", "") or "").upper()
    except Exception:  # noqa: BLE001  (absent, empty or no number: not stated)
        return None
    if function not in (EXACT, SIGMOID):
        center, width = center - 0.5, width - 1
    return (center, width) if math.isfinite(center) and math.isfinite(width) and width > 0 else None


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | slice:
    """Which pixels the sender filled in around the picture (C.7.5.1.1.2); they are black in either polarity."""
    if dataset.get("PixelPaddingValue") is None:
        return slice(0)
    first = int(dataset.PixelPaddingValue)
    last = int(dataset.get("PixelPaddingRangeLimit", first))
    return np.asarray((stored >= min(first, last)) & (stored <= max(first, last)))
