"""manifest.json of a release bundle: what is in it, where it came from, and the hash of every part."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import BundleCorrupt
from components.model.statistics import Estimate
from components.radiograph.labels import FRACTURE, NO_FRACTURE, UNKNOWN
from components.radiograph.pixels import Transform

FORMAT = 1
MODEL = "model.tflite"
REFERENCE = "reference.parquet"
TRAINING_IMAGES = "training_images.parquet"
CARD = "model_card.md"
PARTS = (MODEL, REFERENCE, TRAINING_IMAGES, CARD)
MANIFEST = "manifest.json"

SURE = 0.9  # a region's probability from which it may contradict the tag; clinical reference, section 5

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


class Backbone(_Part):
    name: str
    pretrained: Pretrained | None = Field(description="None: trained from random weights")

    @property
    def started(self) -> str:
        """What it is and where it started, for a person."""
        origin = self.pretrained
        if origin is None:
            return f"{self.name}: random weights"
        return f"{self.name}: {origin.name}, from {origin.source}, licence {origin.licence}, SHA-256 {origin.sha256}"


class Model(_Part):
    backbone: str
    size: int = Field(gt=0, description="side of the input square, pixels")
    variant: str = Field(description="number format of the graph: float32, float16 or int8")
    weights_sha256: Sha256 = Field(description="hash of the trained weights in their order, before conversion")
    pretrained: Pretrained | None = Field(description="None: trained from random weights")
    further: tuple[Backbone, ...] = Field(default=(), description="of the networks that have another one, each once")
    networks: int = Field(ge=1, description="how many were fitted; the graph is their mean")
    mirror: bool = Field(description="the mean is taken over the image and its mirror image")
    seed: int

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """Each once, the first network's first."""
        return (Backbone(name=self.backbone, pretrained=self.pretrained), *self.further)


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


class Attention(_Part):
    """A learned rule for the one probability of a study: a weighted mean of its images' logits (model/studies.py)."""

    sharpness: float = Field(description="weight of an image in the softmax, by its logit: 0 is the mean")
    confidence: float = Field(description="the same, by the size of its logit: how sure it is, either way")
    views: float = Field(description="added to the logit, times the logarithm of the number of images")
    studies: int = Field(gt=0, description="of several images, that it was fitted on")
    source_role: Literal["tune"]
    thresholds: Thresholds

    @property
    def rule(self) -> tuple[float, float, float]:
        return self.sharpness, self.confidence, self.views


class StudyThresholds(_Part):
    """For the one probability that several images of an examination give, by the rule that gives it."""

    maximum: Thresholds
    noisy_or: Thresholds
    attention: Attention | None = Field(default=None, description="None: not fitted, or the bundle is older than it")
    no_attention: str | None = Field(default=None, description="why it was not fitted")


class PredictionSet(_Part):
    """The labels that are not ruled out for one image: one, both, or none.

    Settled, one label, says what is left; an image that is not is a person's to look at first.
    """

    labels: tuple[str, ...] = Field(description="fracture, no_fracture, both or neither")
    coverage: float = Field(gt=0, lt=1, description="share of either class whose sets hold their label, as promised")

    @property
    def settled(self) -> bool:
        return len(self.labels) == 1


class Conformal(_Part):
    """Sets of labels that miss at most `alpha` of the fractures, and of the others (components/model/conformal.py)."""

    alpha: float = Field(gt=0, lt=1)
    fracture_from: Probability = Field(description="`fracture` is in the set at or above this calibrated probability")
    no_fracture_to: Probability = Field(description="`no_fracture` is in the set at or below it")
    fracture_patients: int = Field(gt=0, description="whose images fixed fracture_from")
    no_fracture_patients: int = Field(gt=0)
    source_role: Literal["calibrate"]

    def labels(self, probability: float) -> tuple[str, ...]:
        """The set of one image: one label, both, or none."""
        inside = {FRACTURE: probability >= self.fracture_from, NO_FRACTURE: probability <= self.no_fracture_to}
        return tuple(label for label, member in inside.items() if member)

    def prediction_set(self, probability: float) -> PredictionSet:
        """The set of one image, with what it promises."""
        return PredictionSet(labels=self.labels(probability), coverage=1 - self.alpha)


class Similarity(_Part):
    """Re-drawing weights from the head down: 0 the head alone, 1 all of them."""

    redrawn: Probability
    value: Probability | None = Field(description="mean size of the rank correlation with the trained network's maps")


