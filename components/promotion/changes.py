"""Noun: what may change between champion and challenger, and what makes a model another submission.

A release is read off its bundle, field by field, and every field of the manifest belongs to one aspect that a person
would call by name. What differs must stand in `gate.may_change`; what stands in `gate.must_stay`, or in neither list,
fails the gate. So an aspect that nobody thought of is refused, not let through.

The population is read from the bundle's reference (the images of tune and calibrate): sites may come and go, as more
hospitals take part; body regions are what the card promises to be checked on, so another set of them is another use.

Source: FDA, predetermined change control plans (2025): modifications stay within the intended use of the device.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from components.gate_params import Aspect, Gate
from components.model.slices import UNKNOWN
from components.promotion.decision import Check
from components.promotion.protocol import Ruling
from components.serving.bundle import CARD, MODEL, REFERENCE, TRAINING_IMAGES, Bundle

# A field of the manifest, or of one of its parts where that is told apart.
ASPECTS: dict[str, Aspect] = {
    "model.backbone": "backbone",
    "model.pretrained": "backbone",
    "model.further": "backbone",
    "model.networks": "backbone",
    "model.mirror": "backbone",
    "model.size": "input_size",
    "transform.size": "input_size",
    "transform.low": "preprocessing",
    "transform.high": "preprocessing",
    "transform.version": "preprocessing",
    "model.variant": "number_format",
    "model.weights_sha256": "weights",
    "model.seed": "weights",
    f"parts.{MODEL}": "weights",
    "parity": "weights",
    "calibration": "calibration",
    "thresholds": "thresholds",
    "study_thresholds": "thresholds",
    "conformal": "prediction_sets",
    "heat_map": "heat_map",
    "regions": "region_check",
    "supported.body_regions": "supported_cases",
    "supported.views": "supported_cases",
    "data": "training_data",
    f"parts.{REFERENCE}": "training_data",
    f"parts.{TRAINING_IMAGES}": "training_data",
    f"parts.{CARD}": "model_card",
    "vocabulary": "vocabulary",
    "intended_use": "intended_use",
    "reference.site": "sites",
    "reference.body_region": "body_regions",
}
# The first is one for all that can be opened; the next two follow from the transform and the reference; the last is
# read below, for without it anything is supported.
DERIVED = ("format", "golden", "scope_from", "supported")
SPLIT = ("model", "transform", "parts")


def changes(challenger: Bundle, champion: Bundle, params: Gate) -> tuple[Ruling, tuple[str, ...]]:
    """Compare two releases under the protocol.

    Returns:
        Two checks with their sentences, and the names of the aspects that differ, in the protocol's order.
    """
    mine, theirs = fields(challenger), fields(champion)
    differing: dict[str, list[str]] = {}
    unstated: list[str] = []
    for field in sorted(mine.keys() | theirs.keys()):
        aspect: str = ASPECTS.get(field, field)
        if mine.get(field) == theirs.get(field):
            continue
        if aspect in params.must_stay and theirs.get(field) in (None, []):
            unstated.append(aspect)
            continue
        differing.setdefault(aspect, []).append(_difference(field, mine.get(field), theirs.get(field)))
    refused = {aspect: said for aspect, said in differing.items() if aspect not in params.may_change}
    named: tuple[str, ...] = (*params.may_change, *params.must_stay)
    changed = (*(a for a in named if a in differing), *sorted(set(differing) - set(named)))
    reasons = tuple(
        f"{_words(aspect)} differs from the champion's ({'; '.join(said)}), and the protocol "
        + ("asks it to stay" if aspect in params.must_stay else "does not name it")
        + ": such a model is another submission; give it a name of its own (`gate.model`), or review the protocol."
        for aspect, said in refused.items()
    )
    kept = [aspect for aspect in refused if aspect in params.must_stay]
    checks = (
        Check(
            name="what may not change",
            expected=f"{', '.join(map(_words, params.must_stay))}: as the champion's",
            found=f"{', '.join(map(_words, kept))} changed" if kept else "as the champion's",
            verdict="failed" if kept else "passed",
        ),
        Check(
            name="what changed",
            expected="only what the protocol names",
            found=", ".join(_words(aspect) for aspect in changed if aspect not in kept) or "nothing",
            verdict="failed" if len(refused) > len(kept) else "passed",
        ),
    )
    told = tuple(
        f"{_words(aspect)}: the champion's bundle does not state it; compare by hand."
        for aspect in sorted(set(unstated))
    )
    return Ruling(checks, reasons, told, certain=bool(refused)), changed


def fields(bundle: Bundle) -> dict[str, Any]:
    """What the bundle is, field by field; a field of an unknown name stands under that name."""
    body = bundle.manifest.model_dump(mode="json", exclude=set(DERIVED))
    found: dict[str, Any] = {}
    for name, value in body.items():
        found |= {f"{name}.{key}": inner for key, inner in value.items()} if name in SPLIT else {name: value}
    reference = pd.read_parquet(bundle.folder / REFERENCE, columns=["site", "body_region"])
    for column in reference.columns:
        found[f"reference.{column}"] = sorted(set(reference[column].dropna().astype(str)) - {UNKNOWN})
    known = bundle.manifest.supported
    for name in ("body_regions", "views"):
        found[f"supported.{name}"] = sorted(getattr(known, name, ())) or ["any"]
    return found


def _difference(field: str, mine: Any, theirs: Any) -> str:
    """Short values are quoted, long ones only named."""
    if isinstance(mine, list) and isinstance(theirs, list) and all(isinstance(value, str) for value in mine + theirs):
        words = [f"with {value}" for value in sorted(set(mine) - set(theirs))]
        words += [f"without {value}" for value in sorted(set(theirs) - set(mine))]
        return ", ".join(words) or "in another order"
    short = isinstance(mine, (str, int, float)) and isinstance(theirs, (str, int, float))
    return f"{theirs} before, {mine} now" if short and len(f"{mine}{theirs}") <= 200 else field


def _words(aspect: str) -> str:
    return aspect.replace("_", " ")
