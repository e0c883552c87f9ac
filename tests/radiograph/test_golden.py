"""The golden pixels: every way in which PS3.3 and PS3.5 let a sender write a picture down leads to that picture.

Crossed: transfer syntax x bits stored x sign x modality x VOI x polarity. What is expected is worked out here from the
formulas of the standard, pixel by pixel, and once in figures; `python -m tests.radiograph.test_golden` prints the table
of docs/data.md.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID, ComputedRadiographyImageStorage

from components.radiograph import dicom
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph

PSEUDONYMS = Pseudonyms(bytes(range(32)))
BITS = (8, 10, 12, 14, 16)
MODALITY = ("none", "shift", "fraction", "negative", "table")
RESCALE = {"none": (1.0, 0.0), "shift": (1.0, -1024.0), "fraction": (0.5, 0.25), "negative": (-1.0, 0.0)}
VOI = ("none", "linear", "linear exact", "sigmoid", "table")
POLARITY = ("MONOCHROME2", "MONOCHROME1")
MODALITY_TABLE, VOI_TABLE = (0, 10, 100, 1000), (7, 300, 4095)


def near(pixels: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpegls_encode(pixels, level=0)


def lossless(predictor: int) -> Callable[[np.ndarray, int], bytes]:
    return lambda pixels, bits: imagecodecs.jpeg8_encode(
        pixels, lossless=True, predictor=predictor, bitspersample=max(bits, 8)
    )


def two_thousand(pixels: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True)


def high_throughput(pixels: np.ndarray, bits: int) -> bytes:
    return imagecodecs.htj2k_encode(pixels)


def cosine(pixels: np.ndarray, bits: int) -> bytes:
    """Blocks of 8 x 8 are flat and the quantisation is 1: the transform keeps them exactly."""
    return imagecodecs.jpeg8_encode(pixels, level=100, bitspersample=8 if bits <= 8 else 12)


# Name -> UID, encoder of a frame (None: native or pydicom's own), most bits stored, whether signed.
SYNTAXES: dict[str, tuple[str, Callable[[np.ndarray, int], bytes] | None, int, bool]] = {
    "implicit little endian": ("1.2.840.10008.1.2", None, 16, True),
    "explicit little endian": ("1.2.840.10008.1.2.1", None, 16, True),
    "deflated": ("1.2.840.10008.1.2.1.99", None, 16, True),
    "explicit big endian": ("1.2.840.10008.1.2.2", None, 16, True),
    "RLE": ("1.2.840.10008.1.2.5", None, 16, True),
    "JPEG baseline": ("1.2.840.10008.1.2.4.50", cosine, 8, False),
    "JPEG extended": ("1.2.840.10008.1.2.4.51", cosine, 12, False),
    "JPEG lossless": ("1.2.840.10008.1.2.4.57", lossless(6), 16, True),
    "JPEG lossless, first order": ("1.2.840.10008.1.2.4.70", lossless(1), 16, True),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", near, 16, True),
    "JPEG-LS near-lossless, error 0": ("1.2.840.10008.1.2.4.81", near, 16, True),
    "JPEG 2000 lossless": ("1.2.840.10008.1.2.4.90", two_thousand, 16, True),
    "JPEG 2000, reversible": ("1.2.840.10008.1.2.4.91", two_thousand, 16, True),
    "HTJ2K lossless": ("1.2.840.10008.1.2.4.201", high_throughput, 16, True),
    "HTJ2K, reversible": ("1.2.840.10008.1.2.4.203", high_throughput, 16, True),
}


def chosen(bits: int, signed: bool) -> list[int]:
    """The stored values that are pinned: the ends of the range, and its middle with both neighbours."""
    low = -(2 ** (bits - 1)) if signed else 0
    middle = low + 2 ** (bits - 1)
    return [low, middle - 1, middle, middle + 1, low + 2**bits - 1]


def half_up(value: float) -> int:
    return math.floor(value + 0.5)


def modality_value(stored: int, bits: int, signed: bool, modality: str) -> float:
    """C.11.1.1: output = m * SV + b, or the table's entry, whose first maps the value before the middle."""
    if modality == "table":
        return MODALITY_TABLE[min(max(stored - (chosen(bits, signed)[2] - 1), 0), 3)]
    slope, intercept = RESCALE[modality]
    return slope * stored + intercept


