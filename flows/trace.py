"""From a prediction back to what made it, and from an image forward to what learned from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from components.dataset import store
from components.errors import DataError
from components.promotion.signers import behind
from components.settings import Settings
from flows import clients


class PredictionTrace(BaseModel):
    """A prediction, the bundle behind it, who let it serve, and what it learned from."""

    prediction: dict[str, Any]
    bundle_hash: str
    version: str
    approver: str | None
    rationale: str | None
    git_commit: str | None
    data_sha256: str | None
    training_images: int
    training_patients: int
    training_labels: dict[str, int]
    corrections: int

    def text(self) -> str:
        """The chain, a link a line."""
        said = self.prediction
        labels = ", ".join(f"{count} {who}" for who, count in self.training_labels.items())
        return "\n".join(
            [
                f"prediction   {said['id']}  probability {said['probability']:.3f}, {said['call']}",
                f"image        {said['image_id']}  (site {said['site']}, {self.corrections} correction(s))",
                f"bundle       {self.bundle_hash}",
                f"version      {self.version}  approved by {self.approver}: {self.rationale}",
                f"build        git commit {self.git_commit}, accepted data {self.data_sha256}",
                f"learned from {self.training_images} images of {self.training_patients} patients; labels: {labels}",
            ]
        )


class ImageTrace(BaseModel):
    """An image: what is known of it, its label events, what predicted it, and the versions that learned from it."""

    image_id: str
    facts: dict[str, Any]
    labels: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    learned_by: list[int]

    def text(self) -> str:
        """The image's life, a line an event."""
        lines = [f"image     {self.image_id}  " + ", ".join(f"{k} {v}" for k, v in self.facts.items() if v is not None)]
        lines += [f"label     {e['time']}  {e['label']}  ({e['provenance']}, by {e['reader']})" for e in self.labels]
        lines += [
            f"predicted {p['time']}  {p['probability']:.3f} {p['call']}  by version {p['version']} ({p['id']})"
            for p in self.predictions
        ]
        lines.append("learned by version(s) " + (", ".join(map(str, self.learned_by)) or "none"))
        return "\n".join(lines)


def prediction(settings: Settings, identity: str) -> PredictionTrace:
    """Trace one prediction.

    Raises:
        DataError: no prediction has this id.
    """
    log = clients.prediction_log(settings)
    row = log.prediction(identity)
    ledger = clients.ledger(settings)
    bundle_hash = row.bundle_hash
    approval = next((e for e in reversed(ledger.entries("approval")) if e.body.get("bundle_hash") == bundle_hash), None)
    approvals = behind(approval, ledger.entries()).approvals if approval else ()
    decision = next((e for e in reversed(ledger.entries("decision")) if e.body.get("bundle_hash") == bundle_hash), None)
    learned = pd.read_parquet(settings.state / "bundles" / bundle_hash / "training_images.parquet")
    events = _events(settings, set(learned["image_id"]))
    return PredictionTrace(
        prediction={
            "id": row.id,
            "image_id": row.image_id,
            "probability": row.probability,
            "call": row.call,
            "site": row.site,
        },
        bundle_hash=bundle_hash,
        version=row.version,
        approver=", ".join(str(e.signer) for e in approvals) or None,
        rationale="; ".join(str(e.body["rationale"]) for e in approvals) or None,
        git_commit=decision.body.get("git_commit") if decision else None,
        data_sha256=decision.body.get("data_sha256") if decision else None,
        training_images=len(learned),
        training_patients=int(learned["patient_id"].nunique()),
        training_labels={str(who): int(count) for who, count in events["provenance"].value_counts().items()},
        corrections=len(log.case(identity).reads),
    )


def image(settings: Settings, identity: str) -> ImageTrace:
    """Trace one image.

    Raises:
        DataError: the image is neither in the archive nor in the prediction log.
    """
    root, paths = settings.workspace, clients.params(settings).paths
    archive = store.read_catalog(root / paths.catalog)
    row = archive[archive["image_id"] == identity]
    predictions = clients.prediction_log(settings).of_image(identity)
    if row.empty and not predictions:
        raise DataError(f"image {identity}: neither in the archive nor in the prediction log")
    facts = {} if row.empty else {k: row.iloc[0][k] for k in ("site", "device", "view", "body_region", "batch")}
    events = _events(settings, {identity})
    return ImageTrace(
        image_id=identity,
        facts={key: str(value) for key, value in facts.items()},
        labels=events[["time", "label", "provenance", "reader"]].to_dict("records"),
        predictions=[
            {"id": p.id, "time": str(p.time), "probability": p.probability, "call": p.call, "version": p.version}
            for p in predictions
        ],
        learned_by=versions_that_learned(settings, "image_id", {identity}),
    )


def _events(settings: Settings, images: set[str]) -> pd.DataFrame:
    events = store.label_events(settings.workspace / clients.params(settings).paths.labels)
    return events[events["image_id"].isin(images)]


def versions_that_learned(settings: Settings, column: str, values: set[str]) -> list[int]:
    """The versions whose list of training images has one of `values` in `column`."""
    found = []
    for version, folder in _bundles(settings):
        learned = pd.read_parquet(folder / "training_images.parquet", columns=[column])
        if values & set(learned[column]):
            found.append(version)
    return sorted(found)


def _bundles(settings: Settings) -> Iterator[tuple[int, Path]]:
    """Every registered version with its bundle's folder, fetched where it is not here."""
    name = clients.params(settings).gate.model
    registry = clients.registry(settings)
    for version, bundle_hash in registry.bundles(name).items():
        folder = settings.state / "bundles" / bundle_hash
        if not folder.is_dir():
            registry.download_bundle(name, version, folder)
        yield version, folder
