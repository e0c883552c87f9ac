"""Noun: the rules of the gate: from two bundles' probabilities on the same images to checks, a verdict and reasons.

**First champion.** The lower 95% bounds of AUROC, of sensitivity at the high-sensitivity point and of specificity at
the high-specificity point must reach their floors.

**Against a champion.** Each bundle is judged at its own frozen thresholds, on the same images, by patient. A point
makes a promise (sensitivity at the high-sensitivity point, specificity at the high-specificity point) and has a price
(the other rate there). Comparing promises alone would pass a challenger that keeps them by calling everything, or
nothing, a fracture; so at each point *both* differences must be shown to be above -margin: four comparisons, all
needed (an intersection-union test: no correction, one-sided 2.5% each).

A champion whose scores have drifted can break that rule from its own side: with every probability shifted up, its
sensitivity is near 1 because its specificity is near 0, and no honest model is non-inferior to that. So a point also
passes as *repaired* when all three hold:
  - balanced accuracy there is better (lower bound of the difference above 0): what is gained outweighs what is lost;
  - the promised rate is non-inferior to what the champion would reach if its threshold were moved to the
    challenger's price: the challenger does not merely slide down the champion's own ROC curve into worse;
  - the promised rate itself reaches the floor the protocol asks of a first champion, by its lower bound.
What was given up is always in the reasons. Two roads at 2.5% keep the chance of passing a challenger that is worse by
the margin, and no repair, below 5% at each point (simulated in tests/promotion/test_protocol.py).

Small steps down add up over many champions, each within the margin of the one before ("bio-creep"). So every later
challenger is also compared with one fixed *reference*, the champion that answered when the present test patients began
to judge (promotion/reference): by the same rule, with the margin `gate.reference` for what all steps together may
lose. It was chosen before anybody looked at these patients; the best of all champions would be the luckiest one, and
no honest successor its equal. Floors are also checked against a champion, as sanity (a whole interval below its floor
fails).

Source: D'Agostino et al. 2003 and Everson-Stewart and Emerson 2010, on bio-creep in non-inferiority trials.

What may change at all, who must not be served worse, and what is asked beside accuracy: promotion/changes,
promotion/subgroups and promotion/conditions.

Verdicts: "passed" when every check passed; "failed" when a figure itself is below its floor, or a whole interval is on
the wrong side; otherwise, and always on too few images, "inconclusive", which is not a pass: the images do not tell,
and the reasons say how many would. A check that the protocol only warns of ("warned") leaves the verdict as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.gate_params import Gate
from components.model.comparison import Difference, paired_difference, positives_needed
from components.model.statistics import Estimate
from components.promotion.decision import Check, Figures, Verdict

PROMISES: dict[str, Literal["sensitivity", "specificity"]] = {
    "high_sensitivity": "sensitivity",
    "high_specificity": "specificity",
}
Who = Literal["champion", "reference"]
OF = {"sensitivity": "fractures", "specificity": "non-fractures"}


@dataclass(frozen=True)
class Ruling:
    """Checks, and the sentences that go with those that did not simply pass.

    Attributes:
        warnings: sentences that the protocol asks to tell, and no more.
        certain: a failed check here does not rest on the number of images: more of them would not help.
        repaired: operating points at which the champion's trade-off is repaired.
    """

    checks: tuple[Check, ...]
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    certain: bool = False
    repaired: frozenset[str] = frozenset()

    @property
    def verdict(self) -> Verdict:
        verdicts = {check.verdict for check in self.checks}
        if "failed" in verdicts and (self.certain or not self._too_few):
            return "failed"
        return "passed" if verdicts <= {"passed", "warned"} else "inconclusive"

    @property
    def _too_few(self) -> bool:
        """A small test set proves nothing, harm included."""
        return any(c.name.startswith("enough ") and c.verdict != "passed" for c in self.checks)

    def __add__(self, other: Ruling) -> Ruling:
        return Ruling(
            self.checks + other.checks,
            self.reasons + other.reasons,
            self.warnings + other.warnings,
            self.certain or other.certain,
            self.repaired | other.repaired,
        )


@dataclass(frozen=True)
class Beside:
    """A bundle that a challenger is held to, on the same images.

    Attributes:
        probabilities: (n,). figures: with its frozen thresholds.
        repaired: operating points at which the challenger repairs its trade-off.
    """

    who: Who
    probabilities: np.ndarray
    figures: Figures
    repaired: frozenset[str] = frozenset()


def margins(who: Who, params: Gate) -> tuple[float, float]:
    """What may be lost against it: over the whole test set, and in a slice."""
    if who == "reference" and params.reference is not None:
        return params.reference.margin, params.reference.margin
    return params.margin, params.slices.margin


def enough(positives: int, negatives: int, params: Gate) -> Ruling:
    """Are there enough images of both kinds to decide anything?"""
    checks, reasons = [], []
    for noun, found, least in (
        ("fractures", positives, params.min_positives),
        ("non-fractures", negatives, params.min_negatives),
    ):
        verdict: Verdict = "passed" if found >= least else "inconclusive"
        checks.append(Check(name=f"enough {noun}", expected=f"at least {least}", found=str(found), verdict=verdict))
        if found < least:
            reasons.append(
                f"The test set has {found} {noun}, the protocol asks for {least}: {least - found} more are needed."
            )
    return Ruling(tuple(checks), tuple(reasons))


def floors(figures: Figures, params: Gate, *, first: bool) -> Ruling:
    """The absolute minimum; for a first champion by the lower bound, later only as sanity by the upper one."""
    rows = [
        ("AUROC", figures.auroc, params.auroc_floor),
        (
            "sensitivity at the high-sensitivity point",
            figures.sensitivity["high_sensitivity"],
            params.sensitivity_floor,
        ),
        (
            "specificity at the high-specificity point",
            figures.specificity["high_specificity"],
            params.specificity_floor,
        ),
    ]
    checks, reasons = [], []
    for name, found, floor in rows:
        verdict: Verdict = "passed"
        if first and found.low < floor:
            verdict = "failed" if found.value < floor else "inconclusive"
        elif found.high < floor:
            verdict = "failed"
        bound = "lower bound at least" if first else "upper bound at least"
        checks.append(Check(name=name, expected=f"{bound} {floor:g}", found=_said(found), verdict=verdict))
        if verdict == "failed":
            reasons.append(f"{_capital(name)} is {found}: below the floor of {floor:g}.")
        elif verdict == "inconclusive":
            reasons.append(
                f"{_capital(name)} is {found} on {found.n} images: above the floor of {floor:g}, but not by its "
                f"interval; about {_needed_for_floor(found, floor)} images would show it."
            )
    return Ruling(tuple(checks), tuple(reasons))


def against(
    labels: np.ndarray,
    patients: np.ndarray,
    challenger: tuple[np.ndarray, Figures],
    other: Beside,
    params: Gate,
    *,
    resamples: int,
    seed: int,
) -> Ruling:
    """Both points, as the head of this file says.

    Args:
        challenger: (n,) probabilities on the same images, and the figures with the frozen thresholds.
    """
    ruling = Ruling(())
    for point, promise in PROMISES.items():
        difference = paired_difference(
            labels,
            patients,
            challenger=(challenger[0], challenger[1].thresholds[point].threshold),
            champion=(other.probabilities, other.figures.thresholds[point].threshold),
            promise=promise,
            resamples=resamples,
            seed=seed,
        )
        ruling += judge_point(point, difference, getattr(challenger[1], promise)[point], params, other.who)
    return ruling


def judge_point(point: str, found: Difference, kept: Estimate, params: Gate, who: Who = "champion") -> Ruling:
    """One operating point.

    Args:
        kept: the challenger's own promised rate there.
    """
    (margin, _), promise = margins(who, params), PROMISES[point]
    floor = params.sensitivity_floor if promise == "sensitivity" else params.specificity_floor
    differences = {"sensitivity": found.sensitivity, "specificity": found.specificity}
    where = f"the {point.replace('_', '-')} point"
    to = " than the reference's" if who == "reference" else ""
    short = {name: d for name, d in differences.items() if d.low <= -margin}
    conditions = (
        (found.balanced.low > 0, found.balanced.value > 0),
        (found.matched.low > -margin, found.matched.value > -margin),
        (kept.low >= floor, kept.value >= floor),
    )
    repaired, could_be = all(shown for shown, _ in conditions), all(hoped for _, hoped in conditions)
    checks, reasons = [], []
    for name, d in differences.items():
        verdict: Verdict = "passed"
        if name in short and not repaired:
            verdict = "failed" if d.high < 0 and not could_be else "inconclusive"
        checks.append(
            Check(
                name=f"{name} at {where}, challenger minus {who}",
                expected=f"lower bound above -{margin:g}" + (", or the point repaired" if short else ""),
                found=_said(d) + ("; repaired" if name in short and repaired else ""),
                verdict=verdict,
            )
        )
        if verdict == "failed":
            reasons.append(
                f"At {where} the challenger's {name} is worse{to} by {_flip(d)}; up to {margin:g} is allowed."
            )
        elif verdict == "inconclusive":
            share = found.discordant[0 if name == "sensitivity" else 1]
            needed = max(positives_needed(margin, max(share, margin)), d.n + 1)
            from_whom = " to the reference" if to else ""
            reasons.append(
                f"At {where} the difference in {name}{from_whom} is {d} on {d.n} {OF[name]}: a loss of {margin:g} is "
                f"not excluded; about {needed} {OF[name]} would tell."
            )
    if short and repaired:
        lost = " and ".join(f"{name} changes by {d}" for name, d in differences.items())
        other = "specificity" if promise == "sensitivity" else "sensitivity"
        reasons.append(
            f"At {where} the {who}'s trade-off is repaired: {lost}; balanced accuracy gains {found.balanced}, "
            f"and at equal {other} {promise} differs by {found.matched}."
        )
    restored = frozenset({point}) if short and repaired else frozenset()
    return Ruling(tuple(checks), tuple(reasons), repaired=restored)


def _needed_for_floor(found: Estimate, floor: float) -> int:
    """Images at which the interval, shrinking with the root of their number, would clear the floor."""
    gap, half = found.value - floor, found.value - found.low
    return int(np.ceil(found.n * (half / gap) ** 2)) + 1 if gap > 0 else 100 * found.n


def _said(estimate: Estimate) -> str:
    return f"{estimate}, n = {estimate.n}"


def _flip(d: Estimate) -> Estimate:
    return Estimate(-d.value, -d.high, -d.low, d.n)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
