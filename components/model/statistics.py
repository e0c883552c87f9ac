"""Noun: how good a classifier is, with the interval and the denominator that belong to every figure.

Images of one patient resemble each other, so patients, not images, are the sample: rates carry a Wilson interval with
the patients' design effect, everything else a bootstrap that draws patients. With three much alike images a patient an
image-level 95% interval for AUROC covers about 76%; these cover about what they say (tests/model/test_promises.py).

Throughout: labels (n,) 1 fracture or 0 none; scores and probabilities (n,), higher means fracture; an image is called
positive at a threshold when its probability is at least the threshold; `weights` (..., n) counts how often an image is
drawn, one row a resample, and a figure is then returned per row. In memory the resamples of one image lie side by side:
to put images in order is then to move whole lines, and the sums run over many resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import DataError

Z95 = 1.959963984540054
# Resamples are drawn in blocks of about this many (resample, image) cells: 32 MB of float64.
CELLS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95% interval, and the number of images it was taken over (its denominator)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        between = " to " if self.low < 0 else "-"
        return f"{_short(self.value)} ({_short(self.low)}{between}{_short(self.high)})"


def auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Probability that a fracture scores above a non-fracture; ties count half.

    Args:
        weights: (n,); use `auroc_of` for many resamples.

    Raises:
        DataError: a class is missing.
    """
    return float(auroc_of(labels, scores)(np.ones((1, len(labels))) if weights is None else weights[None])[0, 0])


