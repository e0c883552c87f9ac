"""The corners of the grayscale pipeline: tables of every shape, unused bits, padding, windows that are none."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from components.errors import UnreadableImage
from components.radiograph import dicom
from components.radiograph.grayscale import picture
from components.radiograph.pixels import black_and_white
from tests.radiograph.conftest import to_bytes

RAMP = np.array([[0, 1], [2, 3]], np.uint16)


def lut(descriptor: list[int], data: bytes | list[int]) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if min(descriptor) < 0 else "US", descriptor)
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return item


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([4, 0, 16], [9, 7, 5, 255]),
        ([4, 0, 16], b"\x09\0\x07\0\x05\0\xff\0"),
        ([4, 0, 8], [9, 7, 5, 255]),
        ([4, 0, 8], b"\x09\0\x07\0\x05\0\xff\0"),
        ([4, 0, 8], b"\x09\x07\x05\xff"),
        ([4, 0, 8], [0x0709, 0xFF05]),
        ([3, 1, 16], [9, 7, 255]),
    ],
    ids=["words", "bytes", "8 bits in words", "8 bits in bytes", "packed bytes", "packed words", "later first"],
)
@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_may_be_written_in_many_ways(dicom_bytes, pseudonyms, name, descriptor, data):
    """Two values to a word where the entries have 8 bits: the first lies in the low byte."""
    image = dicom.read(dicom_bytes(RAMP, bits=2, **{name: [lut(descriptor, data)]}), pseudonyms)

    assert image.pixels.tolist() == ([[9, 7], [5, 255]] if descriptor[1] == 0 else [[9, 9], [7, 255]])
    assert (image.meta.bits_stored, image.pixels.dtype) == (8, np.uint8)


def test_a_table_of_zero_entries_has_65536(dicom_bytes, pseudonyms):
    entries = np.arange(65536, dtype="<u2")[::-1].tobytes()
    values = np.array([[0, 1], [40_000, 65_535]], np.uint16)

    image = dicom.read(dicom_bytes(values, VOILUTSequence=[lut([0, 0, 16], entries)]), pseudonyms)

    assert image.pixels.tolist() == [[65_535, 65_534], [25_535, 0]]


@pytest.mark.parametrize("first", [-2, 65_534])
def test_the_first_value_of_signed_pixels_is_signed(dicom_bytes, pseudonyms, first):
    """65534 and -2 are the same 16 bits; which number they are follows from the pixels."""
    values = np.array([[-2, -1], [0, 1]], np.int16)

    image = dicom.read(dicom_bytes(values, VOILUTSequence=[lut([4, first, 16], [5, 6, 7, 8])]), pseudonyms)

    assert image.pixels.tolist() == [[5, 6], [7, 8]]


def test_big_endian_tables_are_swapped(dicom_dataset):
    dataset = dicom_dataset(RAMP, bits=2, VOILUTSequence=[lut([4, 0, 16], b"\0\x09\0\x07\0\x05\x01\0")])
    dataset.file_meta = Dataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

    assert picture(RAMP, dataset).pixels.tolist() == [[9, 7], [5, 256]]


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_shorter_than_it_says_is_refused(dicom_bytes, pseudonyms, name):
    with pytest.raises(UnreadableImage) as refusal:
        dicom.read(dicom_bytes(RAMP, bits=2, **{name: [lut([5, 0, 16], [1, 2])]}), pseudonyms)

    assert refusal.value.reason == "undecodable"


def test_both_tables_follow_each_other(dicom_bytes, pseudonyms):
    """Modality first: 0..3 become 10, 20, 30, 40; the VOI table maps 20 and up to 1, 2, 3."""
    tables = {
        "ModalityLUTSequence": [lut([4, 0, 16], [10, 20, 30, 40])],
        "VOILUTSequence": [lut([21, 20, 16], [1, *[0] * 9, 2, *[0] * 9, 3])],
    }

    assert dicom.read(dicom_bytes(RAMP, bits=2, **tables), pseudonyms).pixels.tolist() == [[1, 1], [2, 3]]


def test_the_first_of_several_tables_counts_and_comes_before_a_window(dicom_bytes, pseudonyms):
    tables = [lut([4, 0, 16], [1, 2, 3, 4]), lut([4, 0, 16], [9, 9, 9, 9])]

    image = dicom.read(dicom_bytes(RAMP, bits=2, VOILUTSequence=tables, WindowCenter=2, WindowWidth=2), pseudonyms)

    assert image.pixels.tolist() == [[1, 2], [3, 4]]
    assert image.window is None


def test_junk_and_overlays_in_unused_bits_are_dropped(dicom_dataset, pseudonyms):
    """12 of 16 bits; an overlay plane in bit 12, junk above it."""
    words = np.array([[0x1000, 0xF001], [0x2FFF, 0x0800]], np.uint16)

    dataset = dicom_dataset(words, bits=12)
    dataset.add_new((0x6000, 0x0100), "US", 16)
    dataset.add_new((0x6000, 0x0102), "US", 12)

    image = dicom.read(to_bytes(dataset), pseudonyms)

    assert image.pixels.tolist() == [[0, 1], [0xFFF, 0x800]]


def test_unused_bits_of_signed_values_do_not_change_their_sign(dicom_bytes, pseudonyms):
    """-1 and -2048 of 12 bits, once sign extended and once not."""
    words = np.array([[0x0FFF, 0xFFFF], [0x0800, 0xF800]], np.uint16).view(np.int16)

    assert dicom.read(dicom_bytes(words, bits=12), pseudonyms).pixels.tolist() == [[2047, 2047], [0, 0]]


@pytest.mark.parametrize(("kind", "expected"), [(np.uint16, [[0xABC, 1]]), (np.int16, [[0x2BC, 0x801]])])
def test_a_high_bit_elsewhere_moves_the_value(dicom_bytes, pseudonyms, kind, expected):
    """12 bits at the top of the word, an overlay in the lowest four; signed, 0xABC is -1348 and becomes 700."""
    words = np.array([[0xABCF, 0x001F]], np.uint16).view(kind)

    assert dicom.read(dicom_bytes(words, bits=12, HighBit=15), pseudonyms).pixels.tolist() == expected


@pytest.mark.parametrize("high", [5, 16, 99])
def test_a_high_bit_that_cannot_be_is_refused(dicom_bytes, pseudonyms, high):
    with pytest.raises(UnreadableImage) as refusal:
        dicom.read(dicom_bytes(RAMP, bits=12, HighBit=high), pseudonyms)

    assert refusal.value.reason == "undecodable"


@pytest.mark.parametrize(
    ("padding", "limit", "expected"),
    [(-5, None, [[0, 14], [15, 17]]), (-5, -3, [[0, 0], [15, 17]]), (-3, -5, [[0, 0], [15, 17]])],
)
def test_padding_may_be_signed_and_a_range(dicom_bytes, pseudonyms, padding, limit, expected):
    """5 bits, signed: -16 is black, so that -2, -1 and 1 lie at 14, 15 and 17."""
    values = np.array([[-5, -2 if limit is None else -3], [-1, 1]], np.int16)
    data = dicom_bytes(values, bits=5, PixelPaddingValue=padding, PixelPaddingRangeLimit=limit)

    assert dicom.read(data, pseudonyms).pixels.tolist() == expected


@pytest.mark.parametrize(
    ("said", "window"),
    [
        ({"WindowCenter": 100.5, "WindowWidth": 51}, (100.0, 50.0)),
        ({"WindowCenter": [100.5, 7], "WindowWidth": [51, 3]}, (100.0, 50.0)),
        ({"WindowCenter": 100, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"}, (100.0, 0.5)),
        ({"WindowCenter": 100, "WindowWidth": 1}, None),
        ({"WindowCenter": 100, "WindowWidth": -5}, None),
        ({"WindowCenter": 100, "WindowWidth": None}, None),
        ({"WindowCenter": "", "WindowWidth": ""}, None),
        ({"WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, None),
    ],
)
def test_a_window_is_stated_or_not(dicom_bytes, pseudonyms, said, window):
    image = dicom.read(dicom_bytes(RAMP, bits=8, **said), pseudonyms)

    assert image.window == window
    assert image.pixels.tolist() == RAMP.tolist()


def test_a_window_in_units_of_a_fractional_negative_rescale(dicom_bytes, pseudonyms):
    """Value = 10 - stored / 4: the window 4 to 6 is stored 16 to 24, and the picture is turned: 255 - 20 = 235."""
    image = dicom.read(
        dicom_bytes(
            np.array([[16, 20], [24, 255]], np.uint8),
            bits=8,
            RescaleSlope=-0.25,
            RescaleIntercept=10,
            WindowCenter=5,
            WindowWidth=2,
            VOILUTFunction="LINEAR_EXACT",
        ),
        pseudonyms,
    )

    assert image.pixels.tolist() == [[239, 235], [231, 0]]
    assert image.window == (235.0, 8.0)


def test_people_see_the_senders_window_and_else_the_picture():
    pixels = np.arange(1001, dtype=np.uint16).reshape(7, 143)

    assert black_and_white(pixels, (500.0, 200.0)) == (400.0, 600.0)
    assert black_and_white(pixels, (5000.0, 200.0)) == (5.0, 995.0)
    assert black_and_white(pixels) == (5.0, 995.0)
