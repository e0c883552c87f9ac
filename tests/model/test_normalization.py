"""Batch normalization in one kernel: the same training as Keras's own, in the same layers."""

from __future__ import annotations

import numpy as np

from components.model import network, runtime
from components.model.normalization import fused


def trained(fast: bool) -> tuple[list[float], list[np.ndarray]]:
    """The losses of five steps of a small network, whose second normalization stands still, and its weights then."""
    keras = runtime.keras()
    layers = keras.layers
    runtime.start(7)
    random = np.random.default_rng(3)
    inputs = keras.Input((8, 8, 3))
    first = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(layers.Conv2D(8, 3)(inputs)))
    still = layers.BatchNormalization(scale=False)
    outputs = layers.Dense(1)(layers.GlobalAveragePooling2D()(still(layers.Conv2D(6, 3)(first))))
    model = keras.Model(inputs, outputs)
    still.trainable = False
    still.moving_mean.assign(random.normal(0, 0.2, 6))
    still.moving_variance.assign(random.uniform(0.5, 2, 6))
    fitted = fused(model) if fast else model
    fitted.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    labels = np.arange(16, dtype=np.float32)[:, None] % 2
    images = [random.normal(0, 1, (16, 8, 8, 3)).astype(np.float32) for _ in range(5)]
    return [float(fitted.train_on_batch(batch, labels)) for batch in images], model.get_weights()


def test_five_steps_end_where_kerass_own_end():
    """Losses, weights and running statistics differ by rounding, whether the statistics move or stand still."""
    (losses, weights), (expected, own) = trained(fast=True), trained(fast=False)

    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for found, wanted in zip(weights, own, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_is_trained_is_the_network_itself():
    """Every weight is shared, and the layers stay those that Keras can load without us."""
    keras = runtime.keras()
    model = network.build("mobilenet_0.25", 64, None, 0.0)
    before = [type(layer) for layer in model.get_layer("backbone").layers]
    fast = fused(model)

    assert {id(weight) for weight in fast.weights} == {id(weight) for weight in model.weights}
    assert [type(layer) for layer in model.get_layer("backbone").layers] == before
    assert before.count(keras.layers.BatchNormalization) == 27
    model.get_layer("backbone").trainable = False
    assert len(fast.trainable_variables) == len(model.trainable_variables) == 6
