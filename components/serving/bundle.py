"""The release bundle: what is judged is what is served. Verified when opened, run by LiteRT, never by TensorFlow.

A bundle is a folder of five parts and a manifest. The bundle's identity is the SHA-256 of its manifest, and the
manifest holds the SHA-256 of every part: one hash names weights, preprocessing, calibration and thresholds.

    model.tflite             (1, size, size, 1) float32 0..255 -> probability, logit, heat_map, embedding
    reference.parquet        what tuning and calibration images look like (drift is measured against it)
    training_images.parquet  who must never be tested on
    model_card.md            for people
    manifest.json            canonical JSON: sorted keys, no spaces, one trailing newline
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import BundleCorrupt
from components.radiograph.pixels import Transform

FORMAT = 1
MODEL = "model.tflite"
REFERENCE = "reference.parquet"
TRAINING_IMAGES = "training_images.parquet"
CARD = "model_card.md"
PARTS = (MODEL, REFERENCE, TRAINING_IMAGES, CARD)
MANIFEST = "manifest.json"

SIGNATURE = "serving_default"
INPUT = "image"
OUTPUTS = ("embedding", "heat_map", "logit", "probability")

Call = Literal["fracture", "no_fracture", "review"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pretrained(_Part):
    """Where the weights that training started from came from, and who says what may be done with them."""

    name: str
    source: str
    licence: str
    sha256: Sha256


class Model(_Part):
    backbone: str
    size: int = Field(gt=0, description="side of the input square, pixels")
    variant: str = Field(description="number format of the stored weights: float32 or float16")
    weights_sha256: Sha256 = Field(description="hash of the trained weights in their order, before conversion")
    pretrained: Pretrained | None = Field(description="None: trained from random weights")
    seed: int


class Calibration(_Part):
    """Platt: probability = sigmoid(slope * logit + intercept); it is inside the graph, this is its record."""

    slope: float
    intercept: float
    source_role: Literal["calibrate"]
    n: int = Field(gt=0)


class Threshold(_Part):
    threshold: Probability = Field(description="on the calibrated probability")
    source_role: Literal["tune"]


class Thresholds(_Part):
    high_sensitivity: Threshold
    high_specificity: Threshold


class Data(_Part):
    training_images: int = Field(ge=0)
    accepted_sha256: Sha256


class Manifest(_Part):
    format: Literal[1]
    model: Model
    transform: Transform
    golden: Sha256 = Field(description="what Transform.golden() gave where the model was trained")
    calibration: Calibration
    thresholds: Thresholds
    vocabulary: tuple[str, ...] = Field(description="the calls this bundle can make")
    data: Data
    parts: dict[str, Sha256]

    def encode(self) -> bytes:
        """The one byte string that stands for this manifest; its SHA-256 is the bundle's hash."""
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return body.encode() + b"\n"


@dataclass(frozen=True)
class Prediction:
    """What the bundle says about one radiograph.

    `heat_map` is float32 in 0..1, relative within the image: it shows where the evidence for a fracture lies, its
    strength is the probability's business. All zero when nothing speaks for a fracture.
    """

    probability: float
    logit: float
    heat_map: np.ndarray
    embedding: np.ndarray
    call: Call


