"""Pictures in: exact gray pixels the right way up, or a refusal; nothing is filled in."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.errors import UnreadableImage
from components.radiograph.raster import Raster, format_of, geometry, read_raster, turn_box

EIGHT = np.array([[0, 1, 2], [127, 128, 255]], np.uint8)
SIXTEEN = np.array([[0, 1, 256], [4095, 32768, 65535]], np.uint16)
NOISE = np.random.default_rng(3).integers(0, 256, (64, 48)).astype(np.uint8)


def saved(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, *, order: str = "<", photometric: int = 1, bits: int = 16, **tags: int) -> bytes:
    """An uncompressed TIFF of one strip, byte by byte after the specification of TIFF 6.0."""
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    entries = [
        (256, pixels.shape[1]),
        (257, pixels.shape[0]),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, pixels.shape[0]),
        (279, len(raw)),
        *((int(name[1:]), value) for name, value in tags.items()),
    ]
    directory = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(entries))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(raw))
    return head + raw + struct.pack(f"{order}H", len(entries)) + directory + b"\0\0\0\0"


def read(data: bytes) -> Raster:
    return read_raster(data, max_megapixels=100)


def refused(data: bytes, megapixels: int = 100) -> str:
    with pytest.raises(UnreadableImage) as refusal:
        read_raster(data, max_megapixels=megapixels)
    return refusal.value.reason


@pytest.mark.parametrize(
    ("data", "expected", "bits"),
    [
        (saved(EIGHT, "PNG"), EIGHT, 8),
        (saved(SIXTEEN, "PNG"), SIXTEEN, 16),
        (saved(EIGHT, "TIFF"), EIGHT, 8),
        (saved(SIXTEEN, "TIFF"), SIXTEEN, 16),
        (saved(EIGHT, "TIFF", compression="tiff_lzw"), EIGHT, 8),
        (saved(SIXTEEN, "TIFF", compression="tiff_lzw"), SIXTEEN, 16),
        (saved(SIXTEEN, "TIFF", compression="tiff_adobe_deflate"), SIXTEEN, 16),
        (saved(EIGHT, "TIFF", compression="packbits"), EIGHT, 8),
        (tiff(SIXTEEN), SIXTEEN, 16),
        (tiff(SIXTEEN, order=">"), SIXTEEN, 16),
        (tiff(EIGHT, bits=8), EIGHT, 8),
        (tiff(EIGHT, bits=8, photometric=0), 255 - EIGHT, 8),
        (tiff(SIXTEEN, photometric=0), 65535 - SIXTEEN, 16),
        (saved(EIGHT, "TIFF", tiffinfo={262: 0}, compression="tiff_lzw"), EIGHT, 8),
        (saved(np.stack([EIGHT] * 3, axis=-1), "PNG"), EIGHT, 8),
        (saved(np.dstack([EIGHT, np.full_like(EIGHT, 255)]), "PNG"), EIGHT, 8),
    ],
)
def test_pixels_come_out_exactly(data, expected, bits):
    raster = read(data)

    assert raster.pixels.dtype == expected.dtype
    assert raster.pixels.tolist() == expected.tolist()
    assert (raster.bits_stored, raster.stored, raster.orientation) == (bits, expected.shape, 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_comes_out_as_its_standard_says(options):
    """Flat blocks survive the cosine transform exactly."""
    flat = np.kron(np.array([[0, 40], [200, 255]], np.uint8), np.ones((8, 8), np.uint8))
    gray, colour = saved(flat, "JPEG", **options), saved(np.stack([flat] * 3, axis=-1), "JPEG", **options)

    assert read(gray).pixels[::8, ::8].tolist() == [[0, 40], [200, 255]]
    assert read(colour).pixels[::8, ::8].tolist() == [[0, 40], [200, 255]]


# The letter F, and how each orientation stores it (EXIF 2.32, 4.6.4 A: row 0 and column 0 lie at ...).
F = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.uint8) * 255
STORED = {
    1: F,
    2: F[:, ::-1],
    3: F[::-1, ::-1],
    4: F[::-1],
    5: F.T,
    6: np.rot90(F),
    7: F[::-1, ::-1].T,
    8: np.rot90(F, -1),
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "TIFF by hand", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_stands_upright(form, orientation):
    scale = np.ones((8, 8) if form == "JPEG" else (1, 1), np.uint8)
    stored = np.kron(STORED[orientation], scale)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = tiff(stored, bits=8, _274=orientation) if "hand" in form else saved(stored, form, exif=exif)

    raster = read(data)

    assert raster.pixels[:: len(scale), :: len(scale)].tolist() == F.tolist()
    assert (raster.stored, raster.orientation) == (stored.shape, orientation)
    assert geometry(data) == (stored.shape, orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation):
    """The box around one marked corner of the stored picture surrounds it on the turned one."""
    stored = np.zeros((5, 7), np.uint8)
    stored[1:3, 2:6] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(saved(stored, "PNG", exif=exif)).pixels

    x, y, width, height = map(int, turn_box((2, 1, 4, 2), stored=(5, 7), orientation=orientation))

    assert (pixels[y : y + height, x : x + width] == 200).all()
    assert (width * height, int((pixels == 200).sum())) == (8, 8)


def test_a_box_lands_where_the_standard_says():
    """Orientation 6, by hand: the stored left edge is the turned top, the stored bottom is the turned left."""
    assert turn_box((10, 20, 30, 5), stored=(100, 200), orientation=6) == (75, 10, 5, 30)


COLOUR = np.zeros((40, 40, 3), np.uint8)
COLOUR[3, 4] = (200, 30, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_an_image"),
        (b"GIF89a" + bytes(50), "not_an_image"),
        (b"\xff\xd8\xff", "undecodable"),
        (saved(COLOUR, "PNG"), "photometric"),
        (saved(np.dstack([EIGHT, EIGHT]), "PNG"), "photometric"),
        (saved(EIGHT, "PNG", transparency=0), "photometric"),
        (tiff(SIXTEEN, _339=2), "photometric"),
        (tiff(SIXTEEN.astype(np.uint32), bits=32), "photometric"),
        (saved(EIGHT, "TIFF", save_all=True, append_images=[Image.fromarray(EIGHT)]), "multi_frame"),
        (saved(EIGHT, "PNG", save_all=True, append_images=[Image.fromarray(255 - EIGHT)]), "multi_frame"),
        (saved(EIGHT > 100, "PNG"), "photometric"),
    ],
)
def test_what_is_refused_says_why(data, reason):
    assert refused(data) == reason


def test_a_gray_palette_is_gray_and_a_coloured_one_is_refused():
    gray, coloured = Image.fromarray(EIGHT).convert("P"), Image.fromarray(COLOUR).convert("P")
    files = []
    for image in (gray, coloured):
        image.save(buffer := io.BytesIO(), "PNG")
        files.append(buffer.getvalue())

    assert read(files[0]).pixels.tolist() == EIGHT.tolist()
    assert refused(files[1]) == "photometric"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_colour_picture_is_told_from_a_tint(form):
    """Both are refused: one is no radiograph, the other can be exported again."""
    bands = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(bands[:, None], bands[None, :], np.uint8(90)), axis=-1)
    tint = np.stack([picture[..., 0], picture[..., 0] // 2, picture[..., 0] // 3], axis=-1)

    assert refused(saved(picture, form)) == "colour"
    assert refused(saved(tint, form)) == "photometric"


def test_sixteen_bits_of_colour_are_not_dropped_to_eight():
    import cv2

    done, buffer = cv2.imencode(".png", np.stack([SIXTEEN] * 3, axis=-1))

    assert done
    assert refused(buffer.tobytes()) == "photometric"


def test_a_small_coloured_mark_in_a_jpeg_is_seen():
    picture = np.stack([NOISE] * 3, axis=-1)
    picture[20:28, 20:28] = (255, 0, 0)

    assert refused(saved(picture, "JPEG", quality=95)) == "photometric"


WHOLE = {
    "PNG": saved(NOISE, "PNG"),
    "JPEG": saved(NOISE, "JPEG"),
    "progressive": saved(NOISE, "JPEG", progressive=True),
    "TIFF": tiff(NOISE, bits=8),
    "LZW": saved(NOISE, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_cut_file_is_refused_and_never_filled_in(name, kept):
    data = WHOLE[name][: int(len(WHOLE[name]) * kept)]

    assert refused(data) in (("truncated", "undecodable") if name in ("TIFF", "LZW") else ("truncated",))


@pytest.mark.parametrize("name", ["JPEG", "progressive"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_cut_jpeg_that_was_closed_again_is_refused(name, kept):
    """libjpeg fills it with gray and only warns."""
    assert refused(WHOLE[name][: int(len(WHOLE[name]) * kept)] + b"\xff\xd9") == "truncated"


def test_a_jpeg_with_a_flat_corner_is_whole():
    flat = NOISE.copy()
    flat[-16:] = 128

    assert read(saved(flat, "JPEG")).pixels[-1, -1] == 128


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_001, 10_000)])
def test_a_huge_claim_is_refused_from_the_header(size):
    assert refused(png_claiming(*size)) == "too_large"


def test_a_huge_jpeg_or_tiff_is_refused_from_the_header():
    jpeg = bytearray(WHOLE["JPEG"])
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 60_000, 60_000)

    assert refused(bytes(jpeg)) == "too_large"
    assert refused(WHOLE["TIFF"], megapixels=0) == "too_large"


def test_a_name_or_a_format_that_is_not_known_is_nobodys():
    assert [format_of(data) for data in (WHOLE["PNG"], WHOLE["JPEG"], WHOLE["LZW"], b"BM", b"")] == [
        "PNG",
        "JPEG",
        "TIFF",
        None,
        None,
    ]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 4000), st.integers(0, 255), st.floats(0, 1))
def test_damage_is_an_error_of_ours_or_nothing(name, place, value, kept):
    data = bytearray(WHOLE[name])
    data[place % len(data)] = value
    try:
        raster = read_raster(bytes(data[: int(len(data) * kept)]), max_megapixels=1)
    except UnreadableImage:
        return
    assert raster.pixels.ndim == 2
