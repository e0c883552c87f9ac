"""Stored values of a DICOM object, by the fastest decoder that gives them exactly.

Chosen by `make bench-decode` for one frame of 2,560 x 2,048 (docs/data.md has its table). What pydicom does not bring
is added behind its own plugin interface. No decoder is asked for more pixels than the header claims, and none is
believed when its data ended early.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from components.errors import UnreadableImage
from components.radiograph.jpeg import END, ends_early

OURS = "imagecodecs"
JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)


def jpeg_ls(frame: bytes) -> np.ndarray:
    """Decode JPEG-LS; without an end marker CharLS counts zero bits behind the data for seconds, so it gets one."""
    return np.asarray(imagecodecs.jpegls_decode(frame if frame.rstrip(b"\0").endswith(END) else frame + END))


CODECS: dict[str, Callable[[bytes], np.ndarray]] = {
    **dict.fromkeys(JPEG, imagecodecs.jpeg8_decode),
    **dict.fromkeys(JPEG_LS, jpeg_ls),
}
CHOSEN = {
    **dict.fromkeys(CODECS, OURS),
    **dict.fromkeys((*JPEG_2000, RLELossless), "pylibjpeg"),
}
# pydicom asks a module that brings a plugin for this name: what each syntax needs.
DECODER_DEPENDENCIES = dict.fromkeys(CODECS, ("numpy", "imagecodecs"))
# ITU-T T.81 table B.1: markers of a frame header, whose size follows; 0xF7 is JPEG-LS's (T.87).
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_REGISTERING = threading.Lock()


def stored_values(dataset: Dataset) -> np.ndarray:
    """Decode the one frame of `dataset`.

    Returns:
        (rows, columns) of the smallest integer type that holds Bits Allocated, signed as the header says; bits outside
        Bits Stored (overlays, junk) are gone. Lossy overshoot is held at the ends of the range.

    Raises:
        UnreadableImage: reason truncated or undecodable.
        Exception: whatever a decoder says of a broken codestream.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    plugin = CHOSEN.get(syntax, "")
    if syntax.is_encapsulated:
        register()
        _claim(dataset, syntax)
    try:
        values, _ = get_decoder(syntax).as_array(dataset, decoding_plugin=plugin, raw=True, correct_unused_bits=False)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of pylibjpeg's RLE, in Rust: no Exception, and not importable
            raise
        raise UnreadableImage("its run lengths contradict each other", reason="undecodable") from None
    return _in_use(values, dataset, syntax)


def register() -> None:
    """Add our plugins to pydicom's decoders, once."""
    with _REGISTERING:
        for syntax in CODECS:
            decoder = get_decoder(syntax)
            if OURS not in decoder.available_plugins:
                decoder.add_plugin(OURS, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Whether we bring a plugin for a transfer syntax; pydicom asks."""
    return uid in CODECS


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame for pydicom.

    Raises:
        UnreadableImage: reason truncated: libjpeg would fill in what is missing.
    """
    codec = CODECS[runner.transfer_syntax]
    values = codec(src)
    scans = "cosine" if runner.transfer_syntax in LOSSY else "lossless"
    if runner.transfer_syntax in JPEG and ends_early(src, values, codec, scans=scans):
        raise UnreadableImage("its pixel data is truncated", reason="truncated")
    runner.set_option("bits_allocated", values.dtype.itemsize * 8)
    return values.tobytes()


def _claim(dataset: Dataset, syntax: UID) -> None:
    """A codestream must be of the header's size, or memory would follow what it claims.

    Raises:
        UnreadableImage: reason undecodable.
    """
    if syntax not in (*JPEG, *JPEG_LS, *JPEG_2000):
        return
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    try:
        found = _size_2000(frame) if syntax in JPEG_2000 else _size(frame)
    except (struct.error, IndexError, ValueError):
        raise UnreadableImage("its codestream has no frame header", reason="undecodable") from None
    if found != (dataset.Rows, dataset.Columns):
        raise UnreadableImage("its codestream is of another size than its header says", reason="undecodable")


def _size(frame: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG or JPEG-LS codestream."""
    place = 2
    while frame[place] == 0xFF:
        if frame[place + 1] in FRAMES:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns
        if frame[place + 1] == 0xFF:  # fill byte
            place += 1
            continue
        place += 2 + max(2, struct.unpack_from(">H", frame, place + 2)[0])
    raise ValueError


def _size_2000(frame: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG 2000 codestream, bare or in JP2 boxes (ITU-T T.800 A.5.1)."""
    place = frame.index(b"\xff\x4f\xff\x51")
    columns, rows, left, top = struct.unpack_from(">IIII", frame, place + 8)
    return rows - top, columns - left


def _in_use(values: np.ndarray, dataset: Dataset, syntax: UID) -> np.ndarray:
    """`values` without the bits that are not theirs (PS3.5 8.1.1), sign extended.

    Raises:
        UnreadableImage: reason undecodable: the header's bits contradict each other.
    """
    bits = int(dataset.BitsStored)
    high = int(dataset.get("HighBit", bits - 1))
    size = values.dtype.itemsize * 8
    if not 1 <= bits <= 16 or values.dtype.kind not in "iu" or values.ndim != 2:
        raise UnreadableImage("its pixels are not one grayscale frame of 1 to 16 bits", reason="undecodable")
    if syntax in LOSSY and (values.dtype.kind == "u" or syntax in JPEG_2000):  # other codecs know no sign: words
        low, ends = (-(2 ** (bits - 1)) if values.dtype.kind == "i" else 0), np.iinfo(values.dtype)
        return np.clip(values, max(low, ends.min), min(low + 2**bits - 1, ends.max))
    # A codestream holds samples, not words: only native and RLE data have a high bit of their own.
    top = size - 1 - high if not syntax.is_encapsulated or syntax == RLELossless else size - bits
    if top < 0 or high + 1 < bits:
        raise UnreadableImage("its high bit contradicts its bits stored", reason="undecodable")
    if size <= bits:
        return values
    if values.dtype.kind == "u":
        return np.bitwise_and(np.right_shift(values, size - bits - top) if top < size - bits else values, 2**bits - 1)
    return np.right_shift(np.left_shift(values, top) if top else values, size - bits)
