"""Step: how good the champion is in production, from the cases that readers judged blind.

Readers correct what catches their eye, so corrections alone flatter sensitivity and punish specificity (verification
bias). Only the random audit, weighted by the inverse of the probability with which a case was drawn, is unbiased; the
naive figures stand beside it as a warning. A falling sensitivity raises an alarm through a betting e-process, which
may be looked at every day without spending its error rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components import params
from components.errors import DataError
from components.model.statistics import Estimate
from components.radiograph.labels import FRACTURE, NO_FRACTURE

RESAMPLES = 2000
# What the e-process bets on: mostly on a loss of 0.10, the rest spread, so that a collapse is seen at once.
DESIGN_LOSS, DESIGN_WEIGHT = 0.10, 0.8
SPREAD = 20
NEEDED = ("image_id", "patient_id", "call", "audit", "inclusion_probability", "label", "ai_visible")


class AuditedPerformance(BaseModel):
    """Sensitivity and specificity of the bundle's call on audited production cases.

    A case counts as flagged when its call is not "no_fracture": "review" reaches a person.

    Attributes:
        cases: predictions.  audited: drawn for the audit.  read: of those, settled by blinded readers.
        sensitivity, specificity: inverse-probability weighted; None without positives (negatives).
        naive_sensitivity, naive_specificity: over every settled case. Biased: shown to warn, never to decide.
        fracture_covered, no_fracture_covered: share of the audited cases of a class whose prediction set holds their
            label, weighted likewise, of those that have a set; `promised` is the coverage of the sets; None without.
        e_value: evidence against "sensitivity >= floor"; 1 is none.
        alarm: the e-value reached 1 / alpha.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int
    audited: int
    read: int
    positives: int
    negatives: int
    sensitivity: Estimate | None
    specificity: Estimate | None
    naive_sensitivity: Estimate | None
    naive_specificity: Estimate | None
    fracture_covered: Estimate | None
    no_fracture_covered: Estimate | None
    promised: float | None
    floor: float
    e_value: float
    alarm: bool
    reasons: tuple[str, ...]


def audited(*, cases: pd.DataFrame, params: params.Monitor, seed: int = 0) -> AuditedPerformance:
    """Judge one bundle's calls by what readers settled.

    Args:
        cases: PredictionLog.frame of one bundle, since it went into service: the e-process gathers evidence over
            the bundle's life, not over a window. Never changed.
        params: sensitivity floor and alpha.
        seed: of the bootstrap.

    Raises:
        DataError: columns are missing, bundles are mixed, or a read audit case has no inclusion probability.
    """
    if missing := sorted(set(NEEDED) - set(cases.columns)):
        raise DataError(f"audit: {len(cases)} predictions without columns {missing}; read it with PredictionLog.frame")
    if "bundle_hash" in cases and (bundles := cases["bundle_hash"].nunique()) > 1:
        raise DataError(f"audit: expected predictions of one bundle, found {bundles}; keep the champion's")
    cases = cases.drop_duplicates("image_id", keep="last")
    settled = cases[cases["label"].notna()]
    audit = settled["audit"].astype(bool) & settled["ai_visible"].eq(False)
    read = settled[audit]
    chance = read["inclusion_probability"].to_numpy(dtype=float)
    if bad := int((~((chance > 0) & (chance <= 1))).sum()):
        raise DataError(
            f"audit: {bad} of {len(read)} read cases have an inclusion probability outside (0, 1]; fix serving"
        )
    positive = read[read["label"] == 1]
    e = e_value(
        positive["call"].ne("no_fracture").to_numpy(),
        positive["inclusion_probability"].to_numpy(dtype=float),
        positive["patient_id"].astype(str).to_numpy(),
        floor=params.sensitivity_floor,
        lowest=float(chance.min()) if len(chance) else 1.0,
    )
    sets = read[read["prediction_set"].notna()] if "prediction_set" in read else read.iloc[:0]
    figures = AuditedPerformance(
        cases=len(cases),
        audited=int(cases["audit"].astype(bool).sum()),
        read=len(read),
        positives=len(positive),
        negatives=int((read["label"] == 0).sum()),
        sensitivity=_rate(read, 1, _called, weighted=True, seed=seed),
        specificity=_rate(read, 0, _called, weighted=True, seed=seed),
        naive_sensitivity=_rate(settled, 1, _called, weighted=False, seed=seed),
        naive_specificity=_rate(settled, 0, _called, weighted=False, seed=seed),
        fracture_covered=_rate(sets, 1, _covered, weighted=True, seed=seed),
        no_fracture_covered=_rate(sets, 0, _covered, weighted=True, seed=seed),
        promised=sets["prediction_set"].iloc[-1]["coverage"] if len(sets) else None,
        floor=params.sensitivity_floor,
        e_value=e,
        alarm=e >= 1 / params.alpha,
        reasons=(),
    )
    return figures.model_copy(update={"reasons": _reasons(figures, params)})


