"""Why did it say so: Grad-CAM and SmoothGrad for a Keras model, and the pointing game that judges any heat map.

The released graph carries what the network says of each cell. Grad-CAM and SmoothGrad look at the same decision from
outside, by gradients: the first at the resolution of the last feature map, the second pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from components.model import ensemble, network, runtime
from components.radiograph.labels import Box


def grad_cam(model: Any, square: np.ndarray) -> np.ndarray:
    """Where the last feature map speaks for a fracture.

    Args:
        model: from `network.build` or `network.load`.
        square: (size, size) uint8.

    Returns:
        (h, w) float32 in 0..1 at the last feature map's resolution, largest value 1; zero when nothing speaks for one.
        Of an ensemble: the mean over its members, at the finest of their resolutions.

    Source: Selvaraju et al. 2017, "Grad-CAM".
    """
    import tensorflow as tf

    maps = [_channels_times_gradients(tf, member, square) for member in ensemble.members_of(model)]
    side = max(len(found) for found in maps)
    return _unit(np.mean([cv2.resize(found, (side, side)) for found in maps], axis=0))


def _channels_times_gradients(tf: Any, model: Any, square: np.ndarray) -> np.ndarray:
    """(h, w) of one network: its last map, channels weighted by their mean gradient; what speaks against is cut off.

    Of a network that looks at two scales it is the map of the larger one.
    """
    keras = runtime.keras()
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    pooled = sorted((pool.input for pool in pools), key=lambda found: -found.shape[1])
    maps = [model.get_layer(network.BOTH).input[0], *pooled]
    below, above = keras.Model(model.input, maps), keras.Model(maps, model.output[network.LOGIT])
    fine, last, *coarse = (tf.convert_to_tensor(part) for part in below(_batch(square), training=False))
    with tf.GradientTape() as tape:
        tape.watch(last)
        logit = above([fine, last, *coarse], training=False)
    channels = tf.reduce_mean(tape.gradient(logit, last), axis=(1, 2), keepdims=True)
    return np.maximum(tf.reduce_sum(channels * last, axis=-1).numpy()[0], 0)


def smooth_grad(model: Any, square: np.ndarray, *, samples: int = 16, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Which pixels the logit is sensitive to, averaged over noisy copies of the image.

    Args:
        model: from `network.build` or `network.load`.
        square: (size, size) uint8.
        samples: noisy copies.
        noise: their standard deviation, as a share of the image's own range.

    Returns:
        (size, size) float32 in 0..1: mean absolute gradient, largest value 1.

    Source: Smilkov et al. 2017, "SmoothGrad".
    """
    import tensorflow as tf

    random = np.random.default_rng(seed)
    sigma = noise * (float(square.max()) - float(square.min()))
    total = np.zeros(square.shape, np.float64)
    for _ in range(samples):
        image = tf.convert_to_tensor(_batch(square + sigma * random.standard_normal(square.shape)))
        with tf.GradientTape() as tape:
            tape.watch(image)
            logit = model(image, training=False)[network.LOGIT]
        total += np.abs(tape.gradient(logit, image).numpy()[0, :, :, 0])
    return _unit(total)


def pointing_game(heat_map: np.ndarray, boxes: Iterable[Box], *, tolerance: float = 0.0) -> bool:
    """Does the heat map's highest point lie on a marked fracture?

    Args:
        heat_map: (rows, columns), in the pixels the boxes are given in.
        boxes: at least one.
        tolerance: pixels around a box that still count.

    Returns:
        False for a flat map as well: it points nowhere.

    Source: Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.1.
    """
    highest = peak(heat_map)
    return highest is not None and any(box.holds(*highest, tolerance=tolerance) for box in boxes)


def covered(shape: tuple[int, ...], boxes: Sequence[Box]) -> float:
    """The share of an image of (rows, columns) that `boxes` cover: how often a peak at random lies in one."""
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[round(box.y) : round(box.y + box.height), round(box.x) : round(box.x + box.width)] = True
    return float(mask.mean())


def peak(heat_map: np.ndarray) -> tuple[float, float] | None:
    """(x, y) of the middle of the highest pixel of a (rows, columns) map; None for a flat one."""
    if float(heat_map.max()) <= float(heat_map.min()):
        return None
    row, column = np.unravel_index(int(np.argmax(heat_map)), heat_map.shape)
    return float(column) + 0.5, float(row) + 0.5


def _batch(square: np.ndarray) -> np.ndarray:
    return np.asarray(square, np.float32)[None, :, :, None]


def _unit(values: np.ndarray) -> np.ndarray:
    highest = float(values.max())
    return (values / highest if highest > 0 else np.zeros_like(values)).astype(np.float32)
