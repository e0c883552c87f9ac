"""params.yaml as frozen, typed models: one class a section, an unknown key is an error.

Sections are named after the steps that read them. This module is the only reader of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from components.errors import ConfigError
from components.gate_params import Gate, Section, Share


class Paths(Section):
    """Where every stage reads and writes, relative to the repository root. Written once, here."""

    studies: Path
    catalog: Path
    labels: Path
    batches: Path
    features: Path
    matches: Path
    cases: Path
    splits: Path
    merges: Path
    withdrawals: Path
    retirements: Path
    limits: Path
    accepted: Path
    validation: Path
    prepared: Path
    trained: Path
    calibration: Path
    bundle: Path
    evaluation: Path


class Intake(Section):
    shard_mb: int = Field(gt=0, le=1024, description="largest image shard, in MB of encoded pixels")
    max_megapixels: int = Field(gt=0, description="larger images are refused before they are decoded")
    seconds_per_file: float = Field(gt=0, description="a file that is not decoded by then is refused")
    memory_mb: int = Field(ge=256, description="MiB that decoding one file may take; one that wants more is refused")
    weak_block: int = Field(gt=0, description="archives without patient ids: neighbouring image numbers per group")
    burned_in: Literal["mask", "quarantine"] = Field(
        description="text in the pixels that is no marker: paint it over, or refuse the image"
    )


class Curate(Section):
    min_readers: int = Field(ge=1, description="agreeing clinicians it takes to make a label true")


class Match(Section):
    bits: int = Field(ge=0, le=16, description="perceptual-hash distance that proposes a pair of near-duplicates")
    likeness: Share = Field(description="likeness after registration that confirms it")


class Shares(Section):
    """Percent of patients by role; the roles are for life."""

    train: int = Field(ge=0, le=100)
    tune: int = Field(ge=0, le=100)
    calibrate: int = Field(ge=0, le=100)
    test: int = Field(ge=0, le=100)

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        total = self.train + self.tune + self.calibrate + self.test
        if total != 100:
            raise ValueError(f"the shares of train, tune, calibrate and test add up to {total}, not 100")
        return self


class Split(Section):
    salt: str = Field(min_length=1, description="changing it re-deals every patient: never do that to a live archive")
    shares: Shares


class ImageWarnings(Section):
    """Row level: an image beyond one of these is told of, and learned from all the same."""

    min_cnr: float = Field(ge=0)
    max_motion: float = Field(ge=1)
    max_clutter: float = Field(ge=0, description="per mille; doubt whether it is a radiograph")
    min_deep_levels: int = Field(ge=0, description="grey levels of files with more than 8 bits")
    deviation: float = Field(ge=0, description="dB between exposure index and its target, either way")
    far_deviation: float = Field(ge=0, description="dB, either way; the exposure was wrong")


class ImageExpectations(Section):
    """Row level: an image that fails is quarantined, not learned from. Recalibrate the thresholds to your site."""

    min_side_px: int = Field(gt=0)
    min_aspect: Share = Field(description="short side over long side")
    max_saturation: Share
    min_grey_levels: int = Field(gt=0)
    min_field_fraction: Share
    min_sharpness: float = Field(ge=0, description="per mille; blur and motion")
    max_noise: Share = Field(description="standard deviation, of the stored range")
    max_clutter: float = Field(ge=0, description="per mille; what is no radiograph")
    warn: ImageWarnings


class DatasetExpectations(Section):
    """Whole set and its split; a critical failure stops training, a warning is told."""

    min_positives: int = Field(ge=1)
    min_negatives: int = Field(ge=1)
    prevalence: tuple[Share, Share]
    max_quarantined: Share
    max_prevalence_effect: float = Field(ge=0, description="Cohen's h of prevalence between two roles; .5 is medium")
    min_stratum: int = Field(ge=1, description="labelled images below which the balance of a stratum is not judged")
    max_missing: Share = Field(description="share of images that lack a piece of metadata (warning)")
    max_ai_visible: Share = Field(description="share of labels given by readers who saw the AI's answer (warning)")
    max_shortcut_auc: float = Field(ge=0.5, le=1, description="AUC of the label from metadata alone (warning)")


class Validate(Section):
    images: ImageExpectations
    dataset: DatasetExpectations


class Prepare(Section):
    size: int = Field(ge=32, le=1024, description="side of the square the model sees, in pixels")


class Augment(Section):
    rotate_degrees: float = Field(ge=0, le=45)
    translate: Share
    scale: Share
    exposure: Share
    noise: Share
    flip: bool


SHARED = ("seed", "region_weight", "count_weight")  # what networks that are released as one have in common


class Network(Section):
    """How one network is made and fitted."""

    backbone: Literal[
        "residual", "mobilenet_0.25", "mobilenet_1.0", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
        "efficientnet_v2_b0", "densenet121", "resnet50", "convnext_tiny",
    ]  # fmt: skip
    weights: str = Field(min_length=1, description="imagenet (downloaded by Keras), none, or a local file path")
    epochs_head: int = Field(ge=0)
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    head_learning_rate: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    dropout: Share
    frozen_stride: int = Field(ge=1, description="pretrained layers whose maps are this fine stay as they are; 1: none")
    two_scale: bool = Field(description="look at the image at half its size as well, with the same weights")
    box_weight: float = Field(
        ge=0, description="what the cells under the boxes weigh beside the image's label; 0: none"
    )
    region_weight: float = Field(
        ge=0, description="what the body region weighs beside the image's label; 0: not learned"
    )
    count_weight: float = Field(
        ge=0, description="what the number of fractures weighs beside the image's label; 0: not learned"
    )
    layer_decay: float = Field(gt=0, le=1, description="learning rate of a layer beside one of twice its stride")
    ema: float = Field(
        ge=0, lt=1, description="memory of the average of the weights that is released; 0: the last ones"
    )
    mixup: float = Field(ge=0, description="alpha of the share by which images are mixed in pairs; 0: none")
    augment: Augment
    seed: int = Field(ge=0)


class Train(Network):
    """What is fitted: the first network, the others beside it, and to whom."""

    also: Annotated[tuple[Network, ...], Field(max_length=9)] = Field(
        description="further networks, each as the first but for what it names; all are released as their mean"
    )
    folds: Annotated[int, Field(ge=2, le=20)] | Literal[0] = Field(
        description="networks in the ensemble, each fitted without one fold of the patients; 0: one network, all"
    )
    mirror: bool = Field(description="score the image and its mirror image, and take the mean; recorded in the bundle")

    @model_validator(mode="before")
    @classmethod
    def _as_the_first(cls, given: Any) -> Any:
        """Fill in what the others do not name; what is malformed is left for the fields to name."""
        if not isinstance(given, dict) or not isinstance(given.get("also"), list | tuple):
            return given
        first = {name: given[name] for name in Network.model_fields if name in given}
        return given | {"also": [first | named if isinstance(named, dict) else named for named in given["also"]]}

    @model_validator(mode="after")
    def _of_one_task(self) -> Self:
        for name in SHARED:
            if any(getattr(network, name) != getattr(self, name) for network in self.also):
                raise ValueError(f"also: {name} is the same for all networks; take it out there")
        return self

    @property
    def networks(self) -> tuple[Network, ...]:
        """All that are fitted to the same patients, the first one first."""
        return (self, *self.also)


class Calibrate(Section):
    high_sensitivity: Share = Field(description="sensitivity the low threshold keeps on `tune`")
    high_specificity: Share = Field(description="specificity the high threshold keeps on `tune`")
    conformal_alpha: float = Field(gt=0, le=0.5, description="share of a class that its prediction sets may miss")


class HeatMapChecks(Section):
    """What a heat map must show on fractures of tune and calibrate before readers are shown it."""

    images: int = Field(ge=1, description="fractures whose maps are compared with those of re-drawn networks, at most")
    max_similarity: Share = Field(description="rank correlation it may keep when every weight is re-drawn")
    min_boxes: int = Field(ge=1, description="fractures with boxes below which pointing is not judged: hidden")
    min_pointed: Share = Field(description="share of them on which its peak lies in a box; above chance is not enough")


class RegionChecks(Section):
    """What the region output must show on images of tune and calibrate before its word holds a case back."""

    min_images: int = Field(ge=1, description="images with a region that it knows, below which it is not judged")
    min_accuracy: Share = Field(description="lower bound of the share of them that it names right")
    min_sure: Share = Field(description="lower bound of the same share where it gives one region .9 or more")


class Export(Section):
    intended_use: str = Field(min_length=1, description="travels in the bundle; another one is another submission")
    variant: Literal["float32", "float16", "int8"] = Field(
        description="whichever keeps `parity`; the one that is judged"
    )
    parity: float = Field(gt=0, description="largest |p(TF Lite) - p(Keras)| an export may show")
    heat_map: HeatMapChecks
    regions: RegionChecks
    min_supported: int = Field(
        ge=0, description="patients of tune and calibrate whose images state a body region, or view; fewer: no call"
    )


Strengths = Annotated[tuple[float, ...], Field(min_length=1)]


class Robustness(Section):
    """How sealed images are worsened, each way at some strengths; units in components/model/robustness.py."""

    images: int = Field(
        ge=2, description="sealed images that are worsened, at most; every one costs as many predictions"
    )
    noise: Strengths
    blur: Strengths
    gamma: Strengths
    gain: Strengths
    jpeg: Strengths
    rotation: Strengths
    resolution: Strengths


class Evaluate(Section):
    resamples: int = Field(ge=200)
    prevalences: tuple[Share, ...] = Field(min_length=1, description="deployment prevalences for PPV and NPV")
    min_slice: int = Field(ge=1, description="positives and negatives below which a slice is `insufficient`")
    robustness: Robustness
    seed: int = Field(ge=0)


class RollOut(Section):
    """The way of an approved version to every case; a stage's ledger entry carries the plan it is judged by."""

    shadow_cases: int = Field(ge=0, description="cases it scores silently first; 0 skips the stage")
    canary_share: float = Field(gt=0, le=1, description="share of patients that it answers then")
    canary_cases: int = Field(ge=0, description="of their cases, before it answers everybody; 0 skips the stage")
    max_error_rate: Share
    max_latency_ms: float = Field(gt=0, description="95th percentile; also what an answer waits for it at most")
    max_contradicted: Share = Field(description="cases called fracture by one model and no fracture by the other")
    max_score_shift: Share = Field(description="Kolmogorov-Smirnov distance to the champion's scores, same cases")


