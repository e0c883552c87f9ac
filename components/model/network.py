"""The networks: a backbone, a verdict for every cell of its map, and one for the image. Keras 3, any backend.

A fracture is small: in the mean over a whole image it drowns. So two 1 x 1 convolutions give every cell of the last
map but one (stride 16) its own logit, from what both maps see there; boxes, where readers drew them, teach it cell by
cell. The image's logit is linear in the soft maximum over the cells and in the pooled last map, which knows what
kind of picture it is. The heat map that is released is these cells: what the score was made of, not an estimate of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import ConfigError, DataError, Unavailable
from components.model import runtime
from components.model.backbones import BACKBONE, BUILDERS, PUBLISHED, Published
from components.serving.bundle import Pretrained

BOTH = "both_maps"
EMBEDDING = "embedding"
EVIDENCE = "evidence"
LOGIT = "logit"
REGION = "region"
FRACTURES = "fractures"
HIDDEN = 64  # channels between the maps and a cell's logit
SHARPNESS = 4.0  # of the soft maximum: between the mean (0) and the highest cell
RARE = -3.0  # a cell's logit before anything is learned: few cells hold a fracture


def pretrained(backbone: str, weights: str) -> tuple[Path, Pretrained] | None:
    """Find the file that `train.weights` means, and where it came from.

    Args:
        weights: `none`; `imagenet` (downloaded once by Keras into its own cache); or a path to an .h5 file with
            the backbone's weights, relative to the working directory, `~` allowed.

    Returns:
        The file and its provenance, or None for random weights.

    Raises:
        ConfigError: no such file, or the backbone has no published weights.
        Unavailable: the download failed.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        if backbone not in PUBLISHED:
            raise ConfigError(f"train.weights: {backbone} has no ImageNet weights; use `none` or a local file")
        path, source, licence = _download(PUBLISHED[backbone]), PUBLISHED[backbone].url, PUBLISHED[backbone].licence
    else:
        path = Path(weights).expanduser()
        source, licence = "local file", "unknown: stated by whoever provided the file"
        if not path.is_file() or path.suffix != ".h5":
            raise ConfigError(f"train.weights: expected `imagenet`, `none` or an existing .h5 file, found {weights}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, Pretrained(name=path.name, source=source, licence=licence, sha256=digest)


def _download(published: Published) -> Path:
    keras = runtime.keras()
    # Keras raises a bare Exception for every network failure and knows no other kind.
    try:
        return Path(keras.utils.get_file(origin=published.url, cache_subdir="models"))
    except Exception as error:
        raise Unavailable(
            f"{published.url} cannot be downloaded ({' '.join(str(error).split())[:200]}); retry, or set train.weights "
            "to the path of a local copy, or to `none`"
        ) from error


def build(
    backbone: str,
    size: int,
    weights: Path | None,
    dropout: float,
    *,
    two_scale: bool = False,
    regions: int = 0,
    fractures: bool = False,
) -> Any:
    """A classifier of one logit, positive for a fracture; and, where asked for, of what else the labels say.

    Args:
        backbone: a name `params.Train` accepts.
        size: side of the input square, pixels.
        weights: .h5 file for the backbone; None for random weights.
        dropout: share of the embedding dropped in training.
        two_scale: it looks again, at half the size and with the same weights: at what surrounds a cell, for a quarter
            more work. The embedding is both looks' side by side.
        regions: how many body regions it tells apart; 0: none.
        fractures: whether it counts them.

    Returns:
        keras.Model, (batch, size, size, 1) 0..255 -> `logit` (batch, 1), `evidence` (batch, h, w, 1), logits of the
        cells, and `embedding` (batch, channels); also `region` (batch, regions), logits, and `fractures` (batch, 1),
        the number that is expected.

    Raises:
        ConfigError: the weights are not this backbone's.

    Source of the soft maximum: Pinheiro and Collobert 2015, "From image-level to pixel-level labeling".
    """
    keras = runtime.keras()
    layers = keras.layers
    # Layer names count up per process: without this a second model would be saved under other names.
    keras.backend.clear_session()
    inputs = keras.Input((size, size, 1), name="image")
    body, scaled = BUILDERS[backbone](size, inputs)
    if weights is not None:
        _fill(body, backbone, weights)
    maps = [_finer(body), body.output]
    if two_scale:
        again = _smaller(body)
        both_scales = [scaled, layers.AveragePooling2D(2, name="half")(scaled)]
        fine, *wide = keras.Model([body.input, again.input], [*maps, again.output], name=BACKBONE)(both_scales)
        embedding = layers.Concatenate(name=EMBEDDING)([layers.GlobalAveragePooling2D()(found) for found in wide])
    else:
        fine, *wide = keras.Model(body.input, maps, name=BACKBONE)(scaled)
        embedding = layers.GlobalAveragePooling2D(name=EMBEDDING)(wide[0])
    side = fine.shape[1]
    both = layers.Concatenate(name=BOTH)([fine, *(keras.ops.image.resize(found, (side, side)) for found in wide)])
    local = layers.Conv2D(HIDDEN, 1, activation="relu", name="local")(both)
    cells = layers.Conv2D(1, 1, bias_initializer=keras.initializers.Constant(RARE), name=EVIDENCE)(local)
    strongest = (keras.ops.logsumexp(SHARPNESS * cells, axis=(1, 2)) - math.log(side * side)) / SHARPNESS
    kept = layers.Dropout(dropout, name="dropout")(embedding)
    whole = layers.Concatenate(name="whole")([kept, strongest])
    logit = layers.Dense(1, name=LOGIT)(whole)
    # Last: what starts at random starts where it would without them.
    more = {REGION: layers.Dense(regions, name=REGION)(kept)} if regions else {}
    if fractures:
        more[FRACTURES] = layers.Dense(1, activation="softplus", name=FRACTURES)(whole)
    return outputs_of(inputs, logit, cells, embedding, **more)


def outputs_of(inputs: Any, logit: Any, evidence: Any, embedding: Any, **more: Any) -> Any:
    """The model of these tensors, as `build` promises it."""
    found = {LOGIT: logit, EVIDENCE: evidence, EMBEDDING: embedding}
    return runtime.keras().Model(inputs, found | more, name="fracture")


def _smaller(body: Any) -> Any:
    """The layers of `body` over an input of half the side: the same weights, not a copy."""
    keras = runtime.keras()
    rows, columns, channels = body.input.shape[1:]
    half = keras.Input((rows // 2, columns // 2, channels), name="half_scaled")
    return keras.models.clone_model(body, input_tensors=half, clone_function=lambda layer: layer)


def _finer(body: Any) -> Any:
    """The last map of `body` that is finer than its output."""
    side = body.output.shape[1]
    maps = [layer.output for layer in body.layers if len(layer.output.shape) == 4 and layer.output.shape[1] > side]
    finest = min(found.shape[1] for found in maps)
    return [found for found in maps if found.shape[1] == finest][-1]


def learn(model: Any, *, backbone: bool, pretrained: bool, frozen_stride: int = 1) -> None:
    """Say which part of `model` the next training may change: the head alone, or the backbone as well.

    Batch normalisation adapts to the radiographs, except in weights whose statistics were folded into the
    convolutions (their means are exactly 0): those it would spoil. Calling a layer with training=False does not
    keep its statistics, because the outer model's training=True wins; `trainable` does.

    Args:
        frozen_stride: in pretrained weights, layers whose maps are this coarse or finer keep what they have.
    """
    body = model.get_layer(BACKBONE)
    body.trainable = backbone
    if not (backbone and pretrained):
        return
    norms = [layer for layer in body.layers if hasattr(layer, "moving_mean")]
    if not any(np.asarray(layer.moving_mean).any() for layer in norms):
        for layer in norms:
            layer.trainable = False
    size = model.input.shape[1]
    for layer in body.layers:
        if frozen_stride > 1 and len(layer.output.shape) == 4 and layer.output.shape[1] * frozen_stride >= size:
            layer.trainable = False


def levels(model: Any) -> dict[str, int]:
    """By the path of each trainable weight how far it lies from the head: 0 there, and in the backbone one more for
    every halving of the stride, from 1 in the layers whose maps are the last ones.

    A layer without a map of its own (a channel's weight) belongs to the map before it.
    """
    body = model.get_layer(BACKBONE)
    found = {variable.path: 0 for variable in model.trainable_variables}
    last, side = body.output[1].shape[1], model.input.shape[1]
    for layer in body.layers:
        shape = layer.output.shape
        if len(shape) == 4 and shape[1] >= last:
            side = shape[1]
        for variable in layer.trainable_variables:
            found[variable.path] = 1 + round(math.log2(side / last))
    return found


def _fill(body: Any, backbone: str, weights: Path) -> None:
    """Load every weight of `body`, or refuse: Keras only warns about those it leaves random."""
    body.set_weights([np.full_like(weight, np.nan) for weight in body.get_weights()])
    try:
        with warnings.catch_warnings(action="ignore"):  # files of older Keras versions lack groups of weightless layers
            body.load_weights(weights)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"train.weights: {weights.name} does not fit {backbone}: {reason}") from None
    missing = sum(int(np.isnan(weight).any()) for weight in body.get_weights())
    if missing:
        raise ConfigError(f"train.weights: {weights.name} lacks {missing} of the weights of {backbone}")


def weights_sha256(model: Any) -> str:
    """The identity of a trained model: a hash of its weights in their order, whatever file they are stored in."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.dtype.str}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def logits(model: Any, pixels: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """(n, size, size) uint8 -> (n,) float64 logits."""
    return _output(model, LOGIT, pixels, batch_size)[:, 0].astype(np.float64)


def evidence(model: Any, pixels: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """(n, size, size) uint8 -> (n, h, w) float32: how likely each cell holds a fracture, 0..1, not calibrated."""
    return np.asarray(1 / (1 + np.exp(-_output(model, EVIDENCE, pixels, batch_size)[..., 0])))


def _output(model: Any, name: str, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """(n, ...) float32: what `model` makes of (n, size, size) uint8, batch by batch."""
    batch = np.zeros((batch_size, *pixels.shape[1:], 1), np.float32)  # always full: each new shape is compiled anew
    found = [np.empty((0, *model.output[name].shape[1:]), np.float32)]
    for start in range(0, len(pixels), batch_size):
        rows = pixels[start : start + batch_size]
        batch[: len(rows), :, :, 0] = rows
        found.append(np.asarray(model.predict_on_batch(batch)[name])[: len(rows)])
    return np.concatenate(found)


def save(model: Any, path: Path) -> None:
    """Write `path` (.keras); equal models give equal bytes: Keras's time stamps and memory addresses are taken out."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(members["metadata.json"])
    metadata["date_saved"] = ""
    members["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
    numbers: dict[bytes, bytes] = {}
    members["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda match: numbers.setdefault(match[0], str(len(numbers)).encode()),
        members["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def load(path: Path) -> Any:
    """Read a model that `save` wrote; nothing in the file is executed.

    Raises:
        DataError: missing, damaged, or not a Keras model.
    """
    keras = runtime.keras()
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable model ({' '.join(str(error).split())[:200]}); run `train`") from None
