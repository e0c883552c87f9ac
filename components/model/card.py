"""model_card.md of a release: the sections of the CHAI applied model card, filled from what the pipeline recorded.

What nobody measured is listed as missing; nothing is filled with a hope. Numbers on test patients are not here: they
belong to the evaluation of this very bundle, whose report names its hash.
"""

from __future__ import annotations

import pandas as pd

from components.model import reporting
from components.model.calibrate import Calibrated
from components.model.evaluation import WEAK, WEAK_NOTE
from components.model.examples import Examples
from components.model.regions import besides
from components.model.training import Training
from components.params import Export
from components.serving.bundle import Conformal, HeatMap, Regions, StudyThresholds, Supported, Thresholds

_TEMPLATE = """\
# Model card

Sections follow the CHAI applied model card v0.2. Written by the `export` step from the pipeline's records.

## Release

- What it is: one number per radiograph, the calibrated probability that it shows a fracture, and a heat map.{besides}
- Network: {backbones}, input {size} x {size} pixels, LiteRT {variant}; weights SHA-256 `{weights}`
- Identity: the SHA-256 of `manifest.json` beside this card.

## Uses and directions

- Intended use: {intended_use}. **Not a medical device.**
- Intended users: clinicians who read radiographs themselves, and researchers.
- How to use it: below the lower threshold the call is `no_fracture`, at or above the higher one `fracture`, between
  them `review`. Every call can be overridden, and a correction is kept.
- Out of scope: triage without a reader; images other than projection radiographs; body regions and devices that the
  tables below do not show; follow-up of known fractures.{supported}

## Warnings

- The probability holds for the prevalence and the devices of the calibration images. Elsewhere, calibrate again.
- The heat map is relative within one image: it shows where the evidence lies, not how strong it is.
- {heat_map}
- Metal, casts and printed markers travel with fractures in many archives; a network can learn them instead.

## Training data

{seen} images of {patients} patients took part: {fractures} with and {no_fractures} without a fracture to fit, the rest
to choose the epoch. Their pseudonyms are in `training_images.parquet`. Calibration and thresholds: {held} further or
choosing images, of these sites and regions:

{sites}

{regions}

## Provenance of the starting weights

{pretrained}

## Training and validation inside development
{weak_note}
| | |
|---|---|
| Networks | {networks} |
| AUROC on `tune` (chose the epoch, so optimistic{weak}) | {tune_auroc:.3f} |
| Calibration on `calibrate` | slope {slope:.3f}, intercept {intercept:.3f}, {n} images |
| High-sensitivity threshold, chosen on `tune` | {low:.4f} |
| High-specificity threshold, chosen on `tune` | {high:.4f} |
| The same two for a study: highest probability of its images | {maximum} |
| The same two for a study: noisy-or over its images | {noisy_or} |
| The same two for a study: attention over its images, learned on `tune` | {attention} |
| Prediction sets, fixed on `calibrate` | {sets} |
| Largest difference of probability, released graph against trained network | {gap:.1e} |
| Seed | {seed} |
| Software | {versions} |

## Key metrics, fairness, usefulness

In the evaluation report of this bundle: AUROC, sensitivity and specificity with patient-clustered intervals, of images
and of studies, prediction sets, calibration, decision curves, and slices by site, device, view, region, age, sex and
hour.

## Reporting checklists

Answered from the pipeline's records, in the checklists' own numbering; what is empty is for people to write.

{reporting}

## Not available

Prospective clinical results; reader study; regulatory clearance; funding and conflict statements; maintenance contact.
Whoever deploys this model adds them.
"""