def expected(bits: int, signed: bool, modality: str, voi: str, polarity: str) -> tuple[list[int], int, Any]:
    """(pixels, bits, window) by the formulas of PS3.3 C.11.1.1, C.11.2.1.1, C.11.2.1.3.1 and C.7.6.3.1.2."""
    values = [modality_value(stored, bits, signed, modality) for stored in chosen(bits, signed)]
    low, middle, slope = chosen(bits, signed)[0], values[2], RESCALE.get(modality, (1.0, 0.0))[0]
    depth, window = 10 if modality == "table" else bits, None
    if voi == "table":
        depth, slope = 12, 1.0
        pixels = [VOI_TABLE[min(max(half_up(value) - half_up(middle), 0), 2)] for value in values]
    elif voi == "sigmoid":
        width, slope = 2 ** (bits - 2), 1.0
        pixels = [round((2**depth - 1) / (1 + math.exp(-4 * (value - middle) / width))) for value in values]
    elif modality == "table":
        pixels, window = [int(value) for value in values], (middle, 100)
    else:
        pixels, window = [stored - low for stored in chosen(bits, signed)], (2 ** (bits - 1), 100 / abs(slope))
    if (polarity == "MONOCHROME1") != (slope < 0):
        pixels = [2**depth - 1 - pixel for pixel in pixels]
        window = (2**depth - 1 - window[0], window[1]) if window else None
    return pixels, depth, window if voi.startswith("linear") else None


def table_item(first: int, entries: tuple[int, ...], **more: Any) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, 16])
    item.add_new("LUTData", "US", list(entries))
    for name, value in more.items():
        setattr(item, name, value)
    return item


