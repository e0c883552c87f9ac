"""Batch normalization in one kernel while a network is fitted on a CPU.

Keras spells it out in some ten operations, each a pass over memory: half of the time of a training step. The layers,
their weights and what is saved stay Keras's own.
"""

from __future__ import annotations

from typing import Any

from components.model import runtime


def fused(model: Any) -> Any:
    """`model`, with the same weights in the same layers, computed faster.

    Training what is returned trains `model`: every weight is shared, and so is whether it may change. Statistics
    move as Keras moves them. Where TensorFlow does not compute on a CPU `model` itself is returned: the kernel has no
    deterministic gradient on a GPU.
    """
    if not runtime.on_cpu():
        return model
    keras = runtime.keras()
    import tensorflow as tf

    class Fused(keras.layers.Layer):  # type: ignore[name-defined]
        def __init__(self, norm: Any) -> None:
            super().__init__(name=norm.name)
            self.norm = norm

        def call(self, inputs: Any, training: bool | None = None, mask: None = None) -> Any:
            norm, moves = self.norm, bool(training and self.norm.trainable)
            mean, variance = tf.convert_to_tensor(norm.moving_mean), tf.convert_to_tensor(norm.moving_variance)
            nothing = tf.zeros(0)
            scale = tf.convert_to_tensor(norm.gamma) if norm.scale else tf.ones_like(mean)
            found = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=scale,
                offset=tf.convert_to_tensor(norm.beta),
                mean=nothing if moves else mean,
                variance=nothing if moves else variance,
                epsilon=norm.epsilon,
                is_training=moves,
            )
            if moves:
                # The kernel's variance is that of a sample; Keras keeps that of the batch.
                count = tf.cast(tf.size(inputs) // tf.size(mean), tf.float32)
                spread = found.batch_variance * (count - 1) / count
                norm.moving_mean.assign(mean * norm.momentum + found.batch_mean * (1 - norm.momentum))
                norm.moving_variance.assign(variance * norm.momentum + spread * (1 - norm.momentum))
            return found.y

    def same(layer: Any) -> Any:
        return Fused(layer) if type(layer) is keras.layers.BatchNormalization else layer

    return keras.models.clone_model(model, clone_function=same, recursive=True)
