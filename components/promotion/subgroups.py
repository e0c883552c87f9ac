"""Noun: who must not be served worse: slices of the sealed test images that a challenger may not lose.

**Against a champion**, both bundles are compared on the slice's own images: sensitivity at the high-sensitivity point
and specificity at the high-specificity point, each bundle at its own frozen threshold, paired, by patient. For every
slice and rate the hypothesis is that the challenger loses no more than `gate.slices.margin`; one that is rejected fails
the gate. The tests are one-sided (Student's, with the slice's patients of that class), and Holm's step-down keeps the
chance that *any* slice without such a loss is blamed at 5%, over all slices and both rates (simulated in
tests/promotion/test_subgroups.py, with the power). Beside the fixed reference (promotion/protocol) the same is asked
with the margin `gate.reference`, in the same family of tests: a slice that loses a little to every champion is found
when the sum shows (simulated in tests/promotion/test_reference.py).

So harm must be shown, while over the whole test set its absence must be. The other way round no model could ever
pass: 60 fractures exclude a loss of 5% with 80% power only where the bundles disagree on fewer than one in fifty, and
of forty comparisons all would have to. The price is stated, not hidden: a loss in a small slice may go unseen, so
slices below `evaluate.min_slice` images of either class are listed as insufficient, by `gate.slices.insufficient` as a
warning or as something that is not known and holds the model back.

At a point where the champion's trade-off is repaired (promotion/protocol), a slice is held to what the champion would
reach there at the challenger's price; to hold it to a sensitivity bought by calling everything would forbid the repair.

**A first champion** has nobody beside it: a slice fails when its rate lies below the protocol's floor beyond doubt
(score test with the patients' design effect, Holm as above).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from components.errors import DataError
from components.gate_params import Gate, SliceColumn
from components.model.comparison import holm, paired_difference
from components.model.slices import UNKNOWN, members
from components.model.statistics import Estimate, effective_images, rate
from components.promotion.decision import Check, Compared, Figures, Found
from components.promotion.protocol import OF, PROMISES, Beside, Ruling, Who, margins

ALPHA = 0.05
Rate = Literal["sensitivity", "specificity"]


@dataclass(frozen=True)
class Sliced:
    """What every slice is judged from.

    Attributes:
        table: (n rows) the sealed test images.
        labels, patients: (n,).
        least: images of either class below which a slice is insufficient.
    """

    table: pd.DataFrame
    labels: np.ndarray
    patients: np.ndarray
    least: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class Loss:
    """One rate in one slice, and the one-sided p of being worse than the protocol allows."""

    rate: Rate
    found: Estimate
    p: float
    worse: bool = False


@dataclass(frozen=True)
class Part:
    """One slice; no losses: too few images."""

    column: SliceColumn
    value: str
    positives: int
    negatives: int
    losses: tuple[Loss, ...]

    def record(self) -> Compared:
        """As the decision has it."""
        by_rate = {loss.rate: loss for loss in self.losses}
        hit = any(loss.worse for loss in self.losses)
        return Compared(
            column=self.column,
            value=self.value,
            positives=self.positives,
            negatives=self.negatives,
            verdict="insufficient" if not self.losses else "worse" if hit else "kept",
            sensitivity=by_rate["sensitivity"].found if by_rate else None,
            specificity=by_rate["specificity"].found if by_rate else None,
            p_sensitivity=by_rate["sensitivity"].p if by_rate else None,
            p_specificity=by_rate["specificity"].p if by_rate else None,
        )


def subgroups(
    of: Sliced,
    challenger: tuple[np.ndarray, Figures],
    beside: Sequence[Beside],
    params: Gate,
) -> tuple[Ruling, list[tuple[Compared, ...]]]:
    """Judge every slice of `gate.slices.columns`.

    Args:
        challenger: (n,) probabilities on the images of `of`, and the figures with the frozen thresholds.
        beside: the champion, and the reference where that is another one; none: the floors decide.

    Returns:
        A check for each with its sentences, one for what is too small; and what was found slice by slice, for each.
    """
    others: Sequence[Beside | None] = beside or (None,)
    found = _corrected([list(_parts(of, challenger, other, params)) for other in others])
    ruling = Ruling(())
    for other, parts in zip(others, found, strict=True):
        ruling += _ruled(parts, other.who if other else None, params)
    return ruling + _told(found[0], _silent(of.table, params), params), [
        tuple(part.record() for part in parts) for parts in found
    ]


def _parts(of: Sliced, challenger: tuple[np.ndarray, Figures], other: Beside | None, params: Gate) -> Iterator[Part]:
    for column, value, member in members(of.table):
        if column not in params.slices.columns:
            continue
        size = [int((member & (of.labels == kind)).sum()) for kind in (1, 0)]
        losses: tuple[Loss, ...] = ()
        if min(size) >= of.least:
            losses = tuple(
                _below_floor(of, member, rate_, challenger, point, params)
                if other is None
                else _loss(of, member, rate_, challenger, other, point, params)
                for point, rate_ in PROMISES.items()
            )
        yield Part(column, value, size[0], size[1], losses)


def _loss(
    of: Sliced,
    member: np.ndarray,
    kind: Rate,
    challenger: tuple[np.ndarray, Figures],
    other: Beside,
    point: str,
    params: Gate,
) -> Loss:
    from scipy.stats import t

    found = paired_difference(
        of.labels[member],
        of.patients[member],
        challenger=(challenger[0][member], challenger[1].thresholds[point].threshold),
        champion=(other.probabilities[member], other.figures.thresholds[point].threshold),
        promise=kind,
        resamples=of.resamples,
        seed=of.seed,
    )
    error = found.errors[0 if kind == "sensitivity" else 1]
    difference: Estimate = getattr(found, kind)
    if point in other.repaired:
        # `matched` draws patients: where the bundles hardly disagree, its own error may be 0.
        difference, error = found.matched, max(error, found.errors[2])
    class_ = of.labels == (1 if kind == "sensitivity" else 0)
    freedom = len(set(of.patients[member & class_])) - 1
    if freedom < 1 or not error > 0:
        return Loss(kind, difference, 1.0)
    _, margin = margins(other.who, params)
    return Loss(kind, difference, float(t.cdf((difference.value + margin) / error, freedom)))


def _below_floor(
    of: Sliced, member: np.ndarray, kind: Rate, challenger: tuple[np.ndarray, Figures], point: str, params: Gate
) -> Loss:
    from scipy.stats import t

    threshold = challenger[1].thresholds[point].threshold
    chosen = member & (of.labels == (1 if kind == "sensitivity" else 0))
    called = challenger[0][chosen] >= threshold
    right, whose = called if kind == "sensitivity" else ~called, of.patients[chosen]
    floor = params.sensitivity_floor if kind == "sensitivity" else params.specificity_floor
    found, freedom = rate(right, whose), len(set(whose)) - 1
    if found is None:
        raise DataError(f"a slice without {OF[kind]} cannot be judged")
    if freedom < 1 or not 0 < floor < 1:
        return Loss(kind, found, 1.0)
    error = math.sqrt(floor * (1 - floor) / effective_images(right, whose))
    return Loss(kind, found, float(t.cdf((found.value - floor) / error, freedom)))


def _corrected(found: Sequence[Sequence[Part]]) -> list[list[Part]]:
    """The same, with what Holm rejects over all comparisons, slices and both rates marked."""
    hits = iter(holm([loss.p for parts in found for part in parts for loss in part.losses], ALPHA))
    return [
        [replace(p, losses=tuple(replace(loss, worse=bool(next(hits))) for loss in p.losses)) for p in parts]
        for parts in found
    ]


def _silent(table: pd.DataFrame, params: Gate) -> list[str]:
    """Columns of the protocol that say nothing of any image."""
    return [
        column
        for column in params.slices.columns
        if column not in table or (table[column].isna() | (table[column].astype(str) == UNKNOWN)).all()
    ]


def _ruled(parts: Sequence[Part], who: Who | None, params: Gate) -> Ruling:
    """Which slices are shown to be worse than under the champion or the reference; None: than the floors ask."""
    margin = margins(who, params)[1] if who else None
    floors = {"sensitivity": params.sensitivity_floor, "specificity": params.specificity_floor}
    limit = {
        name: f"below the floor of {floor:g}" if margin is None else f"a loss of more than {margin:g}"
        for name, floor in floors.items()
    }
    to = " against the reference" if who == "reference" else ""
    judged = [p for p in parts if p.losses]
    lost = [(part, loss) for part in judged for loss in part.losses if loss.worse]
    reasons = tuple(
        f"{part.column} {part.value}: {loss.rate} {'changes by' if who else 'is'} {loss.found}{to} on {loss.found.n} "
        f"{OF[loss.rate]}, beyond doubt {limit[loss.rate]}."
        for part, loss in lost
    )
    least = min((loss for part in judged for loss in part.losses), key=lambda loss: loss.p, default=None)
    check = Check(
        name=f"slices worse than under the {who}" if who else "slices below the floor",
        expected="none" if margin is None else f"none by more than {margin:g}",
        found=f"{len({(p.column, p.value) for p, _ in lost})} of {len(judged)} judged (Holm, {ALPHA:g}); "
        f"{len(parts) - len(judged)} insufficient" + (f"; smallest p {least.p:.2g}" if least else ""),
        verdict="failed" if lost else "passed" if judged or not parts else _unsaid(params),
    )
    return Ruling((check,), reasons)


def _told(parts: Sequence[Part], nothing: Sequence[str], params: Gate) -> Ruling:
    """Which slices are too small to be judged, and which columns say nothing."""
    gaps = [f"{p.column} {p.value} ({p.positives}/{p.negatives})" for p in parts if not p.losses]
    said = [f"Too few to judge (fractures/non-fractures): {', '.join(gaps)}."] if gaps else []
    if nothing:
        said.append(f"Slices by {', '.join(nothing)} are not judged: no image says.")
    check = Check(
        name="slices large enough to judge",
        expected="all",
        found=f"{len(parts) - len(gaps)} of {len(parts)}" + (f"; none by {', '.join(nothing)}" if nothing else ""),
        verdict=_unsaid(params) if said else "passed",
    )
    told = tuple(said)
    return Ruling((check,), warnings=told) if params.slices.insufficient == "warn" else Ruling((check,), told)


def _unsaid(params: Gate) -> Found:
    return "warned" if params.slices.insufficient == "warn" else "inconclusive"
