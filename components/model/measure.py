"""Noun: from probabilities on the sealed test images to the figures of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from components.errors import DataError
from components.model.evaluation import (
    AtPrevalence,
    Benefit,
    Combined,
    Point,
    Points,
    Reliability,
    Review,
    Sets,
    StudyFigures,
    StudyPoint,
    StudyPoints,
)
from components.model.reliability import calibration_error, calibration_error_null, calibration_line, net_benefit
from components.model.statistics import (
    Estimate,
    auroc_of,
    average_precision_of,
    bootstrap,
    percentile,
    predictive_value,
    rate,
    ratios_of,
)
from components.model.studies import Studies
from components.params import Evaluate
from components.radiograph.labels import FRACTURE, NO_FRACTURE
from components.serving.bundle import Conformal, StudyThresholds, Supported, Threshold, Thresholds

CURVE = tuple(round(0.02 * k, 2) for k in range(1, 21))  # .02 to .40; the reference asks for .02 to .30
SLOPE_RANGE = (0.8, 1.2)


def ranking(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, params: Evaluate
) -> tuple[Estimate, Estimate]:
    """(AUROC, AUPRC). The second depends on the test set's prevalence; compare it within one test set only."""
    area, precision = auroc_of(labels, probabilities), average_precision_of(labels, probabilities)

    def both(weights: np.ndarray) -> np.ndarray:
        return np.hstack([area(weights), precision(weights)])

    draws = bootstrap(patients, both, resamples=params.resamples, seed=params.seed)
    values = both(np.ones((1, len(labels))))[0]
    found = [known(percentile(values[k], draws[:, k], len(labels))) for k in (0, 1)]
    return found[0], found[1]


def points(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, thresholds: Thresholds, params: Evaluate
) -> Points:
    """Both operating points as they were frozen."""
    return Points(
        high_sensitivity=_point(labels, probabilities, patients, thresholds.high_sensitivity, params),
        high_specificity=_point(labels, probabilities, patients, thresholds.high_specificity, params),
    )


def _point(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, at: Threshold, params: Evaluate
) -> Point:
    positive, called = labels == 1, probabilities >= at.threshold
    n = len(labels)
    tops = np.stack([called & positive, ~called & ~positive, 2 * (called & positive)], axis=1)
    bottoms = np.stack([positive, ~positive, called.astype(int) + positive], axis=1)
    rates = ratios_of(tops, bottoms)
    names = [(p, kind) for p in params.prevalences for kind in (True, False)]

    def figures(weights: np.ndarray) -> np.ndarray:
        found = rates(weights)
        columns = [predictive_value(found[:, 0], found[:, 1], p, positive=kind) for p, kind in names]
        return np.stack([found[:, 2], *columns], axis=1)

    draws = bootstrap(patients, figures, resamples=params.resamples, seed=params.seed)
    values = figures(np.ones((1, n)))[0]
    f1, *predictive = [percentile(values[k], draws[:, k], n) for k in range(len(values))]
    return Point(
        threshold=at.threshold,
        source_role=at.source_role,
        sensitivity=known(rate(called[positive], patients[positive])),
        specificity=known(rate(~called[~positive], patients[~positive])),
        precision=rate(positive[called], patients[called]),
        accuracy=known(rate(called == positive, patients)),
        f1=f1,
        at_prevalence=tuple(
            AtPrevalence(prevalence=p, ppv=predictive[2 * k], npv=predictive[2 * k + 1])
            for k, p in enumerate(params.prevalences)
        ),
    )


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, *, resamples: int, seed: int
) -> Reliability:
    """Are the probabilities worth their numbers?"""
    squares = ((probabilities - labels) ** 2)[:, None]
    mean = ratios_of(squares, np.ones_like(squares))
    draws = bootstrap(patients, mean, resamples=resamples, seed=seed)
    line = calibration_line(labels, probabilities, patients)
    error = calibration_error(labels, probabilities)
    null_mean, null_95 = calibration_error_null(probabilities, seed=seed)
    straight = line is not None and line[0].low <= SLOPE_RANGE[1] and line[0].high >= SLOPE_RANGE[0]
    return Reliability(
        brier=known(percentile(float(squares.mean()), draws[:, 0], len(labels))),
        slope=line[0] if line else None,
        intercept=line[1] if line else None,
        ece=error,
        ece_null_mean=null_mean,
        ece_null_95=null_95,
        consistent=straight and error <= null_95,
    )


def review(labels: np.ndarray, calls: Sequence[str], patients: np.ndarray) -> Review:
    """How much goes to a person, and how good the calls are on what does not."""
    said = np.asarray(calls)
    kept, called = said != "review", said == "fracture"
    positive, negative = kept & (labels == 1), kept & (labels == 0)
    return Review(
        share=known(rate(~kept, patients)),
        sensitivity=rate(called[positive], patients[positive]),
        specificity=rate(~called[negative], patients[negative]),
    )


