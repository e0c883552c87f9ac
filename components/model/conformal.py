"""Noun: sets of labels that hold the true one as often as they promise, for fractures and for non-fractures apart.

Role `calibrate` says how low the probability of a fracture may be, and how high that of a non-fracture, before the
label is left out of an image's set. A set of both labels, or of none, is not settled: a person looks there first.

The promise is the sets' alone: it needs no calibrated probability, only that patients of `calibrate` and new ones are
drawn alike. It holds for the share of a patient's images in the mean over patients and over draws of `calibrate`, not
for every site, view or age. That Platt's line is fitted on the same role takes nothing away: the line rises, so the
images are in the order of their logits, and the network that gave those has not seen the role (its epoch was chosen
on `tune`).

Source: Vovk, Gammerman and Shafer 2005, section 4.5 (a promise a class); Lee, Barber and Willett 2023,
"Distribution-free inference with hierarchical data" (several images a patient).
"""

from __future__ import annotations

import numpy as np

from components.serving.bundle import Conformal


def conformal(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, alpha: float) -> Conformal:
    """The cuts that role `calibrate` gives.

    Args:
        labels: (n,) 1 fracture or 0 none.
        groups: (n,) patients and near-duplicates that belong together.
        alpha: share of a class whose sets may miss its label.

    Returns:
        With too few patients of a class (fewer than 1 / alpha - 1) its label is in every set: nothing less is known.
    """
    fracture = labels == 1
    lowest = _reach(-probabilities[fracture], groups[fracture], alpha)
    highest = _reach(probabilities[~fracture], groups[~fracture], alpha)
    return Conformal(
        alpha=alpha,
        fracture_from=0.0 if lowest is None else -lowest,
        no_fracture_to=1.0 if highest is None else highest,
        fracture_patients=len(np.unique(groups[fracture])),
        no_fracture_patients=len(np.unique(groups[~fracture])),
        source_role="calibrate",
    )


def _reach(strangeness: np.ndarray, groups: np.ndarray, alpha: float) -> float | None:
    """How strange an image may be and still belong: the 1 - alpha quantile over patients, None when it is infinite.

    Every patient weighs the same, as does the next one, whose images may be of any strangeness.
    """
    _, member = np.unique(groups, return_inverse=True)
    images = np.bincount(member)
    order = np.argsort(strangeness, kind="stable")
    reached = np.cumsum(1 / images[member[order]]) / (len(images) + 1)
    enough = np.flatnonzero(reached >= 1 - alpha - 1e-12)
    return float(strangeness[order[enough[0]]]) if enough.size else None
