"""Pictures in: bytes of a PNG, JPEG or TIFF become grayscale pixels the right way up, or an error that says why not.

What the bytes hold decides, not a name. Sizes are read from headers before anything is decoded; nothing that is
missing from a file is ever filled in.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from components.errors import UnreadableImage
from components.radiograph.colour import in_colour
from components.radiograph.jpeg import ends_early

MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
ORIENTATION = 0x0112  # EXIF, and TIFF 6.0
WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 256, 257, 258, 262, 339  # TIFF 6.0
MIN_IS_WHITE, UNSIGNED = 0, 1
GRAY = {"L": 8, "I;16": 16, "I;16L": 16, "I;16B": 16}
# Channels of a gray picture differ by rounding and requantisation only; a coloured mark differs by far more.
SAME = 8


@dataclass(frozen=True)
class Raster:
    """A decoded picture.

    Attributes:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2, turned the way the file says.
        bits_stored: depth of their full range.
        stored: (rows, columns) before turning.
        orientation: 1 to 8, as EXIF numbers them; see `turn_box`.
    """

    pixels: np.ndarray
    bits_stored: int
    stored: tuple[int, int]
    orientation: int


def format_of(data: bytes) -> str | None:
    """PNG, JPEG or TIFF by the first bytes; None for anything else."""
    return next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)


def read_raster(data: bytes, *, max_megapixels: int) -> Raster:
    """Decode one picture.

    Args:
        data: the file's bytes.
        max_megapixels: larger pictures are refused before they are decoded.

    Raises:
        UnreadableImage: with `reason` one of not_an_image, too_large, multi_frame, colour (no radiograph),
            photometric (a tint, a mark in colour, transparency), truncated, undecodable.
    """
    if not (form := format_of(data)):
        raise UnreadableImage("no PNG, JPEG or TIFF", reason="not_an_image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's own size limit; ours follows
            image = _open(io.BytesIO(data))
            stored = _size(image)
            if stored[0] * stored[1] > max_megapixels * 1_000_000:
                raise UnreadableImage(
                    f"{stored[0]} x {stored[1]} pixels, more than {max_megapixels} megapixels", reason="too_large"
                )
            if getattr(image, "n_frames", 1) != 1:
                raise UnreadableImage("several pictures in one file, expected 1", reason="multi_frame")
            tags, orientation = dict(getattr(image, "tag_v2", {})), _orientation(image)  # turning drops them
            _whole(image, data, form)
            pixels, bits = _gray(image, data, form, tags)
    except (UnreadableImage, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {max_megapixels} megapixels", reason="too_large") from None
    except Exception as error:  # noqa: BLE001  (a hostile file may raise anything; the text may quote it)
        reason = "truncated" if "truncated" in str(error).lower() else "undecodable"
        raise UnreadableImage(f"the {form} does not decode ({type(error).__name__})", reason=reason) from None
    return Raster(pixels, bits, stored, orientation)


def geometry(source: Path | bytes) -> tuple[tuple[int, int], int] | None:
    """((rows, columns) as stored, orientation 1 to 8); None when they cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                return _size(image), _orientation(image)
    except Exception:  # noqa: BLE001  (as in `read_raster`, which says why)
        return None


def turn_box(
    box: tuple[float, float, float, float], *, stored: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """A box of the stored picture, as it lies on the turned one.

    Args:
        box: (x, y, width, height) in pixels, x and y of the top-left corner.
        stored: (rows, columns) before turning.
        orientation: 1 to 8, as EXIF numbers them.
    """
    x, y, width, height = box
    far_x, far_y = stored[1] - x - width, stored[0] - y - height
    turned = {
        1: (x, y),
        2: (far_x, y),
        3: (far_x, far_y),
        4: (x, far_y),
        5: (y, x),
        6: (far_y, x),
        7: (far_y, far_x),
        8: (y, far_x),
    }
    return (*turned[orientation], *((height, width) if orientation >= 5 else (width, height)))


def _open(source: IO[bytes] | Path) -> Image.Image:
    return Image.open(source, formats=sorted(set(MAGIC.values())))


def _size(image: Image.Image) -> tuple[int, int]:
    """(rows, columns) as stored."""
    tags = getattr(image, "tag_v2", None)  # PIL gives a TIFF's size as turned
    return (int(tags[HEIGHT]), int(tags[WIDTH])) if tags else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    """1 to 8; what is none of them counts as upright. Of a PNG, PIL decodes the pixels first: check its size before."""
    orientation = image.getexif().get(ORIENTATION, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _whole(image: Image.Image, data: bytes, form: str) -> None:
    """Decode `image`, strictly: OpenCV fills what is missing with gray and says nothing.

    Raises:
        UnreadableImage: reason truncated: the JPEG says that it ends before its pixels do.
        Exception: whatever PIL says.
    """
    if form == "PNG":
        _open(io.BytesIO(data)).verify()  # checksums of every chunk, to the last one
    image.load()
    if form != "JPEG":
        return

    def again(other: bytes) -> np.ndarray:
        return np.asarray(_open(io.BytesIO(other)))

    scans = "progressive" if image.info.get("progressive") else "cosine"
    if ends_early(data, np.asarray(image), again, scans=scans):
        raise UnreadableImage("the JPEG ends before its pixels do", reason="truncated")


def _gray(image: Image.Image, data: bytes, form: str, tags: dict[int, object]) -> tuple[np.ndarray, int]:
    """((rows, columns) uint8 or uint16 in MONOCHROME2 and turned, bits of their full range).

    Raises:
        UnreadableImage: reason photometric or colour.
    """
    if form == "PNG" and data[24] == 16 and image.mode not in GRAY:
        raise UnreadableImage("16-bit colour, expected gray", reason="photometric")  # PIL would drop 8 bits
    if "transparency" in image.info:
        raise UnreadableImage("a transparent colour, expected none", reason="photometric")
    turned = ImageOps.exif_transpose(image)
    if turned.mode in GRAY:
        bits = _depth(tags) if form == "TIFF" else GRAY[turned.mode]
        pixels = np.array(turned).astype(np.uint8 if GRAY[turned.mode] == 8 else np.uint16)
        if bits > 8 and tags.get(PHOTOMETRIC) == MIN_IS_WHITE:  # of 8 bits, PIL has turned it itself
            pixels = (2**bits - 1) - pixels
        return pixels, bits
    if turned.mode in ("LA", "RGBA"):
        if np.asarray(turned.getchannel("A")).min() < 255:
            raise UnreadableImage("transparent pixels, expected none", reason="photometric")
    elif turned.mode not in ("P", "RGB"):
        raise UnreadableImage(f"colour mode {turned.mode}, expected gray", reason="photometric")
    channels = np.asarray(turned.convert("RGB"))
    if np.ptp(channels, axis=-1).max() > SAME:
        if in_colour(channels):
            raise UnreadableImage("a picture in colour, expected a radiograph", reason="colour")
        raise UnreadableImage("a mark in colour or a tint, expected gray", reason="photometric")
    return np.array(turned.convert("L")), 8


def _depth(tags: dict[int, object]) -> int:
    """BitsPerSample of a gray TIFF.

    Raises:
        UnreadableImage: reason photometric: its samples are signed or real.
    """
    first = [value[0] if isinstance(value := tags.get(tag), tuple) else value for tag in (BITS, SAMPLE_FORMAT)]
    bits, sample = first[0] or 1, first[1] or UNSIGNED
    if sample != UNSIGNED or not isinstance(bits, int) or not 8 <= bits <= 16:
        raise UnreadableImage("samples of the TIFF are not whole numbers of 8 to 16 bits", reason="photometric")
    return bits