def render(
    training: Training,
    curve: Calibrated,
    held: Examples,
    seen: pd.DataFrame,
    params: Export,
    gap: float,
    heat_map: HeatMap,
    told: Regions | None,
    supported: Supported | None,
    *,
    counts: bool,
) -> str:
    """The card as Markdown.

    Args:
        held: the tune and calibrate examples.
        seen: training_images.parquet.
        params: number format of the released weights, and the intended use.
        gap: largest difference of probability between the released graph and the trained network.
        heat_map: what its checks found.
        told: what the checks of the body region found; None: it tells none.
        supported: what files may state for a call to be made; None: anything.
        counts: whether it expects a number of fractures.
    """
    weak = "grouping" in held.table and bool((held.table["grouping"] == "weak").any())
    return _TEMPLATE.format(
        **training.model_dump(include={"size", "tune_auroc", "seed"}),
        backbones=_backbones(training),
        besides=besides(told, counts=counts),
        supported=f" {supported.sentence}" if supported else "",
        networks=_networks(training),
        fractures=training.fractures,
        no_fractures=training.no_fractures,
        variant=params.variant,
        intended_use=params.intended_use,
        weak=f"; {WEAK}" if weak else "",
        weak_note=f"\n{WEAK_NOTE}\n" if weak else "",
        weights=training.weights_sha256,
        heat_map=_heat_map(heat_map),
        reporting=reporting.section(_facts(training, curve, held, seen, params.variant, heat_map)),
        seen=len(seen),
        patients=seen["patient_id"].nunique(),
        held=len(held.table),
        sites=_counts(held.table, "site"),
        regions=_counts(held.table, "body_region"),
        pretrained=_started(training),
        slope=curve.slope,
        intercept=curve.intercept,
        n=curve.n,
        low=curve.thresholds.high_sensitivity.threshold,
        high=curve.thresholds.high_specificity.threshold,
        maximum=_pair(curve.study_thresholds.maximum if curve.study_thresholds else None),
        noisy_or=_pair(curve.study_thresholds.noisy_or if curve.study_thresholds else None),
        attention=_attention(curve.study_thresholds),
        sets=_sets(curve.conformal),
        gap=gap,
        versions=", ".join(f"{name} {number}" for name, number in sorted(training.versions.items())),
    )


def _pair(thresholds: Thresholds | None) -> str:
    if thresholds is None:
        return "none: `tune` has no studies of both kinds"
    return f"{thresholds.high_sensitivity.threshold:.4f}, {thresholds.high_specificity.threshold:.4f}"


def _attention(studies: StudyThresholds | None) -> str:
    if studies is None or studies.attention is None:
        return f"none: {studies.no_attention}" if studies and studies.no_attention else _pair(None)
    sharpness, confidence, views = studies.attention.rule
    return (
        f"{_pair(studies.attention.thresholds)}; weights softmax({sharpness:.2f} logit {confidence:+.2f} size), "
        f"{views:+.2f} times the logarithm of their number, from {studies.attention.studies} studies"
    )


def _sets(cuts: Conformal) -> str:
    return (
        f"`fracture` from {cuts.fracture_from:.4f}, `no_fracture` up to {cuts.no_fracture_to:.4f}: to hold the true "
        f"label for {100 * (1 - cuts.alpha):g}% of either class"
    )


