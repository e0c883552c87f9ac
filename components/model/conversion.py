"""From the trained network to the graph that is released, and the proof that they say the same."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from components.model import network, runtime
from components.model.calibrate import Calibrated
from components.model.examples import Examples
from components.serving.bundle import INPUT, SIGNATURE, Outputs

CHECKED = 64  # images on which the released graph is compared with the trained network, spread over the roles


def convert(model: Any, curve: Calibrated, variant: str) -> bytes:
    """The released graph as the bytes of a .tflite file; outputs as serving/bundle.py names them.

    The class-activation map (feature map x head weights, negative evidence cut off, largest value 1) is computed in
    the graph. The network is called with training=False, so nothing random can survive the export.
    """
    import tensorflow as tf

    keras = runtime.keras()
    pooling = model.get_layer(network.EMBEDDING)
    # Named, because names end up in the file and Keras's own count up per process.
    inner = keras.Model(model.input, [pooling.input, pooling.output], name="released")
    kernel, bias = (tf.constant(value) for value in model.get_layer(network.LOGIT).get_weights())
    size = model.input.shape[1]

    def serve(image: Any) -> dict[str, Any]:
        feature_map, embedding = inner(image, training=False)
        logit = tf.matmul(embedding, kernel) + bias
        evidence = tf.nn.relu(tf.reduce_sum(feature_map * tf.reshape(kernel, (1, 1, 1, -1)), axis=-1))
        highest = tf.reduce_max(evidence, axis=(1, 2), keepdims=True)
        return {
            "probability": tf.sigmoid(curve.slope * logit + curve.intercept),
            "logit": logit,
            "heat_map": evidence / tf.maximum(highest, 1e-6),
            "embedding": embedding,
        }

    with tempfile.TemporaryDirectory() as temporary, runtime.silence():
        archive = keras.export.ExportArchive()
        archive.track(inner)
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec((1, size, size, 1), tf.float32, name=INPUT)])
        archive.write_out(temporary, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(temporary, signature_keys=[SIGNATURE])
        if variant == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


def parity(model: Any, curve: Calibrated, data: Examples, outputs: list[Outputs]) -> float:
    """Largest difference of probability between the graph and the trained network, over up to CHECKED images."""
    rows = np.unique(np.linspace(0, len(outputs) - 1, min(CHECKED, len(outputs))).round().astype(int))
    expected = curve.probability(network.logits(model, data.pixels[rows]))
    return float(np.abs(expected - [outputs[row].probability for row in rows]).max())