def unsupported(table: pd.DataFrame, supported: Supported | None, patients: np.ndarray) -> Estimate | None:
    """How much the service makes no call on for the `body_region` and `view` that are stated; None: on any it may."""
    if supported is None:
        return None
    stated = zip(table["body_region"].astype(str), table["view"].astype(str), strict=True)
    return rate(np.array([supported.lacks(*each) is not None for each in stated], dtype=bool), patients)


def sets(labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, cuts: Conformal | None) -> Sets | None:
    """Whether the prediction sets cover as promised, and how many of them settle an image; None without `cuts`."""
    if cuts is None:
        return None
    inside = [cuts.labels(float(p)) for p in probabilities]
    fracture, other = (np.array([label in one for one in inside]) for label in (FRACTURE, NO_FRACTURE))
    positive, settled = labels == 1, fracture != other
    return Sets(
        alpha=cuts.alpha,
        fracture_covered=known(rate(fracture[positive], patients[positive])),
        no_fracture_covered=known(rate(other[~positive], patients[~positive])),
        settled=known(rate(settled, patients)),
        both=known(rate(fracture & other, patients)),
        none=known(rate(~fracture & ~other, patients)),
        sensitivity=rate(fracture[settled & positive], patients[settled & positive]),
        specificity=rate(other[settled & ~positive], patients[settled & ~positive]),
    )


def studies(
    of: Studies, probabilities: np.ndarray, images: Thresholds, frozen: StudyThresholds | None, incomplete: int,
    params: Evaluate,
) -> StudyFigures | None:  # fmt: skip
    """The same figures over examinations; None where every study shows a fracture, or none does.

    Args:
        probabilities: (n,) of the images that `of` groups.
        images, frozen: the thresholds of images, and those of studies.
    """
    if not of.judgeable:
        return None
    highest, either = of.maximum(probabilities), of.noisy_or(probabilities)
    learned = frozen.attention if frozen else None
    pooled = of.attention(probabilities, learned.rule) if learned else None
    return StudyFigures(
        studies=len(of.labels),
        several=int((of.images > 1).sum()),
        mixed=of.mixed,
        incomplete=incomplete,
        positives=int(of.labels.sum()),
        negatives=int((1 - of.labels).sum()),
        as_served=_study_points(of, highest, images),
        maximum=_combined(of, highest, frozen.maximum if frozen else None, params),
        noisy_or=_combined(of, either, frozen.noisy_or if frozen else None, params),
        attention=_combined(of, pooled, learned.thresholds, params) if learned and pooled is not None else None,
        attention_gain=_gain(of, pooled, highest, params) if pooled is not None else None,
        no_attention=frozen.no_attention if frozen else None,
    )


def _gain(of: Studies, mine: np.ndarray, other: np.ndarray, params: Evaluate) -> Estimate:
    """AUROC of one score minus that of another, of the same studies; the interval draws patients."""
    areas = [auroc_of(of.labels, scores) for scores in (mine, other)]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return areas[0](weights) - areas[1](weights)

    draws = bootstrap(of.patients, statistic, resamples=params.resamples, seed=params.seed)
    return known(percentile(float(statistic(np.ones((1, len(of.labels))))[0, 0]), draws[:, 0], len(of.labels)))


def _combined(of: Studies, probabilities: np.ndarray, at: Thresholds | None, params: Evaluate) -> Combined:
    return Combined(
        auroc=ranking(of.labels, probabilities, of.patients, params)[0],
        points=_study_points(of, probabilities, at) if at else None,
    )


def _study_points(of: Studies, probabilities: np.ndarray, at: Thresholds) -> StudyPoints:
    positive = of.labels == 1

    def point(threshold: Threshold) -> StudyPoint:
        called = probabilities >= threshold.threshold
        return StudyPoint(
            threshold=threshold.threshold,
            source_role=threshold.source_role,
            sensitivity=known(rate(called[positive], of.patients[positive])),
            specificity=known(rate(~called[~positive], of.patients[~positive])),
        )

    return StudyPoints(high_sensitivity=point(at.high_sensitivity), high_specificity=point(at.high_specificity))


def benefit(labels: np.ndarray, probabilities: np.ndarray) -> tuple[Benefit, ...]:
    """The decision curve beside treating everyone and treating no one."""
    thresholds = np.array(CURVE)
    model = net_benefit(labels, probabilities, thresholds)
    everyone = net_benefit(labels, np.ones(len(labels)), thresholds)
    return tuple(
        Benefit(threshold=float(t), model=float(m), treat_all=float(a))
        for t, m, a in zip(thresholds, model, everyone, strict=True)
    )


def known(estimate: Estimate | None) -> Estimate:
    """`estimate`, where there is one.

    Raises:
        DataError: it is undefined: its denominator is empty.
    """
    if estimate is None:
        raise DataError("a figure is undefined: no image in its denominator; take in more labelled patients (`intake`)")
    return estimate