class Bundle:
    """A verified bundle, ready to predict from any thread (one prediction at a time)."""

    def __init__(self, folder: Path, manifest: Manifest, content_hash: str, model: bytes, *, threads: int = 1) -> None:
        self.folder = folder
        self.manifest = manifest
        self.hash = content_hash
        self._lock = threading.Lock()
        # The interpreter owns its memory: keep it, and the bytes it maps, as long as the runner.
        self._model = model
        self._interpreter, self._runner = _load(folder, model, manifest.model.size, threads)

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
        manifest = _parse(folder, raw)
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
        return cls(folder, manifest, found, contents[MODEL], threads=threads)

    @property
    def transform(self) -> Transform:
        return self.manifest.transform

    def predict(self, pixels: np.ndarray) -> Prediction:
        """Judge one radiograph.

        Args:
            pixels: (rows, columns) uint8 or uint16, MONOCHROME2 polarity, as `Radiograph.pixels`.

        Returns:
            A prediction whose heat_map is (rows, columns), in the image's own pixels.
        """
        rows, columns = pixels.shape
        square = self.predict_prepared(self.transform.apply(pixels))
        placed = np.clip(self.transform.place(square.heat_map, rows, columns), 0.0, 1.0).astype(np.float32, copy=False)
        return Prediction(square.probability, square.logit, placed, square.embedding, square.call)

    def predict_prepared(self, square: np.ndarray) -> Prediction:
        """Judge one image that `Transform.apply` made: (size, size) uint8. The heat map stays in model space."""
        size = self.manifest.model.size
        if square.shape != (size, size):
            raise ValueError(f"expected ({size}, {size}), got {square.shape}")
        image = np.ascontiguousarray(square, dtype=np.float32)[None, :, :, None]
        with self._lock:
            outputs = self._runner(**{INPUT: image})
        probability = float(outputs["probability"][0, 0])
        return Prediction(
            probability=probability,
            logit=float(outputs["logit"][0, 0]),
            heat_map=outputs["heat_map"][0],
            embedding=outputs["embedding"][0],
            call=self.call(probability),
        )

    def call(self, probability: float) -> Call:
        """`no_fracture` below both thresholds, `fracture` at or above both, `review` between: a person decides."""
        points = self.manifest.thresholds
        cuts = (points.high_sensitivity.threshold, points.high_specificity.threshold)
        if probability < min(cuts):
            return "no_fracture"
        return "fracture" if probability >= max(cuts) else "review"


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleCorrupt(f"{folder / name}: cannot be read ({error.strerror}); fetch the bundle again") from None


def _parse(folder: Path, raw: bytes) -> Manifest:
    where = folder / MANIFEST
    try:
        body = json.loads(raw)
    except ValueError:
        raise BundleCorrupt(f"{where}: not JSON; fetch the bundle again") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        found = body.get("format") if isinstance(body, dict) else type(body).__name__
        raise BundleCorrupt(f"{where}: expected bundle format {FORMAT}, found {found!r}; use the version that made it")
    try:
        manifest = Manifest.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors())
        raise BundleCorrupt(f"{where}: {problems}") from None
    if manifest.encode() != raw:
        raise BundleCorrupt(f"{where}: not canonical, or with keys this version does not know")
    if set(manifest.parts) != set(PARTS):
        raise BundleCorrupt(f"{where}: expected parts {sorted(PARTS)}, found {sorted(manifest.parts)}")
    if manifest.transform.size != manifest.model.size:
        raise BundleCorrupt(f"{where}: transform size {manifest.transform.size}, model size {manifest.model.size}")
    return manifest


def _load(folder: Path, model: bytes, size: int, threads: int) -> tuple[Any, Any]:
    """The interpreter and its signature runner, checked against what `predict` relies on."""
    from ai_edge_litert.interpreter import Interpreter

    where = folder / MODEL
    try:
        interpreter = Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(SIGNATURE)
    except (ValueError, RuntimeError) as error:
        raise BundleCorrupt(f"{where}: LiteRT refuses it: {' '.join(str(error).split())}") from None
    inputs = {name: tuple(int(n) for n in d["shape"]) for name, d in runner.get_input_details().items()}
    outputs = tuple(sorted(runner.get_output_details()))
    if inputs != {INPUT: (1, size, size, 1)} or outputs != OUTPUTS:
        raise BundleCorrupt(
            f"{where}: expected input {INPUT} (1, {size}, {size}, 1) and outputs {', '.join(OUTPUTS)}; "
            f"found {inputs} and {', '.join(outputs)}"
        )
    return interpreter, runner