def e_value(detected: np.ndarray, inclusion: np.ndarray, patients: np.ndarray, *, floor: float, lowest: float) -> float:
    """Evidence against "sensitivity >= floor" from audited positives; alarm at 1 / alpha.

    A mixture of constant bets, so the order in which truth arrives does not matter. A patient's images bet once.

    Args:
        detected: (positives,) bool.
        inclusion: (positives,) probability with which each case was audited, at least `lowest`.
        patients: (positives,) patient of each.
        floor: in (0, 1).
        lowest: smallest inclusion probability of the audit's design.

    Source: Waudby-Smith and Ramdas 2024 (testing by betting); Ville's inequality bounds false alarms by alpha at
    any stopping time.
    """
    if not len(detected):
        return 1.0
    loss = (lowest / inclusion) * (floor - detected)  # mean at most 0 under H0, also when cases are drawn unequally
    _, group = np.unique(patients, return_inverse=True)
    loss = np.bincount(group, weights=loss) / np.bincount(group)
    worse = np.append(max(floor - DESIGN_LOSS, floor / 2), np.arange(1, SPREAD) * floor / SPREAD)
    weight = np.append(DESIGN_WEIGHT, np.full(SPREAD - 1, (1 - DESIGN_WEIGHT) / (SPREAD - 1)))
    bets = (floor - worse) / (floor * (1 - floor))  # likelihood-ratio bet against each alternative
    wealth = np.log1p(np.outer(bets, loss)).sum(axis=1)
    return float(np.exp(np.minimum(np.logaddexp.reduce(wealth + np.log(weight)), 700.0)))


def _called(cases: pd.DataFrame, label: int) -> np.ndarray:
    """Whether the call is right."""
    return np.asarray(cases["call"].ne("no_fracture") == bool(label))


def _covered(cases: pd.DataFrame, label: int) -> np.ndarray:
    """Whether the label is in the prediction set."""
    name = FRACTURE if label else NO_FRACTURE
    return np.array([name in found["labels"] for found in cases["prediction_set"]], dtype=bool)


def _rate(
    cases: pd.DataFrame,
    label: int,
    judge: Callable[[pd.DataFrame, int], np.ndarray],
    *,
    weighted: bool,
    seed: int,
) -> Estimate | None:
    """Share of the cases of this label that are right by `judge`, with a patient-clustered bootstrap interval."""
    chosen = cases[cases["label"] == label]
    if chosen.empty:
        return None
    right = judge(chosen, label).astype(float)
    weight = 1 / chosen["inclusion_probability"].to_numpy(dtype=float) if weighted else np.ones(len(chosen))
    _, patient = np.unique(chosen["patient_id"].astype(str).to_numpy(), return_inverse=True)
    good, total = np.bincount(patient, weights=weight * right), np.bincount(patient, weights=weight)
    value = float(good.sum() / total.sum())
    if good.sum() in (0.0, total.sum()):  # every resample would agree; an exact interval does not pretend to be sure
        low, high = _exact(value, total.sum() ** 2 / (total**2).sum())
    else:
        # Patients who weigh the same are exchangeable: resampling how many of each kind come is the same bootstrap.
        kinds, count = np.unique(np.column_stack([good, total]), axis=0, return_counts=True)
        draws = np.random.default_rng(seed).multinomial(len(total), count / len(total), RESAMPLES)
        low, high = np.percentile((draws @ kinds[:, 0]) / (draws @ kinds[:, 1]), [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high), n=len(chosen))


def _exact(value: float, size: float) -> tuple[float, float]:
    """Clopper-Pearson 95% interval of 0 or 1 observed in `size` (effective) patients."""
    edge = float(0.025 ** (1 / size))
    return (edge, 1.0) if value else (0.0, 1 - edge)


def _reasons(found: AuditedPerformance, params: params.Monitor) -> tuple[str, ...]:
    lines = []
    if found.alarm and found.sensitivity:
        lines.append(
            f"audited sensitivity is below {params.sensitivity_floor:g}: {found.sensitivity} in {found.positives} "
            f"fractures; evidence {found.e_value:.3g}, alarm at {1 / params.alpha:.3g}"
        )
    naive, honest = found.naive_sensitivity, found.sensitivity
    if naive and honest and naive.value - honest.value > 0.05:
        lines.append(
            f"corrections alone suggest a sensitivity of {naive.value:.3f}; the audit says {honest.value:.3f}: "
            "people look where the model points"
        )
    for name, covered in (("fractures", found.fracture_covered), ("no fracture", found.no_fracture_covered)):
        if found.promised and covered and covered.high < found.promised:
            lines.append(
                f"prediction sets hold {covered} of {covered.n} audited cases ({name}) and promise {found.promised:g}: "
                "calibrate on images that are like today's"
            )
    if not found.positives:
        lines.append(
            f"no audited fracture yet ({found.read} of {found.audited} audited cases read): sensitivity unknown"
        )
    return tuple(lines)
