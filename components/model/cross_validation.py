"""What cross-validation says: every patient of role `train`, judged by the network that has not seen that patient.

It is the estimate to choose a network, a resolution or a loss by; the sealed test patients are not looked at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.errors import DataError
from components.model import measure
from components.model.calibrate import platt, sigmoid
from components.model.folds import OUT_OF_FOLD
from components.model.statistics import (
    Estimate,
    auroc,
    high_sensitivity_threshold,
    high_specificity_threshold,
    rate,
)
from components.params import Calibrate, Evaluate
from components.radiograph.labels import boxes_of


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rates(_Part):
    """At one operating point, each fold at the threshold its own network has on `tune`."""

    sensitivity: Estimate
    specificity: Estimate


class CrossValidation(_Part):
    """Figures over all folds together; intervals are clustered by patients and near-duplicates that belong together.

    Attributes:
        weak: some images came without patient ids; neighbouring images stand in for a patient there.
        fold_auroc: of each fold by itself, in order.
        pointing: share of fractures with a box whose heat map is highest inside one; None without boxes.
    """

    folds: int
    images: int
    groups: int
    positives: int
    weak: bool
    auroc: Estimate
    average_precision: Estimate
    fold_auroc: tuple[float, ...]
    high_sensitivity: Rates
    high_specificity: Rates
    pointing: Estimate | None

    def text(self) -> str:
        """The figures in a few lines, for a person."""
        apart = ", ".join(f"{value:.3f}" for value in self.fold_auroc)
        weak = "; weak grouping, every interval may be too narrow" if self.weak else ""
        rows = {
            "AUROC": self.auroc,
            "average precision": self.average_precision,
            "high-sensitivity point, sensitivity": self.high_sensitivity.sensitivity,
            "high-sensitivity point, specificity": self.high_sensitivity.specificity,
            "high-specificity point, sensitivity": self.high_specificity.sensitivity,
            "high-specificity point, specificity": self.high_specificity.specificity,
            "heat map's peak inside a box": self.pointing,
        }
        return "\n".join(
            [
                f"{self.folds} folds, {self.images} images of {self.groups} groups, {self.positives} fractures{weak}",
                *(f"  {name:<36} {f'{value}, n = {value.n}' if value else 'no boxes'}" for name, value in rows.items()),
                f"  {'AUROC of each fold':<36} {apart}",
            ]
        )


def cross_validation(trained: Path, accepted: Path, calibrate: Calibrate, evaluate: Evaluate) -> CrossValidation:
    """Judge the out-of-fold predictions that `train` kept.

    The logits of two networks are not on one scale: each fold's become probabilities, and calls, by what its own
    network says about role `tune`.

    Raises:
        DataError: the training kept none, or is of other data than `accepted`.
    """
    try:
        said = pd.read_parquet(trained / OUT_OF_FOLD)
    except OSError:
        raise DataError(f"{trained}: no out-of-fold predictions; set train.folds and run `train`") from None
    about = pd.read_parquet(accepted, columns=["image_id", "boxes", "grouping"]).set_index("image_id")
    if missing := int((~said["image_id"].isin(about.index)).sum()):
        raise DataError(f"{accepted}: {missing} images that were trained on are not in it; run `train` again")
    parts = [judged(rows, calibrate) for _, rows in said.groupby("fold", sort=True)]
    table = pd.concat(parts, ignore_index=True)
    labels, groups = table["label"].to_numpy(float), table["group_id"].to_numpy(str)
    area, precision = measure.ranking(labels, table["probability"].to_numpy(float), groups, evaluate)
    boxes = [boxes_of(text) for text in about["boxes"].reindex(table["image_id"])]
    pointed = np.array([bool(marked) and label == 1 for marked, label in zip(boxes, labels, strict=True)])
    hits = [
        any(box.holds(x, y) for box in marked)
        for marked, x, y in zip(boxes, table["peak_x"], table["peak_y"], strict=True)
    ]
    return CrossValidation(
        folds=len(parts),
        images=len(table),
        groups=len(set(groups)),
        positives=int(labels.sum()),
        weak=bool((about["grouping"].reindex(table["image_id"]) == "weak").any()),
        auroc=area,
        average_precision=precision,
        fold_auroc=tuple(float(auroc(part["label"].to_numpy(float), part["logit"].to_numpy(float))) for part in parts),
        high_sensitivity=_rates(table, "sensitive", groups),
        high_specificity=_rates(table, "specific", groups),
        pointing=rate(np.array(hits)[pointed], groups[pointed]),
    )


def judged(rows: pd.DataFrame, params: Calibrate) -> pd.DataFrame:
    """The rows a network has not seen, with its probability and its calls, both settled on its `tune` rows.

    Args:
        rows: one fold's of out_of_fold.parquet.

    Returns:
        Those rows with probability, and sensitive and specific: the calls at both operating points.
    """
    tune, unseen = rows[rows["role"] == "tune"], rows[rows["role"] != "tune"].copy()
    labels, logits = tune["label"].to_numpy(float), tune["logit"].to_numpy(float)
    slope, intercept = platt(labels, logits)
    settled = sigmoid(slope * logits + intercept)
    unseen["probability"] = sigmoid(slope * unseen["logit"].to_numpy(float) + intercept)
    low = high_sensitivity_threshold(labels, settled, params.high_sensitivity)
    high = high_specificity_threshold(labels, settled, params.high_specificity)
    return unseen.assign(sensitive=unseen["probability"] >= low, specific=unseen["probability"] >= high)


def _rates(table: pd.DataFrame, call: str, groups: np.ndarray) -> Rates:
    called, positive = table[call].to_numpy(bool), table["label"].to_numpy(float) == 1
    return Rates(
        sensitivity=measure.known(rate(called[positive], groups[positive])),
        specificity=measure.known(rate(~called[~positive], groups[~positive])),
    )
