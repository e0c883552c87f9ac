"""Noun: evaluation.json: what a bundle did on the sealed test images, every figure with interval and denominator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import DataError
from components.model.statistics import Estimate

FILE = "evaluation.json"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"

Evidence = Literal["patient grouping", "weak grouping"]
# Stands wherever a figure of such images does: the file, its page, the card, the decision, the registry, the tables.
WEAK: Evidence = "weak grouping"
WEAK_NOTE = (
    "Weak grouping. Some images came without patient ids, and neighbouring images stand in for a patient there. A "
    "patient may be on both sides of the split, and every interval may be too narrow."
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AtPrevalence(_Part):
    """Predictive values where `prevalence` of the patients have a fracture; None: no image is called so."""

    prevalence: float
    ppv: Estimate | None
    npv: Estimate | None


class Point(_Part):
    """Both rates at one threshold, frozen before the test set was seen.

    Attributes:
        sensitivity: which is recall.
        precision: the share of fractures among what is called, at the prevalence of this very test set, which is
            enriched: `at_prevalence` says what a call is worth in use. None: nothing is called.
    """

    threshold: float
    source_role: str
    sensitivity: Estimate
    specificity: Estimate
    precision: Estimate | None
    accuracy: Estimate
    f1: Estimate | None
    at_prevalence: tuple[AtPrevalence, ...]


class Points(_Part):
    high_sensitivity: Point
    high_specificity: Point


class Reliability(_Part):
    """Calibration. `slope` and `intercept` are None when no finite line fits (the probabilities separate the classes).

    Attributes:
        ece: expected calibration error; `ece_null_mean` and `ece_null_95` are what chance alone gives.
        consistent: the error lies within chance, and the slope's interval touches .8 to 1.2.
    """

    brier: Estimate
    slope: Estimate | None
    intercept: Estimate | None
    ece: float
    ece_null_mean: float
    ece_null_95: float
    consistent: bool


class Benefit(_Part):
    """One row of the decision curve: net true positives per image; doing nothing has 0."""

    threshold: float
    model: float
    treat_all: float


class Review(_Part):
    """What the bundle leaves to a person, and how it does on the rest; None: nothing of that kind is left."""

    share: Estimate
    sensitivity: Estimate | None
    specificity: Estimate | None


class Sets(_Part):
    """Prediction sets that role `calibrate` fixed (components/model/conformal.py): do they keep their promise here?

    Attributes:
        fracture_covered, no_fracture_covered: share of a class whose sets hold its label; 1 - alpha is promised.
        settled: share of images with one label in the set; `both` and `none` are the others, looked at first.
        sensitivity, specificity: of the label of the settled ones; None: nothing of that kind is settled.
    """

    alpha: float
    fracture_covered: Estimate
    no_fracture_covered: Estimate
    settled: Estimate
    both: Estimate
    none: Estimate
    sensitivity: Estimate | None
    specificity: Estimate | None


class StudyPoint(_Part):
    """Both rates at one threshold on the probability of a study."""

    threshold: float
    source_role: str
    sensitivity: Estimate
    specificity: Estimate


class StudyPoints(_Part):
    high_sensitivity: StudyPoint
    high_specificity: StudyPoint


class Combined(_Part):
    """One rule that makes one probability of a study's images; `points`: at thresholds frozen on studies of `tune`.

    None: the bundle holds none.
    """

    auroc: Estimate
    points: StudyPoints | None


class StudyFigures(_Part):
    """Examinations as cases: every image of a study gives one probability (components/model/studies.py).

    Attributes:
        several: studies of more than one image; without any, every figure is that of the images.
        mixed: studies that show a fracture on some of their images only.
        incomplete: studies of which the test set holds some images and leaves others out.
        as_served: a study is called when any of its images is, at the thresholds frozen on images.
        attention: by the rule that was learned on studies of `tune`; `attention_gain`: of AUROC over the maximum, on
            the same studies; `no_attention`: why the bundle holds no such rule. None: there is no more to say.
    """

    studies: int
    several: int
    mixed: int
    incomplete: int
    positives: int
    negatives: int
    as_served: StudyPoints
    maximum: Combined
    noisy_or: Combined
    attention: Combined | None = None
    attention_gain: Estimate | None = None
    no_attention: str | None = None


class Slice(_Part):
    """One value of one column.

    Attributes:
        verdict: "insufficient" below evaluate.min_slice fractures or non-fractures; it has no figures and is not green.
        difference: of sensitivity (high-sensitivity point), and of specificity (high-specificity point), to the rest.
        p: two-sided, of each difference; None where the rest is insufficient.
        flagged: a difference with a false discovery rate of 5% over all slices (Benjamini-Hochberg: for exploration).
    """

    column: str
    value: str
    images: int
    patients: int
    positives: int
    negatives: int
    verdict: Literal["measured", "insufficient"]
    auroc: Estimate | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    difference_sensitivity: Estimate | None = None
    difference_specificity: Estimate | None = None
    p_sensitivity: float | None = None
    p_specificity: float | None = None
    flagged: bool = False


class Localisation(_Part):
    """Pointing game on fractures with boxes: how often the heat map's peak lies in one.

    Attributes:
        chance: mean share of those images that the boxes cover.
        heat_map_shown: whether the bundle shows readers its map; decided before these images were seen (`export`).
        reasons: why it does not.
    """

    hit_rate: Estimate | None
    chance: float | None
    heat_map_shown: bool
    reasons: tuple[str, ...]


class Perturbed(_Part):
    """One way to worsen a picture, at one strength, against the same images as they are; units: model/robustness.py.

    Attributes:
        drop: by how much the AUROC lies below the one without.
        flips: images whose call changes.
    """

    name: str
    strength: float
    auroc: Estimate | None
    drop: Estimate | None
    flips: Estimate | None


class Polarity(_Part):
    """The same pictures told as MONOCHROME2 and as MONOCHROME1, through the DICOM reader: they must score the same."""

    images: int
    largest_difference: float


class Foreign(_Part):
    """What the service answers to a picture that is no radiograph; `abstained`: it leaves it to a person."""

    picture: str
    probability: float
    call: str
    abstained: bool
    warnings: tuple[str, ...]


class Robustness(_Part):
    """How far the bundle's word holds, on `images` of the sealed ones; `auroc`: of those, as they are.

    `turned_away`: all sealed images that are like nothing in the bundle's reference, and get no call but `review`.
    """

    turned_away: Estimate | None
    images: int
    positives: int
    auroc: Estimate | None
    perturbed: tuple[Perturbed, ...]
    polarity: Polarity
    foreign: tuple[Foreign, ...]


class RegionRecall(_Part):
    """Of the images of one body region, the share that is named so; None: there are none."""

    name: str
    recall: Estimate | None


class RegionFigures(_Part):
    """The body region that is told, against the one that is stated, over images whose region the bundle knows.

    Attributes:
        sure: the share named right of those on which one region has .9 or more; None: of none.
        contradicted: the share on which another region has .9 or more: such a case goes to a person first.
        untold: images of no region that it knows, or of several; no part of any figure.
    """

    accuracy: Estimate
    sure: Estimate | None
    contradicted: Estimate
    untold: int
    each: tuple[RegionRecall, ...]


class CountFigures(_Part):
    """The expected number of fractures against the number of boxes: mean absolute errors.

    Attributes:
        on_fractures: over images with a fracture alone; None: none has boxes.
        of_none: the error of always saying 0.
        uncounted: images with a fracture that nobody has located; no part of any figure.
    """

    error: Estimate
    on_fractures: Estimate | None
    of_none: float
    uncounted: int


class Heads(_Part):
    """What the bundle says beside fracture or not; None: it does not, or no image has the label."""

    regions: RegionFigures | None
    counts: CountFigures | None


class Evaluation(_Part):
    """evaluation.json. `sensitivity` is at the high-sensitivity point, `specificity` at the high-specificity point.

    `sets` is None where the bundle is older than they are, `studies` where every study shows a fracture, or none does,
    `heads` where the bundle says nothing but fracture or not. `unsupported` is the share of images whose stated body
    region or view the service makes no call on; the calls judged here are without that rule. None: it has no such rule.
    """

    format: Literal[1] = 1
    bundle_hash: str
    accepted_sha256: str
    test_sha256: str
    evidence: Evidence
    images: int
    patients: int
    positives: int
    negatives: int
    excluded: dict[str, int]
    resamples: int
    seed: int
    min_slice: int
    auroc: Estimate
    auprc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    points: Points
    reliability: Reliability
    review: Review
    unsupported: Estimate | None = None
    sets: Sets | None
    studies: StudyFigures | None
    localisation: Localisation
    benefit: tuple[Benefit, ...]
    slices: tuple[Slice, ...]
    robustness: Robustness
    heads: Heads | None = None

    def encode(self) -> bytes:
        """The same evaluation is the same bytes: sorted keys, no clock, no path."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """Raises: DataError when the file is missing or is not an evaluation."""
        try:
            return cls.model_validate_json((folder / FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{folder / FILE}: no evaluation ({type(error).__name__}); run `evaluate`") from None
