"""Noun: what a drift judgement says: each tested column, each site, the verdict, and the sentences for a monitor."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.dataset.inputs import Inputs

SCORE, EMBEDDING, MIXES = "probability", "embedding", ("body_region", "view")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Record):
    """One tested column.

    Attributes:
        statistic: in 0..1. KS distance within body region and view; for `embedding` 2 AUC - 1 of a classifier that
            tells production from reference; for body region and view the share of cases that changed category.
        p, q_rejected: its p-value, and whether Benjamini-Hochberg rejects at the q of params.yaml.
        drifted: rejected, and the statistic reaches the effect floor.
        reference, current: medians, None where there is none.
        cases: current cases the test rests on.
    """

    name: str
    statistic: float
    p: float
    q_rejected: bool
    drifted: bool
    reference: float | None
    current: float | None
    cases: int


class Site(_Record):
    """One site of the window: its cases, those of the reference, and the image quality that lies furthest off."""

    site: str
    cases: int
    reference_cases: int
    furthest: str | None
    distance: float | None


class Drift(_Record):
    """What one window shows beside the reference. `drifted` is False when it is `insufficient`.

    Attributes:
        inputs: what the suite `images` says of the window's images, None where it was not asked.
        unusable: more of them fail it than a data set may have; said only of a window with enough cases.
    """

    status: Literal["insufficient", "stable", "drifted"]
    cases: int
    patients: int
    reference_cases: int
    since: str | None
    until: str | None
    features: tuple[Feature, ...]
    scores: Feature | None
    embeddings: Feature | None
    mix: tuple[Feature, ...]
    sites: tuple[Site, ...]
    new_sites: tuple[str, ...]
    new_devices: tuple[str, ...]
    untested: tuple[str, ...]
    reasons: tuple[str, ...]
    inputs: Inputs | None = None
    unusable: bool = False

    @property
    def drifted(self) -> bool:
        return self.status == "drifted"

    @property
    def tested(self) -> tuple[Feature, ...]:
        """Every tested column."""
        single = tuple(feature for feature in (self.scores, self.embeddings) if feature)
        return (*self.features, *single, *self.mix)


def sentence(feature: Feature) -> str:
    if feature.name == EMBEDDING:
        auc = (feature.statistic + 1) / 2
        return f"images look different to the model: a classifier tells them from the reference (AUC {auc:.2f})"
    if feature.name in MIXES:
        return f"the mix of `{feature.name}` changed for {feature.statistic:.0%} of the cases"
    before, now = feature.reference or 0.0, feature.current or 0.0
    moved = "rose" if now > before else "fell" if now < before else "changed its spread"
    return f"`{feature.name}` {moved}: median {before:.3g} -> {now:.3g} (KS {feature.statistic:.2f})"
