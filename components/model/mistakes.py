"""Noun: every missed fracture and false alarm, with proposed reasons and the most alike cases, for a person to read.

A tag is proposed only where something that is known speaks for it; the rest is for whoever looks at the picture. The
vocabulary has more tags than can be proposed: nothing recorded tells a vessel or an old fracture from a new one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from components.model.explain import covered
from components.radiograph.labels import boxes_of
from components.serving import caution
from components.serving.bundle import REFERENCE, Thresholds
from components.serving.scope import unit

FILE = "errors.csv"
MISSED = ("subtle", "occult", "off-view", "quality")
FALSE_ALARM = ("growth plate", "vessel", "old fracture", "hardware", "artefact")
SUBTLE = 0.01  # share of the image that all boxes of a subtle fracture cover, at most
GROWING = 18  # years; below it growth plates may be open
NEAREST = 3


@dataclass(frozen=True)
class Neighbour:
    """A case of roles tune and calibrate: `likeness` is the cosine of both embeddings, `label` what readers said."""

    image_id: str
    likeness: float
    label: float
    probability: float

    def __str__(self) -> str:
        truth = "fracture" if self.label == 1 else "no fracture"
        return f"{self.image_id} {self.likeness:.3f} {truth} ({self.probability:.2f})"


@dataclass(frozen=True)
class Mistake:
    """One error at the operating point that promised otherwise."""

    row: int
    image_id: str
    kind: Literal["missed", "false alarm"]
    probability: float
    proposed: tuple[str, ...]
    nearest: tuple[Neighbour, ...]


def mistakes(
    table: pd.DataFrame,
    probabilities: np.ndarray,
    embeddings: np.ndarray,
    quality: pd.DataFrame,
    neighbours: Neighbours,
    thresholds: Thresholds,
) -> list[Mistake]:
    """Missed fractures, the least probable first, then false alarms, the most probable first.

    Args:
        table: the sealed test images.
        embeddings: (n, d), in the same order, and `quality` as `measured.quality_of` gives it.
    """
    labels = table["label"].to_numpy(float)
    low, high = thresholds.high_sensitivity.threshold, thresholds.high_specificity.threshold
    missed = np.flatnonzero((labels == 1) & (probabilities < low))
    alarms = np.flatnonzero((labels == 0) & (probabilities >= high))
    ordered = [
        *sorted(missed.tolist(), key=lambda row: (probabilities[row], row)),
        *sorted(alarms.tolist(), key=lambda row: (-probabilities[row], row)),
    ]
    facts, measured = table.to_dict("records"), quality.to_dict("records")
    any_boxes = any(boxes_of(text) for text in table["boxes"])
    return [
        Mistake(
            row=row,
            image_id=str(table["image_id"].iloc[row]),
            kind="missed" if labels[row] == 1 else "false alarm",
            probability=float(probabilities[row]),
            proposed=tuple(proposed(facts[row], measured[row], boxes_drawn=any_boxes)),
            nearest=tuple(neighbours.of(embeddings[row])),
        )
        for row in ordered
    ]


def proposed(facts: Mapping[Hashable, Any], quality: Mapping[Hashable, Any], *, boxes_drawn: bool) -> Iterator[str]:
    """Tags for which something known speaks.

    Args:
        facts: label, boxes, rows, columns, and view, age_years, hardware, masked where they are known.
        quality: what was measured of the same image.
        boxes_drawn: readers of this archive mark fractures; one without a box is one nobody could point at.
    """
    if facts["label"] == 1:
        boxes = boxes_of(facts["boxes"])
        if boxes and covered((int(facts["rows"]), int(facts["columns"])), boxes) <= SUBTLE:
            yield "subtle"
        if not boxes and boxes_drawn:
            yield "occult"
        if facts.get("view") == "oblique":
            yield "off-view"
        if caution.warnings({str(name): value for name, value in quality.items() if pd.notna(value)}):
            yield "quality"
        return
    age, hardware, masked = (facts.get(name) for name in ("age_years", "hardware", "masked"))
    if pd.notna(age) and float(age) < GROWING:
        yield "growth plate"
    if pd.notna(hardware) and bool(hardware):
        yield "hardware"
    if isinstance(masked, str) and masked not in ("", "[]"):
        yield "artefact"


@dataclass(frozen=True)
class Neighbours:
    """The labelled cases of the bundle's reference, by embedding: (n, d) of unit length.

    These are the images of tune and calibrate. Whatever the network was fitted to is not in the bundle's reference.
    """

    table: pd.DataFrame
    units: np.ndarray

    @classmethod
    def open(cls, bundle: Path, accepted: Path) -> Neighbours:
        """Read the reference of `bundle`, and what readers say of its images by the table `accepted` as it is now."""
        known = pd.read_parquet(bundle / REFERENCE, columns=["image_id", "probability", "embedding"])
        labels = pd.read_parquet(accepted, columns=["image_id", "label"]).dropna()
        table = known.merge(labels, on="image_id", how="inner").reset_index(drop=True)
        return cls(table, unit(np.stack(table["embedding"].to_list())) if len(table) else np.empty((0, 0)))

    def of(self, embedding: np.ndarray) -> list[Neighbour]:
        """The NEAREST cases, the most alike first."""
        if not len(self.table):
            return []
        likeness = self.units @ unit(embedding[None])[0]
        rows = np.argsort(-likeness, kind="stable")[:NEAREST]
        found = self.table.iloc[rows]
        return [
            Neighbour(str(name), float(alike), float(label), float(probability))
            for name, alike, label, probability in zip(
                found["image_id"], likeness[rows], found["label"], found["probability"], strict=True
            )
        ]


def as_csv(found: Iterable[Mistake], table: pd.DataFrame) -> str:
    """The list as a person edits it: `tags` and `note` are theirs, `proposed` is what was proposed."""
    about = ["site", "view", "body_region", "sex", "age_years", "hardware"]
    rows = [
        {"image_id": one.image_id, "error": one.kind, "probability": f"{one.probability:.4f}"}
        | {name: table[name].iloc[one.row] if name in table else None for name in about}
        | {"proposed": "; ".join(one.proposed), "tags": "", "note": "", "nearest": "; ".join(map(str, one.nearest))}
        for one in found
    ]
    columns = ["image_id", "error", "probability", *about, "proposed", "tags", "note", "nearest"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
