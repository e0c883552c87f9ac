"""Pixels: stored without loss, and transformed for the model in exactly one way."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from components.errors import UnreadableImage

VERSION = 1
# Percentiles are taken over at most this many pixels: exact enough, and the same cost at any resolution.
SAMPLE = 65_536


def encode(pixels: np.ndarray) -> bytes:
    """Compress (rows, columns) uint8 or uint16 pixels to a PNG of the same depth, without loss."""
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(f"expected 2-D uint8 or uint16 pixels, found {pixels.ndim}-D {pixels.dtype}")
    done, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise UnreadableImage(f"{pixels.shape[0]} x {pixels.shape[1]} pixels cannot be encoded as PNG")
    return bytes(buffer.tobytes())


def decode(data: bytes) -> np.ndarray:
    """The (rows, columns) uint8 or uint16 pixels that `encode` compressed.

    Raises:
        UnreadableImage: `data` is no grayscale PNG.
    """
    buffer = np.frombuffer(data, np.uint8)
    pixels = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if buffer.size else None
    if pixels is None or pixels.ndim != 2:
        raise UnreadableImage("stored pixels are no grayscale PNG; the shard is damaged, run `dvc checkout`")
    return np.asarray(pixels)


def black_and_white(pixels: np.ndarray, window: tuple[float, float] | None = None) -> tuple[float, float]:
    """The values shown as black and as white: the sender's window, or the central 99% of the picture.

    Args:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2.
        window: (center, width) in units of `pixels`; one that shows nothing but one gray is set aside.

    Returns:
        (low, high), high at least one above low.
    """
    if window:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
        if low < pixels.max() and high > pixels.min():
            return low, max(high, low + 1.0)
    low, high = map(float, np.percentile(pixels, (0.5, 99.5)))
    return low, max(high, low + 1.0)


@dataclass(frozen=True)
class Transform:
    """From an image to the square the model sees. Its fields travel in the bundle; `golden` proves the code.

    Attributes:
        size: side of the square, pixels.
        low: percentile of the foreground that becomes black.
        high: percentile of the foreground that becomes white.
        version: of this code; a bundle made by another version is refused.
    """

    size: int
    low: float = 0.5
    high: float = 99.5
    version: int = VERSION

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Window to percentiles of the foreground, shrink by area to fit, pad with black.

        Args:
            pixels: (rows, columns) uint8 or uint16, MONOCHROME2.

        Returns:
            (size, size) uint8; the image is centred.
        """
        rows, columns = pixels.shape
        height, width = self._fit(rows, columns)
        interpolation = cv2.INTER_AREA if max(rows, columns) >= self.size else cv2.INTER_LINEAR
        small = cv2.resize(pixels.astype(np.float32), (width, height), interpolation=interpolation)
        black, white = self._window(pixels)
        scaled = np.clip((small - black) * (255.0 / (white - black)), 0, 255)
        square = np.zeros((self.size, self.size), np.uint8)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        square[top : top + height, left : left + width] = np.rint(scaled).astype(np.uint8)
        return square

    def place(self, heat_map: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Lay a map of the square, any resolution, back over an image.

        Args:
            heat_map: (h, w) float over the whole padded square.

        Returns:
            (rows, columns) float32.
        """
        height, width = self._fit(rows, columns)
        full = cv2.resize(heat_map.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return cv2.resize(
            full[top : top + height, left : left + width], (columns, rows), interpolation=cv2.INTER_LINEAR
        )

    def move(self, left: float, top: float, width: float, height: float, rows: int, columns: int) -> np.ndarray:
        """(4,) float32 left, top, right, bottom in the square of a box in pixels of a (rows, columns) image."""
        high, wide = self._fit(rows, columns)
        across, down = wide / columns, high / rows
        x, y = (self.size - wide) // 2 + left * across, (self.size - high) // 2 + top * down
        return np.array([x, y, x + width * across, y + height * down], np.float32)

    def golden(self) -> str:
        """Hex SHA-256 of this transform's output on a fixed picture: equal digests transform alike."""
        rows, columns = np.mgrid[0:211, 0:157].astype(np.float64)
        picture = 2000 + 900 * np.sin(rows / 17) * np.cos(columns / 11) + 3 * rows + columns
        picture[:9], picture[40:, :1] = 0, 4095
        return hashlib.sha256(self.apply(picture.astype(np.uint16)).tobytes()).hexdigest()

    def _fit(self, rows: int, columns: int) -> tuple[int, int]:
        scale = self.size / max(rows, columns)
        return max(1, round(rows * scale)), max(1, round(columns * scale))

    def _window(self, pixels: np.ndarray) -> tuple[float, float]:
        """Black and white points over the foreground: everything but the picture's own minimum (air, collimation)."""
        step = max(1, int(np.sqrt(pixels.size / SAMPLE)))
        sample = pixels[::step, ::step]
        foreground = sample[sample > sample.min()]
        if foreground.size == 0:
            return float(sample.min()), float(sample.min()) + 1.0
        black, white = np.percentile(foreground, (self.low, self.high))
        return float(black), max(float(white), float(black) + 1.0)
