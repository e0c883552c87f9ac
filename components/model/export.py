"""Step: make the release bundle: one LiteRT graph with calibration and heat map inside, and a manifest of hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.rows import rows_sha256
from components.dataset.store import atomic_folder
from components.errors import DataError
from components.model import card, examples, network, regions, sanity
from components.model.calibrate import Calibrated
from components.model.conversion import convert, parity, steady
from components.model.examples import Examples
from components.model.measured import quality_of
from components.model.training import IMAGES, MODEL, Training
from components.params import Export
from components.radiograph.labels import FRACTURE, NO_FRACTURE
from components.serving import bundle as parts
from components.serving.bundle import Graph, Manifest, Outputs
from components.serving.scope import Scope


def export(
    *, accepted: Path, features: Path, prepared: Path, trained: Path, calibration: Path, bundle: Path, params: Export
) -> None:
    """Write the folder `bundle`. Equal inputs give equal bytes.

    Raises:
        DataError: an input is missing or does not fit the others, or the converted graph's probability differs
            from the trained network's by more than `params.parity` on any checked image, or from call to call.
    """
    data = examples.load(accepted, prepared, roles=("tune", "calibrate"))
    quality = quality_of(data.table, features)
    training, curve = Training.read(trained), Calibrated.read(calibration)
    model = network.load(trained / MODEL)
    if (found := network.weights_sha256(model)) != training.weights_sha256:
        raise DataError(f"{trained}: weights are {found}, training.json says {training.weights_sha256}; run `train`")
    content = convert(model, curve, params.variant, data.pixels)
    graph = Graph(content, training.size, where=bundle / parts.MODEL)
    outputs = [graph.run(square) for square in data.pixels]
    alike = parity(model, curve, data, outputs)
    if not alike.difference <= params.parity:
        raise DataError(
            f"export: the LiteRT graph and the trained network differ by up to {alike.difference:.2g} in probability "
            f"on {alike.images} images, export.parity allows {params.parity}; use variant float32"
        )
    if not steady(graph, data, outputs):
        raise DataError(f"export: the {params.variant} graph answers the same image in two ways; use variant float32")
    heat_map = sanity.check(model, data, outputs, params.heat_map, training.seed)
    images = pd.read_parquet(trained / IMAGES)
    with atomic_folder(bundle) as folder:
        (folder / parts.MODEL).write_bytes(content)
        known = reference(data, quality, outputs)
        known.to_parquet(folder / parts.REFERENCE, index=False)
        images.to_parquet(folder / parts.TRAINING_IMAGES, index=False)
        told = regions.check(training.regions, data, outputs, params.regions) if training.regions else None
        counts = outputs[0].fractures is not None
        scoped = supported(data, params.min_supported)
        text = card.render(
            training, curve, data, images, params, alike.difference, heat_map, told, scoped, counts=counts
        )
        (folder / parts.CARD).write_text(text, "utf-8")
        scope = Scope.of(np.stack(known["embedding"].to_list()))
        made = manifest(data, training, curve, heat_map, alike, scope, params, len(images), accepted, folder)
        if told:  # what a network does not say is not written
            made = made.model_copy(update={"regions": told})
        if scoped:
            made = made.model_copy(update={"supported": scoped})
        (folder / parts.MANIFEST).write_bytes(made.encode())


def reference(data: Examples, quality: pd.DataFrame, outputs: list[Outputs]) -> pd.DataFrame:
    """What unseen images of the training sites look like: quality, probability and embedding of tune + calibrate."""
    about = ["image_id", "patient_id", "site", "device", "view", "body_region"]
    table = data.table[about].merge(quality, on="image_id")
    table["probability"] = [output.probability for output in outputs]
    return table.assign(embedding=pd.Series([output.embedding for output in outputs], index=table.index))


def supported(data: Examples, fewest: int) -> parts.Supported | None:
    """What images of at least `fewest` patients of tune and calibrate state; None: with 0, or nothing."""
    if not fewest:
        return None
    found = {}
    for name in ("body_region", "view"):
        stated = data.table[~data.table[name].isin(examples.UNTOLD)].groupby(name)["patient_id"].nunique()
        found[f"{name}s"] = tuple(sorted(stated.index[stated >= fewest]))
    return parts.Supported(**found) if any(found.values()) else None


def manifest(
    data: Examples,
    training: Training,
    curve: Calibrated,
    heat_map: parts.HeatMap,
    alike: parts.Parity,
    scope: Scope,
    params: Export,
    images: int,
    accepted: Path,
    folder: Path,
) -> Manifest:
    """The manifest of the parts that stand in `folder`."""
    first, *further = training.backbones
    model = parts.Model(
        backbone=first.name,
        size=training.size,
        variant=params.variant,
        weights_sha256=training.weights_sha256,
        pretrained=first.pretrained,
        networks=len(training.members),
        mirror=training.mirror,
        seed=training.seed,
    )
    return Manifest(
        format=1,
        model=model.model_copy(update={"further": tuple(further)}) if further else model,
        transform=data.transform,
        golden=data.transform.golden(),
        calibration=parts.Calibration(**curve.model_dump(include=set(parts.Calibration.model_fields))),
        thresholds=curve.thresholds,
        study_thresholds=curve.study_thresholds,
        conformal=curve.conformal,
        heat_map=heat_map,
        parity=alike,
        intended_use=params.intended_use,
        scope_from=scope.least,
        vocabulary=(FRACTURE, NO_FRACTURE, "review"),
        data=parts.Data(training_images=images, accepted_sha256=rows_sha256(accepted)),
        parts={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in parts.PARTS},
    )