def _facts(
    training: Training, curve: Calibrated, held: Examples, seen: pd.DataFrame, variant: str, heat_map: HeatMap
) -> dict[str, str]:
    """What the checklists of reporting.yaml ask for, as far as the pipeline knows it."""
    report = "the evaluation report of this bundle"
    sites = held.table["site"].nunique()
    transform = held.transform
    points = curve.thresholds
    return {
        "users": "clinicians who read radiographs themselves, and researchers; decision support for research",
        "sites": f"{sites} site(s) in tune and calibrate, listed under *Training data*",
        "eligibility": "radiographs that intake and the suite `images` of `validate` accept, labelled with or without",
        "preparation": (
            f"window to the {transform.low:g} and {transform.high:g} percentile of the foreground, then a square of "
            f"{transform.size} pixels; the same code in training and service, proved by the manifest's `golden`"
        ),
        "deidentification": "keyed pseudonyms and shifted dates at intake; text in the pixels painted over or refused",
        "outcome": "a fracture anywhere on the single image, by the archive's labels and adjudicated corrections",
        "predictors": "the pixels alone; no metadata enters the network",
        "size": (
            f"{len(seen)} images of {seen['patient_id'].nunique()} patients to learn from ({training.fractures} with, "
            f"{training.no_fractures} without a fracture to fit); {len(held.table)} in tune and calibrate; the sealed "
            f"test set in {report}"
        ),
        "missing": "an image whose label is unknown is left out, and never counts as without a fracture",
        "partition": "by patient, for life: train, tune, calibrate, test; near-duplicates share a side",
        "model": (
            f"{_backbones(training)}, {training.size} x {training.size}, LiteRT {variant}; weights "
            f"`{training.weights_sha256[:12]}`; the whole graph is `model.tflite` beside this card"
        ),
        "networks": _networks(training),
        "weights": ", ".join(found.pretrained.name if found.pretrained else "random" for found in training.backbones),
        "training": f"the parameters of `training.json`, seed {training.seed}",
        "selection": f"on role tune (AUROC {training.tune_auroc:.3f} there, optimistic)",
        "software": ", ".join(f"{name} {number}" for name, number in sorted(training.versions.items())),
        "output": (
            f"a probability, calibrated on {curve.n} images of calibrate (slope {curve.slope:.3f}, intercept "
            f"{curve.intercept:.3f}); calls change at {points.high_sensitivity.threshold:.4f} and "
            f"{points.high_specificity.threshold:.4f}, chosen on tune"
        ),
        "evaluation": f"{report}, with patient-clustered intervals",
        "slices": f"slices of {report}",
        "robustness": f"robustness of {report}",
        "failures": f"missed fractures and false alarms of {report}, and its errors.csv",
        "heat_map": "shown: it passed its checks" if heat_map.shown else "hidden: it did not pass its checks",
        "poor_input": "unreadable files are refused; quality is told; what is no radiograph is left to a person",
        "limits": "*Uses and directions* and *Warnings* above",
    }


def _heat_map(checked: HeatMap) -> str:
    """Whether readers are shown it, and what its checks found on fractures of tune and calibrate."""
    if not checked.shown:
        return f"It is **hidden** from readers: {'; '.join(checked.reasons)}."
    return (
        f"It passed its checks: its peak lies in a reader's box on {checked.pointed} of the fractures, where chance "
        f"gives {checked.chance:.3f}; with every weight re-drawn the rank correlation of old map and new is "
        f"{checked.similarity[-1].value:.2f}."
    )


def _backbones(training: Training) -> str:
    return " and ".join(backbone.name for backbone in training.backbones)


def _started(training: Training) -> str:
    """A line for each backbone, and what is not ours to say."""
    lines = [f"- {backbone.started}" for backbone in training.backbones]
    if any(backbone.pretrained for backbone in training.backbones):
        lines += [
            "",
            "ImageNet's own images are licensed for research; whether weights inherit that is for your counsel.",
        ]
    return "\n".join(lines)


def _networks(training: Training) -> str:
    """What was fitted, and which epochs were kept."""
    kept = ", ".join(f"{member.best_epoch} of {member.epochs}" for member in training.members)
    mirror = "; the mean over the image and its mirror image" if training.mirror else ""
    number = len(training.members)
    if number == 1:
        return f"one; epoch kept {kept}{mirror}"
    alone = training.members[0].fold is None
    seen = "fitted to the same patients" if alone else "each without a fold of the patients"
    return f"{number}, {seen}, released as one; epochs kept {kept}{mirror}"


def _counts(table: pd.DataFrame, column: str) -> str:
    """A Markdown table: images and fractures by `column`."""
    groups = table.groupby(column)["label"].agg(["size", "sum"]).sort_index()
    rows = [f"| {name} | {int(row['size'])} | {int(row['sum'])} |" for name, row in groups.iterrows()]
    return "\n".join([f"| {column} | images | fractures |", "|---|---|---|", *rows])
