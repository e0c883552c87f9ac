"""Noun: how far two samples of cases lie apart, and how surprising that is when nothing has changed.

Cases are compared within body region x view, so that more hips than last month do not read as noisier images; and
patients, not images, count towards significance, because the images of one patient resemble each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_STRATUM = 20  # reference cases of one body region and view below which its distribution is not known
COMPONENTS = 16  # principal components of the embedding that the domain classifier sees
MAX_CASES = 2000  # per sample, for the domain classifier
FOLDS = 5
RIDGE = 1.0


@dataclass(frozen=True)
class Distance:
    """A distance in 0..1 and the probability of one at least as large when nothing has changed."""

    statistic: float
    p: float


def comparable(reference: np.ndarray, current: np.ndarray, *, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    """The stratum each case is compared in, "" for cases that have none.

    Args:
        reference, current: (cases,) str; body region and view of each case.
        at_least: comparable current cases below which strata are given up: everything becomes one stratum.

    Returns:
        Stratum of each reference case, and of each current case.
    """
    names, counts = np.unique(reference, return_counts=True)
    known = names[counts >= MIN_STRATUM]
    if np.isin(current, known).sum() < at_least:
        return np.full(len(reference), "all"), np.full(len(current), "all")
    return np.where(np.isin(reference, known), reference, ""), np.where(np.isin(current, known), current, "")


def stratified_ks(
    reference: np.ndarray,
    current: np.ndarray,
    *,
    reference_strata: np.ndarray,
    current_strata: np.ndarray,
    reference_patients: int,
    current_patients: int,
) -> Distance:
    """Two-sample Kolmogorov-Smirnov distance within strata.

    Each current value is replaced by its mid-rank among the reference values of its stratum, and the reference is
    weighted to the current mix of strata; with one stratum this is the ordinary KS distance.

    Args:
        reference, current: (cases,) finite values.
        reference_strata, current_strata: (cases,) str; every current stratum occurs in the reference.
        reference_patients, current_patients: independent units behind the values; they set the p-value.

    Source: asymptotic distribution as in scipy.stats.ks_2samp(method="asymp"); the reference's effective size
    follows from the variance of a stratified mean, 1 / sum(share^2 / size).
    """
    from scipy.stats import kstwo

    ranks, weights, spread = [], [], 0.0
    for stratum, count in zip(*np.unique(current_strata, return_counts=True), strict=True):
        known = np.sort(reference[reference_strata == stratum])
        share = count / len(current)
        spread += share**2 / len(known)
        for values, weight in ((known, -share / len(known)), (current[current_strata == stratum], 1 / len(current))):
            middle = (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / 2
            ranks.append(middle / len(known))
            weights.append(np.full(len(values), weight))
    at, weight = np.concatenate(ranks), np.concatenate(weights)
    order = np.argsort(at, kind="stable")
    gaps = np.cumsum(weight[order])
    last_of_ties = np.append(np.diff(at[order]) > 0, True)
    distance = float(np.abs(gaps[last_of_ties]).max())
    reference_size = (1 / spread) * min(1.0, reference_patients / len(reference))
    current_size = min(current_patients, len(current))
    effective = reference_size * current_size / (reference_size + current_size)
    return Distance(distance, float(np.clip(kstwo.sf(distance, max(1, round(effective))), 0.0, 1.0)))


def mix(reference: np.ndarray, current: np.ndarray, *, patients_per_case: float) -> Distance:
    """Total variation distance between two mixes of categories, p from a chi-square test.

    Args:
        reference, current: (cases,) str.
        patients_per_case: in (0, 1]; counts are scaled by it, so that patients are what is counted.
    """
    from scipy.stats import chi2

    names = np.unique(np.concatenate([reference, current]))
    table = np.array([[(side == name).sum() for name in names] for side in (reference, current)], dtype=float)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if len(names) == 1:
        return Distance(distance, 1.0)
    table *= patients_per_case
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    return Distance(distance, float(chi2.sf(((table - expected) ** 2 / expected).sum(), len(names) - 1)))


def domain_auc(
    embeddings: np.ndarray,
    is_current: np.ndarray,
    *,
    patients: np.ndarray,
    strata: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """How well a classifier tells current from reference cases by their embeddings.

    A ridge classifier on principal components and their squares (it sees shifts of location and of spread),
    cross-validated by patient; significance by permuting patients.

    Args:
        embeddings: (cases, d) finite.
        is_current: (cases,) bool.
        patients: (cases,) any labels; cases of one label stay together.
        strata: (cases,) str; stratum means are taken out first.
        resamples: permutations; the smallest p is 1 / (resamples + 1).
        seed: of folds and permutations.

    Returns:
        Cross-validated AUC (0.5: indistinguishable), and its permutation p.
    """
    rng = np.random.default_rng(seed)
    _, group = np.unique(patients, return_inverse=True)
    design = _design(embeddings, strata)
    if not design.size:
        return 0.5, 1.0
    labels = np.empty((len(design), resamples + 1), dtype=np.float32)
    labels[:, 0] = is_current
    sizes = np.bincount(group)
    for column in range(1, resamples + 1):
        order = rng.permutation(len(sizes))
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[order[np.cumsum(sizes[order]) <= is_current.sum()]] = True
        labels[:, column] = chosen[group]
    fold = rng.permutation(len(sizes))[group] % FOLDS
    scores = np.empty_like(labels)
    for held in range(FOLDS):
        seen, unseen = design[fold != held], design[fold == held]
        target = labels[fold != held] - labels[fold != held].mean(axis=0)
        scores[fold == held] = unseen @ np.linalg.solve(seen.T @ seen + RIDGE * np.eye(seen.shape[1]), seen.T @ target)
    areas = np.concatenate([_areas(scores[:, at : at + 200], labels[:, at : at + 200] > 0.5)
                            for at in range(0, resamples + 1, 200)])  # fmt: skip
    return float(areas[0]), float(np.mean(areas >= areas[0]))


def _design(embeddings: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """(cases, 2k): whitened leading components and their squares, both centred."""
    centred = embeddings.astype(np.float64)
    for stratum in np.unique(strata):
        centred[strata == stratum] -= centred[strata == stratum].mean(axis=0)
    left, strength, _ = np.linalg.svd(centred, full_matrices=False)
    scale = max(strength[0], float(np.abs(embeddings).max()), 1e-12)  # below it, differences are rounding
    keep = min(COMPONENTS, max(1, len(centred) // 20), int((strength > 1e-6 * scale).sum()))
    white = left[:, :keep] * np.sqrt(len(centred))
    return np.hstack([white, np.clip(white**2, 0, 9) - np.clip(white**2, 0, 9).mean(axis=0)])


def _areas(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """AUC of each column of (cases, columns); a column without both classes has 0.5."""
    order = np.argsort(scores.T, axis=1, kind="stable").T
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, len(scores) + 1)[:, None] * np.ones(scores.shape[1]), axis=0)
    ahead = positive.sum(axis=0).astype(float)
    behind = len(scores) - ahead
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = ((ranks * positive).sum(axis=0) - ahead * (ahead + 1) / 2) / (ahead * behind)
    return np.where(ahead * behind > 0, areas, 0.5)
