"""Folds: who is held out when, so that nobody is judged by a network that has seen the same person.

Unlike the roles, folds are not for life: they are dealt anew for the data at hand, and as even as they can be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.errors import DataError
from components.model import network
from components.model.examples import Examples
from components.model.explain import peak

OUT_OF_FOLD = "out_of_fold.parquet"


def deal(groups: Sequence[str], labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Put every group into one of `folds` folds, with fractures and images spread evenly.

    The group with the most fractures is placed first, then the next, each where fewest fractures are so far, and
    among equals where fewest images are; ties are broken by a hash, so that order of arrival decides nothing.

    Args:
        groups: an entry an image: patients, or patients and near-duplicates, that belong together.
        labels: (n,) 1 fracture, 0 no fracture.
        folds: at least 2.

    Returns:
        (n,) int64 in 0..folds - 1; images of one group share a fold.

    Raises:
        DataError: a fold would be without a fracture or without a non-fracture.
    """
    names, members = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    positives = np.bincount(members, weights=labels == 1, minlength=len(names)).astype(int)
    sizes = np.bincount(members, minlength=len(names))
    lots = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names.tolist()]
    seat = np.zeros(len(names), np.int64)
    fractures, images = [0] * folds, [0] * folds
    for group in sorted(range(len(names)), key=lambda g: (-positives[g], -sizes[g], lots[g])):
        # A group without fractures evens out the images, whatever the fractures are.
        by = (lambda f: (fractures[f], images[f])) if positives[group] else (lambda f: (images[f], fractures[f]))
        fold = min(range(folds), key=by)
        seat[group] = fold
        fractures[fold] += int(positives[group])
        images[fold] += int(sizes[group])
    poor = sum(not 0 < fractures[fold] < images[fold] for fold in range(folds))
    if poor:
        raise DataError(
            f"train: {poor} of {folds} folds would lack images with or without a fracture: {int(positives.sum())} "
            f"fractures among {len(labels)} images of {len(names)} groups; lower train.folds or take in more patients"
        )
    return seat[members]


def turns(examples: Examples, folds: int, seed: int) -> Iterator[tuple[int, Examples, Examples | None]]:
    """Network by network: the fold it must not see, from 1; what it is fitted to; and the examples of that fold.

    With `folds` 0 one network is fitted to all, and nothing is held out: (0, examples, None).

    Raises:
        DataError: as `deal`.
    """
    if not folds:
        yield 0, examples, None
        return
    seat = deal(examples.table["group_id"].tolist(), examples.labels, folds, seed)
    for fold in range(folds):
        yield fold + 1, examples.where(seat != fold), examples.where(seat == fold)


def held_out(model: Any, unseen: Examples, tune: Examples, fold: int) -> pd.DataFrame:
    """What the network of a fold says about the fold it has not seen, and about `tune`, on which it can be calibrated.

    Returns:
        image_id, patient_id, group_id, label, role, fold, logit; and for fractures of the fold peak_x, peak_y: where
        in the stored image the heat map is highest, pixels from its upper left corner. A flat map has
        no peak.
    """
    parts = []
    for part in (unseen, tune):
        table = part.table[["image_id", "patient_id", "group_id", "label", "role"]].copy()
        table["fold"] = fold
        table["logit"] = network.logits(model, part.pixels)
        table[["peak_x", "peak_y"]] = np.nan
        parts.append(table)
    seen = parts[0]
    fractures = np.flatnonzero(unseen.labels == 1)
    maps = network.evidence(model, unseen.pixels[fractures])
    for row, evidence in zip(fractures.tolist(), maps, strict=True):
        rows, columns = (int(unseen.table[side].iloc[row]) for side in ("rows", "columns"))
        if (highest := peak(unseen.transform.place(evidence, rows, columns))) is not None:
            seen.loc[row, ["peak_x", "peak_y"]] = highest
    return pd.concat(parts, ignore_index=True)