def header(bits: int, signed: bool, modality: str, voi: str, polarity: str) -> dict[str, Any]:
    """The attributes by which a sender says it."""
    middle = modality_value(chosen(bits, signed)[2], bits, signed, modality)
    said: dict[str, Any] = {"PhotometricInterpretation": polarity}
    if modality == "table":
        first = chosen(bits, signed)[1]
        said["ModalityLUTSequence"] = [table_item(first, MODALITY_TABLE, ModalityLUTType="US")]
    elif modality != "none":
        said |= dict(zip(("RescaleSlope", "RescaleIntercept"), RESCALE[modality], strict=True))
    if voi == "table":
        said["VOILUTSequence"] = [table_item(half_up(middle), VOI_TABLE)]
    elif voi == "linear":
        said |= {"WindowCenter": middle + 0.5, "WindowWidth": 101}
    elif voi == "linear exact":
        said |= {"WindowCenter": middle, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    elif voi == "sigmoid":
        said |= {"WindowCenter": middle, "WindowWidth": 2 ** (bits - 2), "VOILUTFunction": "SIGMOID"}
    return said


def frame(bits: int, signed: bool) -> np.ndarray:
    """(8, 40): the chosen values as flat blocks of 8 x 8."""
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return np.kron(np.array([chosen(bits, signed)]), np.ones((8, 8), int)).astype(kind)


def pixel_data(syntax: str, bits: int, signed: bool) -> bytes:
    uid, encode, _, _ = SYNTAXES[syntax]
    pixels = frame(bits, signed)
    if encode:
        words = pixels.view(f"u{pixels.itemsize}")
        # JPEG 2000 says itself whether it is signed; the others know words of so many bits.
        words = pixels if "2000" in syntax or "HTJ2K" in syntax else words & np.uint16(2**bits - 1).astype(words.dtype)
        return encapsulate([encode(words, bits)])
    if syntax == "RLE":
        options = {"rows": 8, "columns": 40, "samples_per_pixel": 1, "bits_allocated": pixels.itemsize * 8}
        options |= {"bits_stored": bits, "pixel_representation": int(signed), "number_of_frames": 1}
        options |= {"photometric_interpretation": "MONOCHROME2"}
        return encapsulate([get_encoder(uid).encode(pixels, **options)])
    # Big endian: 16-bit words are swapped, and so is what is packed into them.
    return pixels.view(np.uint16).byteswap().tobytes() if "big" in syntax else pixels.tobytes()


def file(syntax: str, data: bytes, bits: int, signed: bool, said: dict[str, Any]) -> bytes:
    dataset = Dataset()
    size = 8 if bits <= 8 else 16
    known = {
        "SOPClassUID": ComputedRadiographyImageStorage, "SOPInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3",
        "PatientID": "P-1", "Rows": 8, "Columns": 40, "SamplesPerPixel": 1, "BitsAllocated": size,
        "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed),
    }  # fmt: skip
    for name, value in (known | said).items():
        setattr(dataset, name, value)
    uid = UID(SYNTAXES[syntax][0])
    dataset.add_new("PixelData", "OB" if uid.is_encapsulated else "OW", data)
    dataset["PixelData"].is_undefined_length = uid.is_encapsulated
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def crossed() -> list[tuple[str, int, bool]]:
    return [
        (syntax, bits, signed)
        for syntax, (_, _, most, may_be_signed) in SYNTAXES.items()
        for bits in BITS
        for signed in (False, True)
        if bits <= most and (may_be_signed or not signed)
    ]


def seen(image: Radiograph) -> tuple[list[int], int, Any]:
    window = (image.meta.window_center, image.meta.window_width)
    return image.pixels[4, 4::8].tolist(), image.meta.bits_stored, None if window == (None, None) else window


@pytest.mark.parametrize(("syntax", "bits", "signed"), crossed())
def test_golden_pixels(syntax, bits, signed):
    data = pixel_data(syntax, bits, signed)
    wrong = []
    for modality in MODALITY:
        for voi in VOI:
            for polarity in POLARITY:
                said = header(bits, signed, modality, voi, polarity)
                image = dicom.read(file(syntax, data, bits, signed, said), PSEUDONYMS)
                wanted = expected(bits, signed, modality, voi, polarity)
                if seen(image) != wanted or not (image.pixels[:, ::8] == image.pixels[4, ::8]).all():
                    wrong.append((modality, voi, polarity, seen(image), wanted))

    assert wrong == []


# Twelve bits, unsigned: stored 0, 2047, 2048, 2049 and 4095, by hand.
FIGURES = {
    ("none", "none", "MONOCHROME2"): ([0, 2047, 2048, 2049, 4095], 12, None),
    ("none", "none", "MONOCHROME1"): ([4095, 2048, 2047, 2046, 0], 12, None),
    ("shift", "linear", "MONOCHROME2"): ([0, 2047, 2048, 2049, 4095], 12, (2048, 100)),
    ("shift", "linear exact", "MONOCHROME1"): ([4095, 2048, 2047, 2046, 0], 12, (2047, 100)),
    ("fraction", "linear", "MONOCHROME2"): ([0, 2047, 2048, 2049, 4095], 12, (2048, 200)),
    ("negative", "none", "MONOCHROME2"): ([4095, 2048, 2047, 2046, 0], 12, None),
    ("negative", "linear", "MONOCHROME1"): ([0, 2047, 2048, 2049, 4095], 12, (2048, 100)),
    ("table", "none", "MONOCHROME2"): ([0, 0, 10, 100, 1000], 10, None),
    ("table", "linear", "MONOCHROME1"): ([1023, 1023, 1013, 923, 23], 10, (1013, 100)),
    # 4095 / (1 + e^8) = 1.37, 4095 / (1 + e^(4/1024)) = 2043.5, 4095 / 2 = 2047.5 to even.
    ("none", "sigmoid", "MONOCHROME2"): ([1, 2044, 2048, 2051, 4094], 12, None),
    ("negative", "sigmoid", "MONOCHROME2"): ([4094, 2051, 2048, 2044, 1], 12, None),
    ("none", "table", "MONOCHROME2"): ([7, 7, 7, 300, 4095], 12, None),
    ("none", "table", "MONOCHROME1"): ([4088, 4088, 4088, 3795, 0], 12, None),
    # 1023.75, 1024.25 and 1024.75 round to 1024, 1024 and 1025.
    ("fraction", "table", "MONOCHROME2"): ([7, 7, 7, 300, 4095], 12, None),
    ("negative", "table", "MONOCHROME2"): ([4095, 300, 7, 7, 7], 12, None),
    ("table", "table", "MONOCHROME2"): ([7, 7, 7, 4095, 4095], 12, None),
}


@pytest.mark.parametrize("case", FIGURES)
def test_golden_pixels_in_figures(case):
    data = file("explicit little endian", frame(12, False).tobytes(), 12, False, header(12, False, *case))

    assert seen(dicom.read(data, PSEUDONYMS)) == FIGURES[case]


def table() -> str:
    """What is pinned, as it stands in docs/data.md."""
    lines = ["| Transfer syntax | UID | Bits stored | Sign | Pictures |", "|---|---|---|---|---|"]
    for syntax, (uid, _, _, _) in SYNTAXES.items():
        own = [(bits, signed) for name, bits, signed in crossed() if name == syntax]
        depths = ", ".join(str(bits) for bits in sorted({bits for bits, _ in own}))
        signs = "both" if any(signed for _, signed in own) else "unsigned"
        pictures = len(own) * len(MODALITY) * len(VOI) * len(POLARITY)
        lines.append(f"| {syntax} | {uid} | {depths} | {signs} | {pictures:,} |")
    total = len(crossed()) * len(MODALITY) * len(VOI) * len(POLARITY)
    lines.append(f"| all of them x modality ({', '.join(MODALITY)}) x VOI ({', '.join(VOI)}) x both polarities "
                 f"| | | | {total:,} |")  # fmt: skip
    return "\n".join(lines)


def test_the_table_in_the_documentation_is_this_one():
    documentation = Path(__file__).parents[2] / "docs" / "data.md"

    assert table() in documentation.read_text(encoding="utf-8")


if __name__ == "__main__":
    print(table())