class HeatMap(_Part):
    """Whether readers are shown the heat map: it must depend on what was learned, and point at fractures."""

    shown: bool
    reasons: tuple[str, ...] = Field(description="why it is hidden; none where it is shown")
    similarity: tuple[Similarity, ...]
    pointed: Estimate | None = Field(description="fractures with boxes whose map peaks in one; of tune and calibrate")
    covered: Probability | None = Field(description="mean share of those images that the boxes cover")
    random: Probability | None = Field(description="how often the maps of re-drawn networks peak in a box")

    @property
    def chance(self) -> float | None:
        """What `pointed` has to beat; None where no fracture has boxes."""
        known = [value for value in (self.covered, self.random) if value is not None]
        return max(known, default=None)


UNCHECKED = HeatMap(
    shown=False,
    reasons=("the bundle is older than its checks",),
    similarity=(),
    pointed=None,
    covered=None,
    random=None,
)


class Regions(_Part):
    """The body regions that the graph tells apart, and whether one that contradicts the tag holds a case back.

    Checked on images of tune and calibrate whose region is among the names.
    """

    names: tuple[str, ...] = Field(min_length=2, description="in the order of the graph's output")
    accuracy: Estimate | None = Field(description="share whose likeliest region is the one stated; None: of no image")
    sure: Estimate | None = Field(description="the same, where one region has SURE or more")
    heeded: bool
    reasons: tuple[str, ...] = Field(description="why it is not heeded; none where it is")


class Supported(_Part):
    """The body regions and views that files of enough of the patients state on whom it was checked; others get no call.

    Where too few state any it is empty, and nothing is asked.
    """

    body_regions: tuple[str, ...]
    views: tuple[str, ...]

    def lacks(self, body_region: str, view: str) -> str | None:
        """Of what a file states the first that is not among these; None: nothing, or it states nothing."""
        stated = ((body_region, self.body_regions), (view, self.views))
        return next((word for word, known in stated if known and word != UNKNOWN and word not in known), None)

    def __str__(self) -> str:
        named = (("body regions", self.body_regions), ("views", self.views))
        return "; ".join(f"{name}: {', '.join(known)}" for name, known in named if known)

    @property
    def sentence(self) -> str:
        """For a person: what it makes no call on."""
        return f"A file that states another gets no call ({self}); what a file does not state is not asked."


class Parity(_Part):
    """The released graph beside the trained network, on images of tune and calibrate."""

    difference: float = Field(ge=0, description="largest, of probability")
    flips: int = Field(ge=0, description="images whose call differs, ties with a threshold left out")
    images: int = Field(gt=0)


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
    study_thresholds: StudyThresholds | None = Field(
        default=None, description="None: `tune` had no studies of both kinds, or the bundle is older than they are"
    )
    conformal: Conformal | None = Field(default=None, description="None: the bundle is older than prediction sets")
    scope_from: float | None = Field(
        default=None,
        description="likeness to the reference that is in scope (scope.py); None: below 100 cases, or an older bundle",
    )
    vocabulary: tuple[str, ...] = Field(description="the calls this bundle can make")
    heat_map: HeatMap = UNCHECKED
    regions: Regions | None = Field(default=None, description="None: the graph does not tell the body region")
    supported: Supported | None = Field(default=None, description="None: whatever a file states may get a call")
    parity: Parity | None = Field(default=None, description="None: the bundle is older than its record")
    intended_use: str | None = Field(default=None, description="None: the bundle is older than the statement")
    data: Data
    parts: dict[str, Sha256]

    def encode(self) -> bytes:
        """The one byte string that stands for this manifest; its SHA-256 is the bundle's hash.

        What a bundle was made without is not written: one that is older than a field stays the bundle it is.
        """
        body = self.model_dump(mode="json", exclude_unset=True)
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode() + b"\n"

    @classmethod
    def decode(cls, raw: bytes, *, where: str) -> Manifest:
        """Read the bytes of a manifest.

        Raises:
            BundleCorrupt: not JSON, of another format, incomplete, or not byte for byte what `encode` writes.
        """
        try:
            body = json.loads(raw)
        except ValueError:
            raise BundleCorrupt(f"{where}: not JSON; fetch the bundle again") from None
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            found = body.get("format") if isinstance(body, dict) else type(body).__name__
            raise BundleCorrupt(
                f"{where}: expected bundle format {FORMAT}, found {found!r}; use the version that made it"
            )
        try:
            manifest = cls.model_validate(body)
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
