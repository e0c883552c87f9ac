"""Batches for training. Augmentation exists here and nowhere else: never before the split, never in the graph.

Every batch is a function of (seed, epoch, number of the batch) alone, so a training that was killed continues with
the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from components.model.examples import Examples
from components.params import Augment

AHEAD = 4  # batches drawn while the network computes
BACKGROUND = 0.3  # a cell without a fracture beside one with


def augment(
    square: np.ndarray, boxes: np.ndarray, params: Augment, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One plausible other exposure of the same anatomy.

    Args:
        square: (size, size) uint8.
        boxes: (k, 4) left, top, right, bottom in the square.

    Returns:
        (size, size) float32 in 0..255: turned, shifted, scaled, mirrored, brightened, with noise, each at most as
        much as `params` says; what comes in from outside is black, like the letterbox. And (k, 4) the boxes where
        they are now: moved and scaled, still upright, so that a turned image does not make them grow.
    """
    size = square.shape[0]
    gain, gamma = np.exp(random.uniform(-params.exposure, params.exposure, 2))
    table = np.clip((np.arange(256) / 255) ** gamma * gain * 255, 0, 255).astype(np.float32)
    angle = random.uniform(-params.rotate_degrees, params.rotate_degrees)
    scale = 1 + random.uniform(-params.scale, params.scale)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, scale)
    matrix[:, 2] += random.uniform(-params.translate, params.translate, 2) * size
    if params.flip and random.random() < 0.5:
        matrix[0] = -matrix[0]
        matrix[0, 2] += size - 1
    moved = cv2.warpAffine(cv2.LUT(square, table), matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)
    sigma = params.noise * 255 * random.random()
    if sigma > 0:
        moved = moved + sigma * random.standard_normal(moved.shape, np.float32)
    # A box's edge at x is half a pixel before the middle of pixel x, which is what the matrix moves.
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    middles, halves = middles @ matrix[:, :2].T + matrix[:, 2] + 0.5, (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
    return np.clip(moved, 0, 255).astype(np.float32, copy=False), np.hstack([middles - halves, middles + halves])


def cells(boxes: np.ndarray, side: int, size: int) -> np.ndarray:
    """(side, side) bool: the cells of a map over a square of `size` pixels that (k, 4) boxes touch."""
    touched = np.zeros((side, side), dtype=bool)
    for left, top, right, bottom in np.clip(boxes * side / size, 0, side):
        touched[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return touched


def balance(labels: np.ndarray) -> np.ndarray:
    """(n,) weights of mean 1 under which fractures and non-fractures weigh the same."""
    positive = labels == 1
    share = positive.mean()
    return np.where(positive, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        images: (b, size, size, 1) float32.
        labels: (b, 1) float32, with (b,) `weights`.
        cells: (b, side, side, 1) float32: 1 where a box touches a cell, with (b, side, side) `cell_weights`; they are 0
            all over an image whose fracture nobody has located, and add up so that a cell with a fracture weighs
            what a label does, and one without BACKGROUND of it.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    cells: np.ndarray
    cell_weights: np.ndarray


def batches(
    examples: Examples, params: Augment, *, side: int, batch_size: int, seed: int, epoch: int
) -> Iterator[Batch]:
    """One epoch in a random order.

    All batches are full (the images left over by one epoch's order are met in another), unless there are fewer
    images than one batch.

    Args:
        side: of the map of cells.
    """
    labels = examples.labels.astype(np.float32)
    weights, boxes = balance(labels), examples.boxes
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    count = max(1, len(order) // batch_size)
    size, nowhere = examples.transform.size, np.empty((0, 4), np.float32)

    def draw(number: int) -> Batch:
        rows = order[number * batch_size : (number + 1) * batch_size]
        random = np.random.default_rng([seed, epoch, number])
        known = [boxes[row] for row in rows]
        drawn = [
            augment(examples.pixels[row], nowhere if where is None else where, params, random)
            for row, where in zip(rows, known, strict=True)
        ]
        touched = np.stack([cells(moved, side, size) for _, moved in drawn])
        located = np.array([where is not None for where in known])[:, None, None]
        share = touched.size / max(1, int((touched & located).sum()))
        return Batch(
            images=np.stack([image for image, _ in drawn])[:, :, :, None],
            labels=labels[rows, None],
            weights=weights[rows],
            cells=touched[..., None].astype(np.float32),
            cell_weights=(share * located * np.where(touched, 1.0, BACKGROUND)).astype(np.float32),
        )

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(draw, number) for number in range(min(AHEAD, count))]
        for number in range(count):
            if number + AHEAD < count:
                waiting.append(pool.submit(draw, number + AHEAD))
            yield waiting.pop(0).result()
