"""The release bundle: what is judged is what is served. Verified when opened, run by LiteRT, never by TensorFlow.

A bundle is a folder of five parts and a manifest. The bundle's identity is the SHA-256 of its manifest, and the
manifest holds the SHA-256 of every part: one hash names weights, preprocessing, calibration and thresholds.

    model.tflite             (1, size, size, 1) float32 0..255 -> probability, logit, heat_map, embedding,
                             and where it was trained to: region (probabilities), fractures (their expected number)
    reference.parquet        what tuning and calibration images look like (drift is measured against it)
    training_images.parquet  who must never be tested on
    model_card.md            for people
    manifest.json            canonical JSON: sorted keys, no spaces, one trailing newline
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from components.errors import BundleCorrupt
from components.radiograph.pixels import Transform
from components.serving.manifest import (
    CARD,
    MANIFEST,
    MODEL,
    PARTS,
    REFERENCE,
    SURE,
    TRAINING_IMAGES,
    Attention,
    Backbone,
    Calibration,
    Conformal,
    Data,
    HeatMap,
    Manifest,
    Model,
    Parity,
    PredictionSet,
    Pretrained,
    Regions,
    Similarity,
    StudyThresholds,
    Supported,
    Threshold,
    Thresholds,
)
from components.serving.scope import Scope

__all__ = [
    "CARD",
    "INPUT",
    "MANIFEST",
    "MODEL",
    "PARTS",
    "REFERENCE",
    "SIGNATURE",
    "SURE",
    "TRAINING_IMAGES",
    "Attention",
    "Backbone",
    "Bundle",
    "Calibration",
    "Call",
    "Conformal",
    "Data",
    "Graph",
    "HeatMap",
    "Manifest",
    "Model",
    "Outputs",
    "Parity",
    "Prediction",
    "PredictionSet",
    "Pretrained",
    "Regions",
    "Similarity",
    "StudyThresholds",
    "Supported",
    "Threshold",
    "Thresholds",
]

_HUSH = threading.Lock()  # standard error belongs to the whole process
SIGNATURE = "serving_default"
INPUT = "image"
OUTPUTS = ("embedding", "heat_map", "logit", "probability")
REGION = "region"
FRACTURES = "fractures"

Call = Literal["fracture", "no_fracture", "review"]


@dataclass(frozen=True)
class Prediction:
    """What the bundle says about one radiograph.

    `heat_map` is float32 in 0..1, relative within the image: it shows where the evidence for a fracture lies, its
    strength is the probability's business. All zero when nothing speaks for a fracture. `familiar`: it is like the
    bundle's reference; what is not is left to a person. `prediction_set`: the labels that are not ruled out; None for a
    picture that is not familiar, of which sets promise nothing, and from a bundle that is older than they are.
    `regions` is the probability of each body region, empty where the bundle tells none, and `region` the one it is sure
    of; None: of none, or its word is not heeded. `fractures` is the number it expects; None where it counts none.
    `supported`: the body regions and views that a file may state for the call to stand; None: any.
    """

    probability: float
    logit: float
    heat_map: np.ndarray
    embedding: np.ndarray
    call: Call
    familiar: bool = True
    prediction_set: PredictionSet | None = None
    regions: Mapping[str, float] = field(default_factory=dict)
    region: str | None = None
    fractures: float | None = None
    supported: Supported | None = None


@dataclass(frozen=True)
class Outputs:
    """What the graph returns for one square: see `Prediction`; heat_map and embedding in the model's own shapes.

    region: (k,) probabilities, in the order of the manifest's names; None where the graph tells none.
    """

    probability: float
    logit: float
    heat_map: np.ndarray
    embedding: np.ndarray
    region: np.ndarray | None = None
    fractures: float | None = None


class Graph:
    """A converted model in memory, safe to call from any thread (one call at a time)."""

    def __init__(self, content: bytes, size: int, *, where: Path, threads: int = 1) -> None:
        """Load and check `content`, the bytes of a .tflite file whose input side is `size` pixels.

        Raises:
            BundleCorrupt: LiteRT refuses it, or its inputs and outputs are not the ones `run` relies on.
        """
        from ai_edge_litert.interpreter import Interpreter

        self._size = size
        self._lock = threading.Lock()
        try:
            # The interpreter maps these bytes and the runner lives in the interpreter: all three are kept.
            with _hushed():
                self._interpreter: Any = Interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
            self._runner: Any = self._interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise BundleCorrupt(f"{where}: LiteRT refuses it: {' '.join(str(error).split())}") from None
        inputs = {name: tuple(int(n) for n in d["shape"]) for name, d in self._runner.get_input_details().items()}
        shapes = {name: tuple(int(n) for n in d["shape"]) for name, d in self._runner.get_output_details().items()}
        outputs = tuple(sorted(shapes))
        self.regions = shapes[REGION][-1] if REGION in shapes else 0
        if inputs != {INPUT: (1, size, size, 1)} or tuple(sorted(set(outputs) - {REGION, FRACTURES})) != OUTPUTS:
            raise BundleCorrupt(
                f"{where}: expected input {INPUT} (1, {size}, {size}, 1) and outputs {', '.join(OUTPUTS)}; "
                f"found {inputs} and {', '.join(outputs)}"
            )

    def run(self, square: np.ndarray) -> Outputs:
        """Judge one image that `Transform.apply` made: (size, size) uint8."""
        if square.shape != (self._size, self._size):
            raise ValueError(f"expected ({self._size}, {self._size}), got {square.shape}")
        image = np.ascontiguousarray(square, dtype=np.float32)[None, :, :, None]
        with self._lock:
            found = self._runner(**{INPUT: image})
        return Outputs(
            probability=float(found["probability"][0, 0]),
            logit=float(found["logit"][0, 0]),
            heat_map=np.array(found["heat_map"][0]),
            embedding=np.array(found["embedding"][0]),
            region=np.array(found[REGION][0]) if REGION in found else None,
            fractures=float(found[FRACTURES][0, 0]) if FRACTURES in found else None,
        )


class Bundle:
    """A verified bundle, ready to predict from any thread."""

    def __init__(self, folder: Path, manifest: Manifest, content_hash: str, graph: Graph, scope: Scope) -> None:
        self.folder = folder
        self.manifest = manifest
        self.hash = content_hash
        self.graph = graph
        self.scope = scope

    @classmethod
    def open(cls, folder: Path, *, expected_hash: str | None = None, threads: int = 1) -> Bundle:
        """Verify every part and load the model.

        Args:
            folder: the bundle's folder.
            expected_hash: the hash a signed record names; None accepts whichever bundle is there.
            threads: processor threads of one prediction.

        Raises:
            BundleCorrupt: a part is missing or altered, the hash is another one, the format is unknown, the
                transform of this version gives other pixels, or LiteRT refuses the model; the part is named.
        """
        raw = _read(folder, MANIFEST)
        found = hashlib.sha256(raw).hexdigest()
        if expected_hash is not None and found != expected_hash:
            raise BundleCorrupt(f"{folder}: expected bundle {expected_hash}, found {found}")
        manifest = Manifest.decode(raw, where=str(folder / MANIFEST))
        contents = {name: _read(folder, name) for name in PARTS}
        for name, content in contents.items():
            if (actual := hashlib.sha256(content).hexdigest()) != manifest.parts[name]:
                raise BundleCorrupt(
                    f"{folder / name}: SHA-256 is {actual} ({len(content)} bytes), "
                    f"the manifest says {manifest.parts[name]}; fetch the bundle again"
                )
        if (golden := manifest.transform.golden()) != manifest.golden:
            raise BundleCorrupt(
                f"{folder / MANIFEST}: this version's transform gives {golden} on the golden image, training "
                f"had {manifest.golden}; serve with the version that trained it, or run `export` again"
            )
        # The bytes that were verified are the bytes that run: the file is not read a second time.
        graph = Graph(contents[MODEL], manifest.model.size, where=folder / MODEL, threads=threads)
        names = manifest.regions.names if manifest.regions else ()
        if graph.regions != len(names):
            raise BundleCorrupt(
                f"{folder / MODEL}: it tells {graph.regions} body regions apart, the manifest names {len(names)}; "
                "fetch the bundle again"
            )
        return cls(folder, manifest, found, graph, _scope(contents[REFERENCE], manifest.scope_from, folder / REFERENCE))

    @property
    def transform(self) -> Transform:
        return self.manifest.transform

    def predict(self, pixels: np.ndarray) -> Prediction:
        """Judge one radiograph.

        Args:
            pixels: (rows, columns) uint8 or uint16, MONOCHROME2 polarity, as `Radiograph.pixels`.

        Returns:
            A prediction whose heat_map is (rows, columns), in the image's own pixels. The call on a picture that is
            like nothing in the reference is `review`, whatever its probability.
        """
        rows, columns = pixels.shape
        found = self.graph.run(self.transform.apply(pixels))
        placed = np.clip(self.transform.place(found.heat_map, rows, columns), 0.0, 1.0).astype(np.float32, copy=False)
        familiar = self.scope.holds(found.embedding)
        call = self.call(found.probability) if familiar else "review"
        cuts = self.manifest.conformal
        left = cuts.prediction_set(found.probability) if cuts and familiar else None
        names = self.manifest.regions.names if self.manifest.regions else ()
        regions = {} if found.region is None else dict(zip(names, map(float, found.region), strict=True))
        return Prediction(
            found.probability, found.logit, placed, found.embedding, call, familiar, left, regions, self.sure(regions),
            found.fractures, self.manifest.supported,
        )  # fmt: skip

    def sure(self, regions: Mapping[str, float]) -> str | None:
        """The body region that has SURE or more of these probabilities, where its check lets the bundle say so."""
        heeded = self.manifest.regions is not None and self.manifest.regions.heeded
        return next((name for name, value in regions.items() if heeded and value >= SURE), None)

    def call(self, probability: float) -> Call:
        """`no_fracture` below both thresholds, `fracture` at or above both, `review` between: a person decides."""
        points = self.manifest.thresholds
        cuts = (points.high_sensitivity.threshold, points.high_specificity.threshold)
        if probability < min(cuts):
            return "no_fracture"
        return "fracture" if probability >= max(cuts) else "review"


def _scope(content: bytes, least: float | None, where: Path) -> Scope:
    import pandas as pd

    try:
        embeddings = pd.read_parquet(io.BytesIO(content), columns=["embedding"])["embedding"]
        return Scope.of(np.stack(embeddings.to_list()), least)
    except (ValueError, KeyError, OSError) as error:
        raise BundleCorrupt(f"{where}: no reference ({type(error).__name__}); run `export` again") from None


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleCorrupt(f"{folder / name}: cannot be read ({error.strerror}); fetch the bundle again") from None


@contextmanager
def _hushed() -> Iterator[None]:
    """LiteRT greets on the process's standard error whenever it loads, with no switch to stop it."""
    with _HUSH:
        kept = os.dup(2)
        silence = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(silence, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(silence)
