"""Where letters may stand in a picture: small even specks of one contrast, three or more in a line.

Cheap enough for every image (a few ms), so that reading text is paid for only where there may be some. It knows no
letters: a row of holes in a bone plate is a candidate as well, and it is for the reader of text to say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

PITCH = 1280  # pixels of the long side at which the search begins
LEVELS = 3  # and how many times it is halved: letters from 5 to about 100 pixels at that pitch
STROKE = 7  # side of the square, in pixels of a level, that a stroke is thinner than
CONTRAST = 32  # of 255: a stroke differs from what is around it by more
PEAK = 52  # and at its strongest by this: machines draw in white or black, bone and noise do not
SIDES = (5, 30)  # shortest and longest letter, pixels of a level
MOST = 200  # specks of a level that are compared; more are texture, and the most even ones are taken


@dataclass(frozen=True)
class Area:
    """A rectangle of pixels of the image: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    def grown(self, by: int, shape: tuple[int, ...]) -> Area:
        """With a margin, inside an image of `shape` (rows, columns)."""
        left, top = max(0, self.x - by), max(0, self.y - by)
        right, bottom = min(shape[1], self.x + self.width + by), min(shape[0], self.y + self.height + by)
        return Area(left, top, max(0, right - left), max(0, bottom - top))

    def meets(self, other: Area) -> bool:
        """Whether the two share a pixel."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def around(self, other: Area) -> Area:
        """The smallest area that holds both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Area(x, y, right - x, bottom - y)

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class Row:
    """A line of specks: where, and the size of one of them in pixels of the image."""

    area: Area
    glyph: float


def rows(pixels: np.ndarray) -> list[Row]:
    """Lines of specks that may be letters, upright or turned by a quarter.

    Args:
        pixels: (rows, columns) uint8 or uint16.
    """
    step = max(1, round(max(pixels.shape) / PITCH))
    level = _eight(np.ascontiguousarray(pixels[::step, ::step]))
    found: list[Row] = []
    for number in range(LEVELS):
        if min(level.shape) < 4 * SIDES[0]:
            break
        scale = step * 2**number
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
            found += [_scaled(box, scale, pixels.shape) for box in _level(level, operation)]
        level = cv2.resize(level, (level.shape[1] // 2, level.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return merged(found)


def merged(found: list[Row]) -> list[Row]:
    """Rows that touch as one, until none do."""
    done: list[Row] = []
    for row in found:
        while twin := next((other for other in done if other.area.meets(row.area)), None):
            done.remove(twin)
            row = Row(row.area.around(twin.area), min(row.glyph, twin.glyph))
        done.append(row)
    return done


def _eight(pixels: np.ndarray) -> np.ndarray:
    """uint8, its range stretched to the picture's."""
    low, high, _, _ = cv2.minMaxLoc(pixels)
    factor = 255.0 / max(1.0, high - low)
    return cv2.convertScaleAbs(pixels, alpha=factor, beta=-low * factor)


def _level(level: np.ndarray, operation: int) -> list[np.ndarray]:
    """(left, top, right, bottom, side) of every line of specks of one polarity."""
    relief = cv2.morphologyEx(level, operation, np.ones((STROKE, STROKE), np.uint8))
    mask = cv2.threshold(relief, CONTRAST, 255, cv2.THRESH_BINARY)[1]
    # There are no more specks than pixels in them, and numbers of 16 bits are three times as fast.
    kind = cv2.CV_16U if cv2.countNonZero(mask) < 2**16 else cv2.CV_32S
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=kind)
    x, y, width, height, area = stats.T.astype(np.int64)
    side = np.maximum(width, height)
    fill = area / (width * height)
    letter = (side >= SIDES[0]) & (side <= SIDES[1]) & (area >= 5) & (fill > 0.12)
    letter[0] = False
    kept = np.flatnonzero(letter)
    if len(kept) < 3:
        return []
    strong = np.bincount(labels.ravel()[np.flatnonzero(relief >= PEAK)], minlength=count)[kept]
    kept = kept[np.argsort(-strong)[: int((strong > 0).sum())][:MOST]]
    boxes = np.stack([x[kept], y[kept], x[kept] + width[kept], y[kept] + height[kept]], axis=1)
    return _lines(boxes) if len(kept) >= 3 else []


def _lines(boxes: np.ndarray) -> list[np.ndarray]:
    """Boxes of three or more specks of like size that follow each other, along x or along y."""
    left, top, right, bottom = boxes.T.astype(np.float32)
    tall, wide = bottom - top, right - left
    found = []
    for start, end, across0, across1, size in ((left, right, top, bottom, tall), (top, bottom, left, right, wide)):
        middle = (across0 + across1) / 2
        like = np.maximum(size[:, None], size) < 1.7 * np.minimum(size[:, None], size) + 2
        reach = 1.3 * np.maximum(size[:, None], size) + 2
        gap = np.maximum(start[:, None], start) - np.minimum(end[:, None], end)
        level = np.abs(middle[:, None] - middle) < 0.5 * np.maximum(size[:, None], size)
        near = like & level & (gap < reach) & (gap > -0.5 * np.minimum(size[:, None], size))
        for group in _groups(near):
            if len(group) >= 3:
                part = boxes[group]
                found.append(
                    np.array([*part[:, :2].min(axis=0), *part[:, 2:].max(axis=0), float(np.median(size[group]))])
                )
    return found


def _groups(near: np.ndarray) -> list[np.ndarray]:
    """Connected sets of a symmetric (n, n) relation."""
    left = set(range(len(near)))
    groups = []
    while left:
        todo, group = [left.pop()], []
        while todo:
            one = todo.pop()
            group.append(one)
            new = left & set(np.flatnonzero(near[one]).tolist())
            left -= new
            todo += new
        groups.append(np.array(group))
    return groups


def _scaled(box: np.ndarray, scale: int, shape: tuple[int, ...]) -> Row:
    left, top, right, bottom, side = (float(value) * scale for value in box)
    area = Area(int(left), int(top), int(right - left), int(bottom - top)).grown(0, shape)
    return Row(area, side)
