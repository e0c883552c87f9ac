"""From the trained network to the graph that is released, and the proof that they say the same."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import numpy as np

from components.model import network, runtime
from components.model.calibrate import Calibrated
from components.model.examples import Examples, spread
from components.serving.bundle import FRACTURES, INPUT, REGION, SIGNATURE, Graph, Outputs, Parity

TIE = 1e-6  # of probability, in float32
CHECKED = 64  # images on which the released graph is compared with the trained network, spread over the roles


def convert(model: Any, curve: Calibrated, variant: str, pixels: np.ndarray) -> bytes:
    """The released graph as the bytes of a .tflite file; outputs as serving/bundle.py names them.

    The network is called with training=False, so nothing random can survive the export.

    Args:
        variant: float32; float16, which stores weights in half; or int8, which also computes in eight bits.
        pixels: (n, size, size) uint8, images of which CHECKED show int8 the range of every value in the graph.
    """
    import tensorflow as tf

    keras = runtime.keras()
    size = model.input.shape[1]

    def serve(image: Any) -> dict[str, Any]:
        found = model(image, training=False)
        evidence = tf.sigmoid(found[network.EVIDENCE][..., 0])
        highest = tf.reduce_max(evidence, axis=(1, 2), keepdims=True)
        said = {
            "probability": tf.sigmoid(curve.slope * found[network.LOGIT] + curve.intercept),
            "logit": found[network.LOGIT],
            "heat_map": evidence / tf.maximum(highest, 1e-6),
            "embedding": found[network.EMBEDDING],
        }
        if network.REGION in found:
            said[REGION] = tf.nn.softmax(found[network.REGION])
        if network.FRACTURES in found:
            said[FRACTURES] = found[network.FRACTURES]
        return said

    # TensorFlow's own calibrator of int8 warns that the interpreter it uses is deprecated.
    with tempfile.TemporaryDirectory() as temporary, runtime.silence(), warnings.catch_warnings(action="ignore"):
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec((1, size, size, 1), tf.float32, name=INPUT)])
        archive.write_out(temporary, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(temporary, signature_keys=[SIGNATURE])
        if variant != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if variant == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if variant == "int8":
            converter.representative_dataset = lambda: (
                (SIGNATURE, {INPUT: pixels[row, None, :, :, None].astype(np.float32)}) for row in checked(len(pixels))
            )
        return bytes(converter.convert())


def checked(images: int) -> np.ndarray:
    """Up to CHECKED row numbers, spread evenly over `images` rows."""
    return spread(np.arange(images), CHECKED)


def parity(model: Any, curve: Calibrated, data: Examples, outputs: list[Outputs]) -> Parity:
    """The graph beside the trained network, over up to CHECKED images.

    No call changes but within that difference of an operating point. An operating point is the probability of some
    image, whose call rounding alone decides: such a tie is no flip.
    """
    rows = checked(len(outputs))
    expected = curve.probability(network.logits(model, data.pixels[rows]))
    found = np.array([outputs[row].probability for row in rows])
    cuts = np.array([curve.thresholds.high_sensitivity.threshold, curve.thresholds.high_specificity.threshold])
    told = np.asarray(expected)[:, None]
    flips = (((told >= cuts) != (found[:, None] >= cuts)) & (np.abs(told - cuts) > TIE)).any(axis=1)
    return Parity(difference=float(np.abs(expected - found).max()), flips=int(flips.sum()), images=len(rows))


def steady(graph: Graph, data: Examples, outputs: list[Outputs]) -> bool:
    """Whether the graph, asked again about the images that `parity` looks at, answers bit for bit as before."""
    again = [(outputs[row], graph.run(data.pixels[row])) for row in checked(len(outputs))]
    return all(a.logit == b.logit and np.array_equal(a.heat_map, b.heat_map) for a, b in again)
