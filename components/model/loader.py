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
        regions: (b, k) float32: 1 at the body region, with (b,) `region_weights`, 0 where it is not known.
        fractures: (b, 1) float32: their number, with (b,) `fracture_weights`, 0 where it is not known.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    cells: np.ndarray
    cell_weights: np.ndarray
    regions: np.ndarray
    region_weights: np.ndarray
    fractures: np.ndarray
    fracture_weights: np.ndarray


def mixed(
    target: np.ndarray, weight: np.ndarray, share: np.ndarray, partner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The target and the weight whose loss is `share` of each image's own loss and the rest of its partner's.

    Exact for every loss that is linear in its target, as cross-entropy and Poisson's are. Where all images weigh the
    same it is the convex combination of the targets; what nobody knows weighs nothing, and so says nothing.

    Args:
        target: (b, ..., k), with (b, ...) `weight`.
        share: (b,) in 0..1.
        partner: (b,) int, the row that each is mixed with.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
    """
    part = share.reshape(-1, *[1] * (weight.ndim - 1)).astype(np.float32)
    own, other = part * weight, (1 - part) * weight[partner]
    total = own + other
    both = own[..., None] * target + other[..., None] * target[partner]
    return np.divide(both, total[..., None], out=target.copy(), where=total[..., None] > 0), total


def mix(batch: Batch, alpha: float, random: np.random.Generator) -> Batch:
    """`batch`, each image laid over another one of it, by a share drawn from Beta(alpha, alpha)."""
    share = random.beta(alpha, alpha, len(batch.images)).astype(np.float32)
    partner = random.permutation(len(share))
    part = share[:, None, None, None]
    labels, weights = mixed(batch.labels, batch.weights, share, partner)
    cells, cell_weights = mixed(batch.cells, batch.cell_weights, share, partner)
    regions, region_weights = mixed(batch.regions, batch.region_weights, share, partner)
    fractures, fracture_weights = mixed(batch.fractures, batch.fracture_weights, share, partner)
    return Batch(
        part * batch.images + (1 - part) * batch.images[partner],
        labels, weights, cells, cell_weights, regions, region_weights, fractures, fracture_weights,
    )  # fmt: skip


def batches(
    examples: Examples,
    params: Augment,
    *,
    side: int,
    batch_size: int,
    seed: int,
    epoch: int,
    regions: tuple[str, ...] = (),
    mixup: float = 0,
) -> Iterator[Batch]:
    """One epoch in a random order.

    All batches are full (the images left over by one epoch's order are met in another), unless there are fewer
    images than one batch.

    Args:
        side: of the map of cells.
        regions: the body regions that are told apart.
        mixup: the alpha of `mix`; 0: images stay what they are.
    """
    labels = examples.labels.astype(np.float32)
    weights, boxes = balance(labels), examples.boxes
    where, many = examples.regions(regions), examples.fractures
    told, counted = np.asarray(where.any(axis=1)), np.asarray(np.isfinite(many))
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    count = max(1, len(order) // batch_size)
    size, nowhere = examples.transform.size, np.empty((0, 4), np.float32)

    def draw(number: int) -> Batch:
        rows = order[number * batch_size : (number + 1) * batch_size]
        random = np.random.default_rng([seed, epoch, number])
        known = [boxes[row] for row in rows]
        moved = [
            augment(examples.pixels[row], nowhere if drawn is None else drawn, params, random)
            for row, drawn in zip(rows, known, strict=True)
        ]
        touched = np.stack([cells(found, side, size) for _, found in moved])
        located = np.array([drawn is not None for drawn in known])[:, None, None]
        share = touched.size / max(1, int((touched & located).sum()))
        batch = Batch(
            images=np.stack([image for image, _ in moved])[:, :, :, None],
            labels=labels[rows, None],
            weights=weights[rows],
            cells=touched[..., None].astype(np.float32),
            cell_weights=(share * located * np.where(touched, 1.0, BACKGROUND)).astype(np.float32),
            # What is not known needs some target all the same, that of the first region or of no fracture: it weighs 0.
            regions=np.where(told[rows, None], where[rows], np.eye(1, len(regions), dtype=np.float32)),
            region_weights=told[rows].astype(np.float32),
            fractures=np.nan_to_num(many[rows, None]).astype(np.float32),
            fracture_weights=counted[rows].astype(np.float32),
        )
        return mix(batch, mixup, random) if mixup else batch

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(draw, number) for number in range(min(AHEAD, count))]
        for number in range(count):
            if number + AHEAD < count:
                waiting.append(pool.submit(draw, number + AHEAD))
            yield waiting.pop(0).result()
