"""Noun: is a probability worth its number: calibration line, calibration error against chance, and decision curve."""

from __future__ import annotations

import math

import numpy as np

from components.model.statistics import Z95, Estimate

BINS = 15
NULL_DRAWS = 1000
# Logits beyond this say nothing more, and a probability of exactly 0 or 1 has none.
CLIP = 1e-7


def calibration_line(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, *, steps: int = 50
) -> tuple[Estimate, Estimate] | None:
    """Logistic recalibration, logit P(fracture) = intercept + slope * logit(p); a calibrated model has 1 and 0.

    Args:
        patients: (n,); the intervals are robust to images of one patient resembling each other (sandwich variance).

    Returns:
        (slope, intercept), or None where no finite line fits: the probabilities are all alike, or separate the classes.

    Source: Cox 1958; intervals: Liang and Zeger 1986.
    """
    p = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    design = np.stack([np.log(p / (1 - p)), np.ones(len(p))], axis=1)
    if np.ptp(design[:, 0]) == 0:
        return None
    weights = np.array([1.0, 0.0])
    for _ in range(steps):
        fitted = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (labels - fitted))
        weights = weights + step * min(1.0, 5 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    else:
        return None
    names, member = np.unique(patients, return_inverse=True)
    if len(names) < 2:
        return None
    score = np.zeros((len(names), 2))
    np.add.at(score, member, design * (labels - fitted)[:, None])
    bread = np.linalg.inv(information)
    variance = bread @ (score.T @ score) @ bread * len(names) / (len(names) - 1)
    half = Z95 * np.sqrt(np.diag(variance))
    slope, intercept = (
        Estimate(float(w), float(w - h), float(w + h), len(p)) for w, h in zip(weights, half, strict=True)
    )
    return slope, intercept


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = BINS) -> float:
    """Expected calibration error over `bins` equal-width bins (Naeini et al. 2015). Read it beside its null only."""
    return float(_errors(labels[None].astype(np.float64), probabilities, bins)[0])


def calibration_error_null(
    probabilities: np.ndarray, *, seed: int, bins: int = BINS, draws: int = NULL_DRAWS
) -> tuple[float, float]:
    """(mean, 95th percentile) of the calibration error of a perfectly calibrated model with these probabilities.

    It is not zero: with few images a bin, chance alone gives .045 at 500 images. Images count as independent.
    """
    random = np.random.default_rng(seed)
    block = max(1, 4_000_000 // max(len(probabilities), 1))
    found = [
        _errors((random.random((min(block, draws - start), len(probabilities))) < probabilities).astype(np.float64),
                probabilities, bins)
        for start in range(0, draws, block)
    ]  # fmt: skip
    errors = np.concatenate(found)
    return float(errors.mean()), float(np.percentile(errors, 95))


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Groups of about equal size, by probability: (mean probability, share of fractures, images)."""
    order = np.argsort(probabilities, kind="stable")
    groups = [group for group in np.array_split(order, min(bins, len(order))) if group.size]
    return [(float(probabilities[g].mean()), float(labels[g].mean()), int(g.size)) for g in groups]


def net_benefit(labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(k,) net true positives per image when acting at each of (k,) thresholds in (0, 1).

    Source: Vickers and Elkin 2006: TP/n - FP/n * pt/(1-pt).
    """
    called = probabilities[None] >= thresholds[:, None]
    true, false = (called & (labels == 1)).mean(axis=1), (called & (labels == 0)).mean(axis=1)
    return np.asarray(true - false * thresholds / (1 - thresholds))


def _errors(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> np.ndarray:
    """(draws, n) labels -> (draws,): the share-weighted mean of |mean probability - share of fractures| over bins."""
    if not len(probabilities):
        return np.full(len(labels), math.nan)
    member = np.minimum((probabilities * bins).astype(int), bins - 1)
    one_hot = np.eye(bins)[member]
    gaps = labels @ one_hot - probabilities.astype(np.float64) @ one_hot
    return np.asarray(np.abs(gaps).sum(axis=1) / len(probabilities))
