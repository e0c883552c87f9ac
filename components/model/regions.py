"""Noun: may the region output of a release contradict what a file states? Only one that is shown to be right.

Two checks on images the network was not fitted to (roles tune and calibrate), before the bundle is hashed: how often
the likeliest region is the one stated, and how often where it is sure, for that is when a case is held back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from components.model.examples import Examples
from components.model.statistics import Estimate, rate
from components.params import RegionChecks
from components.serving.bundle import SURE, Outputs, Regions


def check(names: tuple[str, ...], data: Examples, outputs: Sequence[Outputs], params: RegionChecks) -> Regions:
    """Judge the region output of a release on images the network was not fitted to.

    Args:
        names: of the regions, in the order of the output.
        data: examples of tune and calibrate, with what the released graph says of each.
    """
    told = np.stack([output.region for output in outputs if output.region is not None])
    stated = data.table["body_region"].to_numpy(dtype=object)
    accuracy, sure = accuracy_of(names, told, stated, data.table["patient_id"].astype(str).to_numpy())
    found = Regions(names=names, accuracy=accuracy, sure=sure, heeded=False, reasons=())
    reasons = tuple(_reasons(found, params))
    return found.model_copy(update={"heeded": not reasons, "reasons": reasons})


def _reasons(found: Regions, params: RegionChecks) -> Iterator[str]:
    if found.accuracy is None or found.accuracy.n < params.min_images:
        images = found.accuracy.n if found.accuracy else 0
        yield f"{images} images have a region that it knows, {params.min_images} are needed to judge it"
    elif found.accuracy.low < params.min_accuracy:
        yield f"it names too few regions right ({found.accuracy}, {params.min_accuracy:g} is asked of the lower bound)"
    if found.sure is None or found.sure.low < params.min_sure:
        said = f"{found.sure}" if found.sure else "on no image"
        yield f"where it is sure it is not shown to be right ({said}, {params.min_sure:g} is asked of the lower bound)"


def accuracy_of(
    names: tuple[str, ...], told: np.ndarray, stated: np.ndarray, patients: np.ndarray
) -> tuple[Estimate | None, Estimate | None]:
    """How often the likeliest region is the one stated: of images with a region it knows; and where it is sure."""
    judged = np.isin(stated.astype(str), names)
    right, certain = np.array(names)[told.argmax(axis=1)] == stated.astype(str), told.max(axis=1) >= SURE
    return rate(right[judged], patients[judged]), rate(right[judged & certain], patients[judged & certain])


def besides(told: Regions | None, *, counts: bool) -> str:
    """For a model card: what a bundle says beside fracture or not, each sentence behind a space; empty: nothing."""
    found = ""
    if told:
        held = "a file's region that it contradicts leaves the case to a person"
        said = held if told.heeded else f"a contradiction holds no case back ({'; '.join(told.reasons)})"
        found += f" It also names the body region ({', '.join(told.names)}): {said}."
    if counts:
        found += " It also expects a number of fractures, which is reported and decides nothing."
    return found