def auroc_of(labels: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """AUROC as a function of weights (b, n) -> (b, 1): sorts once, then every resample is a cumulative sum.

    A resample without one of the classes gives NaN.

    Raises:
        DataError: a class is missing from `labels`.
    """
    positives, negatives, below, through = _ranked(labels, scores)

    def statistic(weights: np.ndarray) -> np.ndarray:
        drawn, beaten = weights.T[positives], _sums(weights.T[negatives])
        wins = np.einsum("ij,ij->j", drawn, beaten[below] + beaten[through]) / 2
        return _ratio(wins, drawn.sum(axis=0) * beaten[-1])[:, None]

    return statistic


def average_precision_of(labels: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Area under the precision-recall steps as a function of weights (b, n) -> (b, 1); tied scores are one step.

    The mean, over the fractures drawn, of the precision at the fracture's own score.

    Raises:
        DataError: a class is missing from `labels`.
    """
    positives, negatives, below, _ = _ranked(labels, scores)
    first = np.searchsorted(scores[positives], scores[positives], side="left")

    def statistic(weights: np.ndarray) -> np.ndarray:
        drawn = weights.T[positives]
        found, beaten = _sums(drawn), _sums(weights.T[negatives])
        hits = found[-1] - found[first]
        precision = _ratio(hits, hits + beaten[-1] - beaten[below], empty=0.0)
        return _ratio(np.einsum("ij,ij->j", drawn, precision), found[-1])[:, None]

    return statistic


def ratios_of(numerators: np.ndarray, denominators: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """k ratios of sums as a function of weights (b, n) -> (b, k): sensitivity is (hit & positive) over (positive).

    Args:
        numerators, denominators: (n, k) real or bool, per image.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    return lambda weights: _ratio(weights @ top, weights @ bottom)


def bootstrap(
    patients: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int, seed: int
) -> np.ndarray:
    """Draw patients with replacement, each with all its images.

    Args:
        patients: (n,) whose image it is.
        statistic: weights (b, n) -> (b, k).

    Returns:
        (resamples, k); NaN where a resample leaves a figure undefined.

    Source: Efron and Tibshirani 1993; clusters: Field and Welsh 2007.
    """
    names, member = np.unique(patients, return_inverse=True)
    random = np.random.default_rng(seed)
    block = max(1, CELLS // max(len(member), 1))
    rows = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.integers(len(names), size=(size, len(names)), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * np.int32(len(names))
        counts = np.bincount(drawn.ravel(), minlength=size * len(names)).reshape(size, len(names))
        rows.append(statistic(np.ascontiguousarray(counts.T, np.float64)[member].T))
    return np.concatenate(rows)


def percentile(value: float, draws: np.ndarray, n: int) -> Estimate | None:
    """`value` with the central 95% of its resamples (b,); None when it is undefined, as a ratio over nothing is."""
    kept = draws[np.isfinite(draws)]
    if not math.isfinite(value) or kept.size == 0:
        return None
    low, high = np.percentile(kept, (2.5, 97.5))
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), n)


def rate(hits: np.ndarray, patients: np.ndarray) -> Estimate | None:
    """A proportion of images, Wilson's interval with the patients' design effect; None over no image.

    Never narrower than for independent images, and never of no width: 40 of 40 is not certainty, as a bootstrap
    would have it.

    Args:
        hits: (n,) bool, over the images of the denominator.
        patients: (n,) whose image it is.

    Source: Wilson 1927; effective sample size as in Korn and Graubard 1998.
    """
    n = len(hits)
    if n == 0:
        return None
    value, effective = float(np.mean(hits)), effective_images(hits, patients)
    half = Z95 * math.sqrt(value * (1 - value) / effective + (Z95 / effective) ** 2 / 4)
    low = (value + Z95**2 / (2 * effective) - half) / (1 + Z95**2 / effective)
    high = (value + Z95**2 / (2 * effective) + half) / (1 + Z95**2 / effective)
    return Estimate(value, min(max(low, 0.0), value), max(min(high, 1.0), value), n)


def effective_images(hits: np.ndarray, patients: np.ndarray) -> float:
    """How many independent images tell a proportion as well as these do; never more than there are.

    Args:
        hits, patients: (n,), as for `rate`; n is at least 1.
    """
    n = len(hits)
    _, member = np.unique(patients, return_inverse=True)
    images = np.bincount(member).astype(np.float64)
    value, clusters = float(np.mean(hits)), len(images)
    if not 0 < value < 1 or clusters < 2:
        return float(n**2 / (images @ images))  # all alike: as if each patient's images said the same thing
    residuals = np.bincount(member, weights=np.asarray(hits, np.float64)) - images * value
    variance = clusters / (clusters - 1) * float(residuals @ residuals) / n**2
    return float(n / max(1.0, variance / (value * (1 - value) / n)))


def high_sensitivity_threshold(labels: np.ndarray, probabilities: np.ndarray, target: float) -> float:
    """The largest threshold that calls at least `target` of the fractures positive.

    Raises:
        DataError: there is no fracture.
    """
    scores = np.sort(probabilities[labels == 1])[::-1]
    if scores.size == 0:
        raise DataError("a high-sensitivity threshold needs fractures, found 0; take in more labelled patients")
    kept = max(1, math.ceil(target * scores.size - 1e-9))
    return float(scores[kept - 1])


def high_specificity_threshold(labels: np.ndarray, probabilities: np.ndarray, target: float) -> float:
    """The smallest threshold (of float32 resolution) that calls at least `target` of the non-fractures negative.

    Raises:
        DataError: there is no non-fracture, or so many have probability 1 that no threshold does.
    """
    scores = np.sort(probabilities[labels == 0])
    if scores.size == 0:
        raise DataError("a high-specificity threshold needs non-fractures, found 0; take in more labelled patients")
    kept = math.ceil(target * scores.size - 1e-9)
    if kept <= 0:
        return 0.0
    highest = np.float32(scores[kept - 1])
    above = highest if highest > scores[kept - 1] else np.nextafter(highest, np.float32(2), dtype=np.float32)
    if above > 1:
        raise DataError(
            f"{int(np.sum(scores >= scores[kept - 1]))} of {scores.size} non-fractures have probability 1: no "
            f"threshold reaches specificity {target}; train longer, or on more data"
        )
    return float(above)


def predictive_value(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float, *, positive: bool
) -> np.ndarray:
    """PPV or NPV where `prevalence` of the patients have a fracture (a test set is enriched); NaN for 0 over 0."""
    if positive:
        return _ratio(sensitivity * prevalence, sensitivity * prevalence + (1 - specificity) * (1 - prevalence))
    return _ratio(specificity * (1 - prevalence), specificity * (1 - prevalence) + (1 - sensitivity) * prevalence)


def benjamini_hochberg(p: Sequence[float] | np.ndarray, q: float) -> np.ndarray:
    """(k,) bool: rejected with a false discovery rate of at most `q`; for exploration (Benjamini and Hochberg 1995)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    passed = np.flatnonzero(values[order] <= q * np.arange(1, len(values) + 1) / max(len(values), 1))
    rejected = np.zeros(len(values), dtype=bool)
    rejected[order[: passed[-1] + 1 if passed.size else 0]] = True
    return rejected


def has_both(labels: np.ndarray) -> bool:
    """Whether there are fractures and non-fractures."""
    return bool(np.any(labels == 1) and np.any(labels == 0))


def require_both(labels: np.ndarray) -> None:
    """Raises: DataError when fractures or non-fractures are missing; it says which."""
    positives, negatives = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    if positives == 0 or negatives == 0:
        missing = "fractures" if positives == 0 else "non-fractures"
        raise DataError(f"{missing} are missing: {positives} images with and {negatives} without a fracture")


def _ranked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(fractures, non-fractures, below, through): both by rising score, and how many of the second each of the first
    beats, ties left out and ties counted."""
    require_both(labels)
    order = np.argsort(scores, kind="stable")
    positives, negatives = order[labels[order] == 1], order[labels[order] == 0]
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    through = np.searchsorted(scores[negatives], scores[positives], side="right")
    return positives, negatives, below, through


def _sums(weights: np.ndarray) -> np.ndarray:
    """(n, b) -> (n + 1, b): row k is the sum of the first k."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def _ratio(top: np.ndarray, bottom: np.ndarray, *, empty: float = math.nan) -> np.ndarray:
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, empty), where=bottom > 0)


def _short(value: float) -> str:
    """Three decimals without a leading zero, as medical journals print them: .912, 1.000, -.030."""
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-").startswith("0.") else text
