"""Noun: the stages of a roll-out, shadow and canary, and the guards that let a version go on or take it back.

In *shadow* the candidate scores production cases silently beside the champion; in *canary* it answers a share of the
patients, and the champion scores their cases silently. Each stage is judged on the cases met since its ledger entry.

Four guards, each a limit of the plan that stands in that entry: how often the candidate failed, how often it was
slower than the limit (a 95th percentile: 1 in 20 may be), how often it contradicts the champion (one says fracture, the
other no fracture), and how far the distributions of their scores are apart (Kolmogorov-Smirnov distance). A version is
taken back when one is *shown* to be beyond its limit, and goes on when enough cases are in and none *is* beyond it;
between the two more cases decide.

The flow looks every half minute, so "shown" asks for 1 in 1,000 each time: an exact binomial test against the limit,
and for the scores, where the limit is an effect and not a rate, a permutation test that swaps both models by patient.
How often a version without fault is taken back, and a broken one is not, is simulated in
tests/promotion/test_stages.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import DataError
from components.params import RollOut
from components.promotion.ledger import Entry
from components.serving.store import Comparison

Stage = Literal["shadow", "canary"]
STAGES: tuple[Stage, ...] = ("shadow", "canary")

ALPHA = 0.001
SLOWER = 0.05  # of the cases may be slower than the limit: it is a 95th percentile
SWAPS = 2000
GRID = 128  # scores at which the distributions are compared, at most: up to 64 cases, every one
SEED = 0


class Seen(BaseModel):
    """The figures of a stage, as its end is recorded.

    `latency_ms` is the 95th percentile of the cases that did not fail; `contradicted` and `score_shift` are over the
    `compared` cases that both models judged. None: there is none to tell from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int
    patients: int
    failed: int
    errors: dict[str, int]
    slow: int
    latency_ms: float | None
    compared: int
    contradicted: int
    score_shift: float | None


@dataclass(frozen=True)
class Outlook:
    """What a stage's cases say: wait for more, go on, or take the version back; and why it does not simply go on."""

    verdict: Literal["wait", "on", "back"]
    seen: Seen
    needed: int
    reasons: tuple[str, ...] = ()


def following(plan: RollOut, after: Stage | None) -> Stage | None:
    """The stage that comes after this one (None: after the approval); None: the version answers every case."""
    left = STAGES[STAGES.index(after) + 1 :] if after else STAGES
    return next((stage for stage in left if cases_of(plan, stage)), None)


def cases_of(plan: RollOut, stage: Stage) -> int:
    """How many cases a stage takes at least."""
    return plan.shadow_cases if stage == "shadow" else plan.canary_cases


def stage_of(entry: Entry) -> Stage:
    """Which stage a `stage` entry begins."""
    return "canary" if entry.body.get("stage") == "canary" else "shadow"


def plan_of(entry: Entry) -> RollOut:
    """The plan a stage began under.

    Raises:
        DataError: it is none that this version knows.
    """
    try:
        return RollOut.model_validate(entry.body.get("plan"))
    except ValidationError:
        raise DataError(
            f"ledger entry {entry.seq}: its roll-out plan is none of this version; "
            f"`osteoflow rollback --to {entry.body.get('champion_version')}` ends the stage"
        ) from None


def outlook(entry: Entry, cases: Sequence[Comparison]) -> Outlook:
    """Judge the stage that `entry` began by the cases it has met."""
    plan = plan_of(entry)
    return judge(cases, plan, needed=cases_of(plan, stage_of(entry)))


def judge(cases: Sequence[Comparison], plan: RollOut, *, needed: int) -> Outlook:
    """The guards on these cases; see the head of this file.

    Args:
        needed: cases after which the version may go on.
    """
    judged = [case for case in cases if case.error is None]
    both = [case for case in judged if case.champion_probability is not None]
    gaps = _gaps(both)
    shift = int(np.abs(gaps.sum(axis=0)).max()) / len(both) if both else 0.0
    seen = Seen(
        cases=len(cases),
        patients=len({case.patient_id for case in cases}),
        failed=len(cases) - len(judged),
        errors=dict(sorted(Counter(case.error for case in cases if case.error is not None).items())),
        slow=sum(case.milliseconds > plan.max_latency_ms for case in judged),
        latency_ms=round(float(np.quantile([c.milliseconds for c in judged], 0.95)), 1) if judged else None,
        compared=len(both),
        contradicted=sum({case.call, case.champion_call} == {"fracture", "no_fracture"} for case in both),
        score_shift=round(shift, 4) if both else None,
    )
    rates = (
        (seen.failed, seen.cases, plan.max_error_rate, "cases failed"),
        (seen.slow, len(judged), SLOWER, f"cases took longer than {plan.max_latency_ms:,.0f} ms"),
        (seen.contradicted, seen.compared, plan.max_contradicted, "cases are a fracture to one model alone"),
    )  # fmt: skip
    beyond = [
        (_shown(hits, of, limit), f"{hits} of {of} {what}; up to {limit:.1%} are allowed")
        for hits, of, limit, what in rates
        if hits > limit * of
    ]
    if shift > plan.max_score_shift:
        said = f"the scores of both models lie {shift:.2f} apart (Kolmogorov-Smirnov distance, {len(both)} cases)"
        beyond.append((_by_chance(gaps) < ALPHA, f"{said}; up to {plan.max_score_shift:g} is allowed"))
    if shown := tuple(reason for sure, reason in beyond if sure):
        return Outlook("back", seen, needed, shown)
    if seen.cases < needed or beyond:
        return Outlook("wait", seen, needed, tuple(reason for _, reason in beyond))
    return Outlook("on", seen, needed)


def body(approval: Entry, **more: Any) -> dict[str, Any]:
    """What every step of an approved version's way carries, and `more`."""
    same = {key: approval.body[key] for key in ("name", "version", "bundle_hash", "decision_hash")}
    return same | {"approval_hash": approval.hash} | more


def _shown(hits: int, of: int, limit: float) -> bool:
    """Whether the rate behind `hits` is above `limit` beyond chance."""
    from scipy.stats import binom

    return bool(binom.sf(hits - 1, of, limit) < ALPHA)


def _gaps(cases: Sequence[Comparison]) -> np.ndarray:
    """(patients, cuts) int: of how many more of a patient's cases the champion's score is at or below each cut."""
    if not cases:
        return np.zeros((0, 1), dtype=np.int64)
    scores = np.array([(case.champion_probability, case.probability) for case in cases], dtype=np.float64)
    cuts = np.unique(np.quantile(scores, np.linspace(0, 1, min(GRID, scores.size)), method="nearest"))
    _, patient = np.unique([case.patient_id for case in cases], return_inverse=True)
    gaps = np.zeros((patient.max() + 1, len(cuts)), dtype=np.int64)
    np.add.at(gaps, patient, (scores[:, :1] <= cuts).astype(np.int64) - (scores[:, 1:] <= cuts))
    return gaps


def _by_chance(gaps: np.ndarray) -> float:
    """How often the distributions lie as far apart when both models are swapped at random, patient by patient."""
    signs = np.random.default_rng(SEED).choice((-1.0, 1.0), size=(SWAPS, len(gaps)))
    as_far = np.abs(signs @ gaps).max(axis=1) >= np.abs(gaps.sum(axis=0)).max()
    return float((1 + np.count_nonzero(as_far)) / (SWAPS + 1))
