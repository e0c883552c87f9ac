"""Batches for training. Augmentation exists here and nowhere else: never before the split, never in the graph.

Every batch is a function of (seed, epoch, number of the batch) alone, so a training that was killed continues with
the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from components.model.examples import Examples
from components.params import Augment

AHEAD = 4  # batches drawn while the network computes


def augment(square: np.ndarray, params: Augment, random: np.random.Generator) -> np.ndarray:
    """One plausible other exposure of the same anatomy.

    Args:
        square: (size, size) uint8.

    Returns:
        (size, size) float32 in 0..255: turned, shifted, scaled, mirrored, brightened, with noise, each at most as
        much as `params` says; what comes in from outside is black, like the letterbox.
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
    return np.clip(moved, 0, 255).astype(np.float32, copy=False)


def balance(labels: np.ndarray) -> np.ndarray:
    """(n,) weights of mean 1 under which fractures and non-fractures weigh the same."""
    positive = labels == 1
    share = positive.mean()
    return np.where(positive, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)


def batches(
    examples: Examples, params: Augment, *, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One epoch in a random order: images (b, size, size, 1) float32, labels (b, 1), weights (b,).

    All batches are full (the images left over by one epoch's order are met in another), unless there are fewer
    images than one batch.
    """
    labels = examples.labels.astype(np.float32)
    weights = balance(labels)
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    count = max(1, len(order) // batch_size)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = order[number * batch_size : (number + 1) * batch_size]
        random = np.random.default_rng([seed, epoch, number])
        images = np.stack([augment(examples.pixels[row], params, random) for row in rows])
        return images[:, :, :, None], labels[rows, None], weights[rows]

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(draw, number) for number in range(min(AHEAD, count))]
        for number in range(count):
            if number + AHEAD < count:
                waiting.append(pool.submit(draw, number + AHEAD))
            yield waiting.pop(0).result()