class Monitor(Section):
    window_days: int = Field(ge=1)
    min_cases: int = Field(ge=2)
    q: Share = Field(description="Benjamini-Hochberg false discovery rate")
    effect_floor: float = Field(ge=0, description="smallest Kolmogorov-Smirnov distance that counts as drift")
    sensitivity_floor: Share = Field(description="H0 of the audited-performance e-process")
    alpha: Share


class Feedback(Section):
    readers: int = Field(ge=1, description="agreeing readers that settle a case without an adjudicator")
    audit_share: Share = Field(description="random share of cases read blind; its inclusion probability is recorded")
    retrain_after: int = Field(ge=1, description="adjudicated corrections that ask for a retrain")


class Params(Section):
    paths: Paths
    intake: Intake
    match: Match
    curate: Curate
    split: Split
    validate_: Validate = Field(alias="validate")
    prepare: Prepare
    train: Train
    calibrate: Calibrate
    export: Export
    evaluate: Evaluate
    gate: Gate
    roll_out: RollOut
    monitor: Monitor
    feedback: Feedback

    def section(self, step: str) -> Section | None:
        """The section a step of this name reads, or None when it takes none."""
        return getattr(self, "validate_" if step == "validate" else step, None)


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check `path`.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key is unknown, missing or out of range;
            every problem is named with its dotted key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; run this inside an Osteoflow repository") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {error.error_count()} problem(s): {problems}") from None
