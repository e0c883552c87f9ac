"""Noun: the errors worth looking at: missed fractures and false alarms, worst first, as pictures with the evidence."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from components.radiograph.labels import Box
from components.radiograph.pixels import black_and_white
from components.serving.bundle import Prediction

KEPT = 8
SIDE = 360
HEAT = np.array([0, 140, 255], np.float32)  # orange, as BGR; one hue whose strength is the message
BOX = (233, 180, 86)  # sky blue, as BGR: told apart from orange with any colour vision
FAINTEST, STRONGEST = 0.25, 0.55


@dataclass(frozen=True)
class Picture:
    """`jpeg`: the image with the heat map and the readers' boxes over it."""

    row: int
    probability: float
    jpeg: bytes


class Gallery:
    """Keeps the fractures that score lowest and the non-fractures that score highest, in one pass."""

    def __init__(self, labels: np.ndarray, kept: int = KEPT) -> None:
        self._labels = labels
        self._kept = kept
        self._heaps: dict[bool, list[tuple[float, int, Picture]]] = {True: [], False: []}

    def offer(
        self,
        row: int,
        pixels: np.ndarray,
        prediction: Prediction,
        boxes: Sequence[Box],
        window: tuple[float, float] | None = None,
    ) -> None:
        """Keep a picture of this image if it is among the worst of its class so far.

        Args:
            pixels: (rows, columns) uint8 or uint16.
            window: (center, width) that the sender meant it to be seen with.
        """
        fracture = bool(self._labels[row] == 1)
        badness = -prediction.probability if fracture else prediction.probability
        heap = self._heaps[fracture]
        if len(heap) == self._kept and (badness, -row) <= heap[0][:2]:
            return
        jpeg = draw(pixels, prediction.heat_map, boxes, window)
        item = (badness, -row, Picture(row, prediction.probability, jpeg))
        (heapq.heappush if len(heap) < self._kept else heapq.heapreplace)(heap, item)

    def misses(self, threshold: float) -> list[Picture]:
        """Fractures below `threshold`, the least probable first."""
        return [p for p in self._sorted(fracture=True) if p.probability < threshold]

    def false_alarms(self, threshold: float) -> list[Picture]:
        """Non-fractures at or above `threshold`, the most probable first."""
        return [p for p in self._sorted(fracture=False) if p.probability >= threshold]

    def _sorted(self, *, fracture: bool) -> list[Picture]:
        return [picture for _, _, picture in sorted(self._heaps[fracture], key=lambda item: item[:2], reverse=True)]


def draw(
    pixels: np.ndarray, heat_map: np.ndarray, boxes: Sequence[Box], window: tuple[float, float] | None = None
) -> bytes:
    """A JPEG of at most 360 pixels a side.

    Args:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2.
        heat_map: (rows, columns) in 0..1.
        window: (center, width) that the sender meant it to be seen with.
    """
    rows, columns = pixels.shape
    scale = SIDE / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    low, high = black_and_white(pixels, window)
    grey = (cv2.resize(pixels.astype(np.float32), size, interpolation=shrink) - low) * (255 / (high - low))
    heat = cv2.resize(heat_map.astype(np.float32), size, interpolation=shrink)
    weight = (np.clip((heat - FAINTEST) / (1 - FAINTEST), 0, 1) * STRONGEST)[..., None]
    mixed = np.ascontiguousarray((np.clip(grey, 0, 255)[..., None] * (1 - weight) + HEAT * weight).astype(np.uint8))
    for box in boxes:
        first = (round(box.x * scale), round(box.y * scale))
        last = (round((box.x + box.width) * scale), round((box.y + box.height) * scale))
        cv2.rectangle(mixed, first, last, BOX, 2, cv2.LINE_AA)
    return bytes(cv2.imencode(".jpg", mixed, [cv2.IMWRITE_JPEG_QUALITY, 88])[1])
