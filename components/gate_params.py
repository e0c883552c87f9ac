"""The section `gate` of params.yaml: the modification protocol, and what every section is made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of params.yaml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Demand = Literal["require", "warn"]
SliceColumn = Literal["site", "device", "view", "body_region", "sex", "age_years", "hour", "hardware"]
# What a release is, in the parts a person would call by name (components/promotion/changes.py reads them).
Aspect = Literal[
    "weights", "backbone", "number_format", "calibration", "thresholds", "prediction_sets", "heat_map", "region_check",
    "supported_cases", "training_data", "sites", "model_card", "input_size", "preprocessing", "body_regions",
    "vocabulary", "intended_use",
]  # fmt: skip


class SliceRules(Section):
    """Who must not be served worse than by the champion; a first champion's slices answer to the floors."""

    columns: tuple[SliceColumn, ...] = Field(min_length=1)
    margin: Share = Field(description="a loss beyond it, shown, fails")
    insufficient: Demand = Field(description="slices with too few images to judge: hold back (inconclusive), or tell")

    @model_validator(mode="after")
    def _once(self) -> SliceRules:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("a column is named twice")
        return self


class ReferenceRules(Section):
    """Beside the champion, the one that answered when the present test patients began to judge: small losses add up."""

    margin: Share = Field(description="what all its successors together may lose, over the test set and in a slice")


class ParityRules(Section):
    """The released graph against the trained network, as `export` measured it."""

    demand: Demand
    max_difference: Share = Field(description="of probability")
    max_flips: Share = Field(description="share of images whose call changes")


class PolarityRules(Section):
    demand: Demand
    max_difference: Share = Field(description="of probability, between one picture as MONOCHROME1 and as MONOCHROME2")


class ShortcutRules(Section):
    """What metadata would say without a picture: of the data."""

    demand: Demand
    max_auroc: float = Field(ge=0.5, le=1, description="of the label from metadata alone, on images to learn from")


class MatchedRules(Section):
    """What the AUROC loses among images of equal metadata: of the network."""

    demand: Demand
    max_drop: Share = Field(description="a larger one, by its whole interval, is not met")


class LatencyRules(Section):
    demand: Demand
    max_ms: float = Field(gt=0, description="median of one prediction on the machine that judges")


class Signers(Section):
    """How many people sign one decision, by the role they sign in. Nobody counts twice; who proposed it, never."""

    reviewer: int = Field(ge=1, strict=True)
    reader: int = Field(default=0, ge=0, strict=True, description="clinicians who countersign")

    @property
    def total(self) -> int:
        return self.reviewer + self.reader

    def text(self) -> str:
        """`2 reviewers and 1 reader`."""
        return " and ".join(f"{many} {role}{'s' * (many > 1)}" for role, many in self.model_dump().items() if many)


def _by_role(said: Any) -> Any:
    """A number alone, as protocols had it before roles came in, is of reviewers."""
    return {"reviewer": said} if isinstance(said, int) else said


SignersAsWritten = Annotated[Signers, BeforeValidator(_by_role, json_schema_input_type=Signers | PositiveInt)]


class Gate(Section):
    """The modification protocol: what may change, and what a challenger must show. Every record names its hash."""

    model: str = Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9-]*$")
    may_change: tuple[Aspect, ...] = Field(description="between champion and challenger, without more")
    must_stay: tuple[Aspect, ...] = Field(description="a model that differs here is another submission")
    auroc_floor: Share
    sensitivity_floor: Share
    specificity_floor: Share
    margin: Share
    min_positives: int = Field(ge=1)
    min_negatives: int = Field(ge=1)
    look_budget: int = Field(ge=1)
    signers: SignersAsWritten
    slices: SliceRules
    reference: ReferenceRules | None = Field(default=None, description="null, as before there was one: not asked")
    calibration: Demand
    heat_map: Demand
    foreign: Demand
    parity: ParityRules
    polarity: PolarityRules
    shortcut: ShortcutRules
    matched: MatchedRules
    latency: LatencyRules

    @model_validator(mode="after")
    def _apart(self) -> Gate:
        if twice := set(self.may_change) & set(self.must_stay):
            raise ValueError(f"{', '.join(sorted(twice))}: both in may_change and in must_stay")
        return self
