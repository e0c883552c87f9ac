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

    The network is called with training=False, so nothing random can survive the export.
    """
    import tensorflow as tf

    keras = runtime.keras()
    size = model.input.shape[1]

    def serve(image: Any) -> dict[str, Any]:
        found = model(image, training=False)
        evidence = tf.sigmoid(found[network.EVIDENCE][..., 0])
        highest = tf.reduce_max(evidence, axis=(1, 2), keepdims=True)
        return {
            "probability": tf.sigmoid(curve.slope * found[network.LOGIT] + curve.intercept),
            "logit": found[network.LOGIT],
            "heat_map": evidence / tf.maximum(highest, 1e-6),
            "embedding": found[network.EMBEDDING],
        }

    with tempfile.TemporaryDirectory() as temporary, runtime.silence():
        archive = keras.export.ExportArchive()
        archive.track(model)
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
