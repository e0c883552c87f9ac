"""Noun: what a person looks at: an 8-bit rendering of a radiograph, and the heat map drawn over it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from components.radiograph.pixels import black_and_white

LONGEST_SIDE = 2048
WARM = np.array([255, 140, 0], dtype=np.float32)  # one hue: its strength is the message, and it never hides bone
FAINTEST = 0.25
STRONGEST = 0.55
TILE = 480
BAND = 28


def display(pixels: np.ndarray, window: tuple[float, float] | None = None) -> np.ndarray:
    """Window a radiograph for a screen.

    Args:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2.
        window: (center, width) that the sender meant it to be seen with; see `Radiograph.window`.

    Returns:
        (rows, columns) uint8, in that window, else the central 99% of intensities; at most 2048 pixels a side.
    """
    low, high = black_and_white(pixels, window)
    grey = np.clip((pixels.astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return _fit(grey)


def paint(grey: np.ndarray, heat_map: np.ndarray) -> np.ndarray:
    """Lay the heat map over a rendering, with a line around its hottest part.

    Args:
        grey: (rows, columns) uint8, as `display` returns it.
        heat_map: float32 in [0, 1], same aspect; any size.

    Returns:
        (rows, columns, 3) uint8 RGB.
    """
    rows, columns = grey.shape
    heat = cv2.resize(heat_map.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR)
    weight = (np.clip((heat - FAINTEST) / (1 - FAINTEST), 0, 1) * STRONGEST)[..., None]
    mixed = np.ascontiguousarray((grey[..., None] * (1 - weight) + WARM * weight).astype(np.uint8))
    edges, _ = cv2.findContours((heat >= 0.75).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(max(rows, columns) / 400))
    return np.asarray(cv2.drawContours(mixed, edges, -1, (255, 190, 60), thickness, cv2.LINE_AA))


def side_by_side(tiles: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Renderings of one image in a row, each below its words.

    Args:
        tiles: (words, (rows, columns) uint8 grey or (rows, columns, 3) uint8 RGB), all of one shape but for colour.

    Returns:
        (BAND + TILE or less, columns, 3) uint8 RGB; no tile is larger than TILE pixels a side.
    """
    rows, columns = tiles[0][1].shape[:2]
    scale = TILE / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    row = []
    for words, picture in tiles:
        colour = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
        small = cv2.resize(colour, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        band = np.zeros((BAND, size[0], 3), np.uint8)
        width = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 1)[0][0]
        letters = min(0.55, 0.55 * 0.94 * size[0] / width)
        cv2.putText(
            band, words, (6, BAND - 9), cv2.FONT_HERSHEY_SIMPLEX, letters, (255, 255, 255), lineType=cv2.LINE_AA
        )
        row.append(np.concatenate([band, small]))
    return np.concatenate(row, axis=1)


def png(image: np.ndarray) -> bytes:
    """(rows, columns) uint8 grey or (rows, columns, 3) uint8 RGB as a PNG file."""
    ordered = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", ordered)[1])


def _fit(grey: np.ndarray) -> np.ndarray:
    scale = LONGEST_SIDE / max(grey.shape)
    if scale >= 1:
        return grey
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
