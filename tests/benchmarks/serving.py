"""Benchmark: one prediction of the released graph beside what a team would otherwise call (`make bench`).

Prints medians and ratios of one run on this machine; nothing is asserted. Pixels are random: the cost does not depend
on what they show.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from components.model import network, runtime
from components.model.calibrate import Calibrated
from components.model.conversion import convert
from components.serving.bundle import Graph

POINT = {"threshold": 0.5, "source_role": "tune"}
SETS = {"alpha": 0.1, "fracture_from": 0, "no_fracture_to": 1, "source_role": "calibrate"}
CURVE = {
    "slope": 1, "intercept": 0, "source_role": "calibrate", "n": 1, "study_thresholds": None,
    "conformal": SETS | {"fracture_patients": 1, "no_fracture_patients": 1},
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--backbone", default="mobilenet_0.25")
    arguments.add_argument("--size", type=int, default=384)
    arguments.add_argument("--runs", type=int, default=30)
    chosen = arguments.parse_args()
    runtime.start(1)
    model = network.build(chosen.backbone, chosen.size, None, 0.0)
    calibrated = Calibrated.model_validate(
        CURVE | {"thresholds": {"high_sensitivity": POINT, "high_specificity": POINT}}
    )
    squares = np.random.default_rng(0).integers(0, 256, (8, chosen.size, chosen.size), np.uint8)
    square, batch = squares[0], squares[:1, :, :, None].astype(np.float32)

    def released(content: bytes, threads: int) -> Callable[[], object]:
        graph = Graph(content, chosen.size, where=Path("benchmark"), threads=threads)
        return lambda: graph.run(square)

    contents = {name: convert(model, calibrated, name, squares) for name in ("float32", "float16", "int8")}
    rivals: dict[str, Callable[[], object]] = {
        f"released graph, {name}, {threads} thread(s), {len(content) / 1e6:.1f} MB": released(content, threads)
        for name, content in contents.items()
        for threads in (1, 2)
    }
    rivals |= {f"ONNX Runtime, float32, {threads} thread(s)": onnx(model, batch, threads) for threads in (1, 2)}
    rivals |= {
        "keras model.predict_on_batch": lambda: model.predict_on_batch(batch),
        "keras model.predict": lambda: model.predict(batch, verbose=0),
    }
    medians = {name: 1000 * statistics.median(timed(call) for _ in range(chosen.runs)) for name, call in rivals.items()}
    ours = next(iter(medians.values()))
    print(f"{chosen.backbone} at {chosen.size} px, batch 1, median of {chosen.runs}; ratios to the first")
    for name, median in medians.items():
        print(f"{name:<46} {median:8.2f} ms   {median / ours:6.1f} x")


def onnx(model: Any, batch: np.ndarray, threads: int) -> Callable[[], object]:
    """The same network in ONNX Runtime, as Keras exports it: all three outputs, calibration left out."""
    import onnxruntime

    model(batch)  # Keras exports only what was called before
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"), runtime.silence():
        path = Path(folder) / "network.onnx"
        model.export(path, format="onnx", verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    np.testing.assert_allclose(  # a rival that computes something else is no rival
        session.run([network.LOGIT], {name: batch})[0], model.predict_on_batch(batch)[network.LOGIT], atol=1e-3
    )
    return lambda: session.run(None, {name: batch})


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
