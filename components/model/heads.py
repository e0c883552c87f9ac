"""Noun: how good a bundle is, on the sealed test images, at what it says beside fracture or not: region and number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from components.model.evaluation import CountFigures, Heads, RegionFigures, RegionRecall
from components.model.examples import counted
from components.model.measure import known
from components.model.regions import accuracy_of
from components.model.statistics import Estimate, bootstrap, percentile, rate, ratios_of
from components.params import Evaluate
from components.serving.bundle import SURE

Besides = tuple[Mapping[str, float], float | None]


def figures(said: Sequence[Besides], table: pd.DataFrame, patients: np.ndarray, params: Evaluate) -> Heads | None:
    """What it says of the sealed test images beside the labels; None of a bundle that says neither.

    Args:
        said: of each image the probability of each region, and the expected number of fractures.
        table: label, boxes and body_region of the same images.
    """
    names, expected = tuple(said[0][0]), [number for _, number in said if number is not None]
    told, stated = np.array([list(each.values()) for each, _ in said]), table["body_region"].to_numpy(dtype=object)
    region = _regions(names, told, stated, patients) if names else None
    counts = _counts(np.array(expected), counted(table), patients, params) if expected else None
    return Heads(regions=region, counts=counts) if region or counts else None


def _regions(
    names: tuple[str, ...], told: np.ndarray, stated: np.ndarray, patients: np.ndarray
) -> RegionFigures | None:
    accuracy, sure = accuracy_of(names, told, stated, patients)
    if accuracy is None:
        return None
    judged, likeliest = np.isin(stated.astype(str), names), np.array(names)[told.argmax(axis=1)]
    wrong = (likeliest != stated.astype(str)) & (told.max(axis=1) >= SURE)
    each = []
    for name in names:
        mine = stated == name
        each.append(RegionRecall(name=name, recall=rate(likeliest[mine] == name, patients[mine])))
    return RegionFigures(
        accuracy=accuracy,
        sure=sure,
        contradicted=known(rate(wrong[judged], patients[judged])),
        untold=int((~judged).sum()),
        each=tuple(each),
    )


def _counts(expected: np.ndarray, fractures: np.ndarray, patients: np.ndarray, params: Evaluate) -> CountFigures | None:
    certain = np.isfinite(fractures)
    if not certain.any():
        return None
    error = np.abs(expected - fractures)
    return CountFigures(
        error=known(_mean(error[certain], patients[certain], params)),
        on_fractures=_mean(error[fractures > 0], patients[fractures > 0], params),
        of_none=float(np.mean(fractures[certain])),
        uncounted=int((~certain).sum()),
    )


def _mean(values: np.ndarray, patients: np.ndarray, params: Evaluate) -> Estimate | None:
    """The mean with its interval over patients; None over no image."""
    if not values.size:
        return None
    mean = ratios_of(values[:, None], np.ones((len(values), 1)))
    draws = bootstrap(patients, mean, resamples=params.resamples, seed=params.seed)
    return percentile(float(values.mean()), draws[:, 0], len(values))
