"""Noun: who the model serves worse: the test set sliced by what could matter, each slice against the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from components.model.evaluation import Slice
from components.model.measure import known
from components.model.statistics import (
    Estimate,
    auroc_of,
    benjamini_hochberg,
    bootstrap,
    percentile,
    rate,
    ratios_of,
)
from components.params import Evaluate
from components.serving.bundle import Thresholds

UNKNOWN = "unknown"
FDR = 0.05
AGE_BANDS = {"0-15": (0, 15), "16-39": (16, 39), "40-64": (40, 64), "65 and over": (65, 200)}
HOURS = {"night, 0-7": (0, 7), "day, 8-15": (8, 15), "evening, 16-23": (16, 23)}  # missed fractures peak late


def slices(
    table: pd.DataFrame, probabilities: np.ndarray, thresholds: Thresholds, params: Evaluate
) -> tuple[Slice, ...]:
    """Every value of every slice column, in order; too small ones are named and not judged.

    Args:
        table: (n rows) the sealed test images.
        probabilities: (n,).
    """
    labels = table["label"].to_numpy(np.float64)
    patients = table["patient_id"].astype(str).to_numpy()
    calls = (
        probabilities >= thresholds.high_sensitivity.threshold,
        probabilities < thresholds.high_specificity.threshold,
    )
    found = [
        _slice(column, value, member, labels, probabilities, patients, calls, params)
        for column, value, member in members(table)
    ]
    tests = [(n, p) for n, s in enumerate(found) for p in (s.p_sensitivity, s.p_specificity) if p is not None]
    worse = benjamini_hochberg([p for _, p in tests], FDR)
    flagged = {n for (n, _), hit in zip(tests, worse, strict=True) if hit}
    return tuple(s.model_copy(update={"flagged": n in flagged}) for n, s in enumerate(found))


def members(table: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """(column, value, (n,) bool) for each slice; a column with one value says nothing and is left out."""
    readers: dict[str, Callable[[pd.Series], pd.Series]] = {
        "site": _named, "device": _named, "view": _named, "body_region": _named, "sex": _named,
        "age_years": lambda c: _banded(c, AGE_BANDS),
        "hour": lambda c: _banded(c, HOURS),
        "hardware": lambda c: _named(c.map({True: "yes", False: "no"})),
    }  # fmt: skip
    for column, read in readers.items():
        if column not in table:
            continue
        values = read(table[column])
        names = sorted(values.unique())
        if len(names) > 1:
            for name in names:
                yield column, name, (values == name).to_numpy()


def _slice(
    column: str, value: str, member: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray,
    calls: tuple[np.ndarray, np.ndarray], params: Evaluate,
) -> Slice:  # fmt: skip
    positive, negative = member & (labels == 1), member & (labels == 0)
    counts = {
        "column": column, "value": value, "images": int(member.sum()), "patients": len(set(patients[member])),
        "positives": int(positive.sum()), "negatives": int(negative.sum()),
    }  # fmt: skip
    if min(positive.sum(), negative.sum()) < params.min_slice:
        return Slice(**counts, verdict="insufficient")
    area = auroc_of(labels[member], probabilities[member])
    draws = bootstrap(patients[member], area, resamples=params.resamples, seed=params.seed)
    value_of = float(area(np.ones((1, int(member.sum()))))[0, 0])
    sensitivity = _against_rest(positive, labels == 1, calls[0], patients, params)
    specificity = _against_rest(negative, labels == 0, calls[1], patients, params)
    return Slice(
        **counts,
        verdict="measured",
        auroc=percentile(value_of, draws[:, 0], int(member.sum())),
        sensitivity=known(rate(calls[0][positive], patients[positive])),
        specificity=known(rate(calls[1][negative], patients[negative])),
        difference_sensitivity=sensitivity[0],
        difference_specificity=specificity[0],
        p_sensitivity=sensitivity[1],
        p_specificity=specificity[1],
    )


def _against_rest(
    member: np.ndarray, kind: np.ndarray, right: np.ndarray, patients: np.ndarray, params: Evaluate
) -> tuple[Estimate | None, float | None]:
    """How much more often the calls are right inside the slice than in the rest of its class, and the p of that.

    The p is Student's, with the patients of the smaller side: the normal law's tails are too thin for a dozen patients,
    and flagged some slice in 8% of simulated test sets without any difference (tests/benchmarks/promises.py).
    """
    rest = kind & ~member
    if rest.sum() < params.min_slice:
        return None, None
    sides = np.stack([member, rest], axis=1)[kind]
    # An image right and an image wrong on either side: a slice without error is not proof of none.
    extra = np.vstack([np.eye(2), np.eye(2)])
    tops = np.vstack([sides * right[kind][:, None], np.eye(2), np.zeros((2, 2))])
    rates = ratios_of(tops, np.vstack([sides, extra]))
    whose = np.concatenate([patients[kind], [f"made up {n}" for n in range(4)]])
    draws = bootstrap(whose, rates, resamples=params.resamples, seed=params.seed)
    gaps = draws[:, 0] - draws[:, 1]
    value = float(right[member].mean() - right[rest].mean())
    from scipy.stats import t

    spread = float(np.nanstd(gaps))
    freedom = min(len(np.unique(patients[side])) for side in (member, rest)) - 1
    p = float(2 * t.sf(abs(value) / spread, freedom)) if spread > 0 and freedom > 0 else 1.0
    return percentile(value, gaps, int(member.sum())), p


def _named(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), UNKNOWN).astype(str)


def _banded(column: pd.Series, bands: dict[str, tuple[int, int]]) -> pd.Series:
    found = pd.Series(UNKNOWN, column.index, dtype=object)
    for name, (low, high) in bands.items():
        found[column.between(low, high).fillna(False).astype(bool)] = name
    return found
