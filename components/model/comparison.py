"""Noun: the sealed test images, what a bundle says about them, and how two bundles differ on them.

Evaluation and gate both go through here, so what is reported and what is decided rest on the same images, the same
pixels and the artefact that will be served. Nothing else reads test labels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.retirements import read_retirements, touched
from components.dataset.store import read_pixels
from components.errors import DataError, PatientLeak
from components.model.statistics import Estimate, bootstrap, percentile, ratios_of
from components.serving.bundle import TRAINING_IMAGES, Bundle, Prediction

TEST = "test"
RETIRED = "retired by a refresh"


@dataclass(frozen=True)
class Sealed:
    """The test images that may judge a model, ordered by image_id, and the number left out by reason.

    `incomplete` counts studies of which some images were left out and others are here.
    """

    table: pd.DataFrame
    excluded: dict[str, int]
    incomplete: int

    @classmethod
    def read(cls, accepted: Path, retirements: Path) -> Sealed:
        """The test images that count: for the report, for the gate, and for nobody else.

        Raises:
            DataError: fractures or non-fractures are missing, and the message says which; or the log is damaged.
        """
        found = cls.of(accepted, read_retirements(retirements))
        positives = int((found.table["label"] == 1).sum())
        negatives = len(found.table) - positives
        if positives == 0 or negatives == 0:
            missing = " and ".join(["fractures"] * (positives == 0) + ["non-fractures"] * (negatives == 0))
            raise DataError(
                f"{accepted}: the test set has no {missing} ({positives} images with, {negatives} without a fracture; "
                f"{sum(found.excluded.values())} left out, {found.excluded[RETIRED]} of them {RETIRED}); take in more "
                "labelled patients (`intake`), or review split.shares"
            )
        return found

    @classmethod
    def of(cls, accepted: Path, retired: Collection[str]) -> Sealed:
        """Rows of role test: accepted, labelled, by readers who had not seen the AI, of patients that are not retired.

        Args:
            retired: marks of patients, see dataset/retirements.
        """
        table = pd.read_parquet(accepted, filters=[("role", "=", TEST)])
        seen = (
            table["ai_visible"].fillna(False).astype(bool) if "ai_visible" in table else pd.Series(False, table.index)
        )
        reasons = {
            "not accepted by `validate`": ~table["accepted"].astype(bool),
            "label unknown": table["label"].isna(),
            "the AI was visible to a reader": seen,
            RETIRED: touched(table, retired),
        }
        left, excluded = pd.Series(True, table.index), {}
        for reason, applies in reasons.items():
            excluded[reason] = int((left & applies).sum())
            left &= ~applies
        kept = table[left].sort_values("image_id").reset_index(drop=True)
        return cls(kept, excluded, len(set(table.loc[~left, "study_id"]) & set(kept["study_id"])))

    @property
    def labels(self) -> np.ndarray:
        return self.table["label"].to_numpy(np.float64)

    @property
    def patients(self) -> np.ndarray:
        """(n,) patient pseudonyms: the sample that intervals are over."""
        return self.table["patient_id"].astype(str).to_numpy()

    @property
    def sha256(self) -> str:
        """The identity of this test set: its images and their labels."""
        lines = (f"{i},{label:g}\n" for i, label in zip(self.table["image_id"], self.labels, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def weak(self) -> bool:
        """Whether some images have no patient id: neighbours stand in, and intervals may be too narrow."""
        return "grouping" in self.table and bool((self.table["grouping"] == "weak").any())

    def predict(
        self, bundle: Bundle, studies: Path, look: Callable[[int, np.ndarray, Prediction], None] | None = None
    ) -> np.ndarray:
        """What `bundle` says about these images, from the archive's stored pixels, exactly as it will be served.

        Args:
            look: called with (row, pixels, prediction) for each image, in the archive's order.

        Returns:
            (n,) calibrated probabilities.

        Raises:
            PatientLeak: the bundle learned from one of these patients.
            DataError: an image is not in the archive.
        """
        learned = pd.read_parquet(bundle.folder / TRAINING_IMAGES, columns=["patient_id"])["patient_id"].astype(str)
        if leaked := len(set(learned) & set(self.patients)):
            raise PatientLeak(
                f"bundle {bundle.hash[:12]} learned from {leaked} of {len(set(self.patients))} test patients; "
                "it cannot be judged on this split (was split.salt changed?)"
            )
        rows = {image_id: row for row, image_id in enumerate(self.table["image_id"])}
        found = np.full(len(rows), np.nan)
        for image_id, pixels in read_pixels(studies, rows):
            prediction = bundle.predict(pixels)
            found[rows[image_id]] = prediction.probability
            if look is not None:
                look(rows[image_id], pixels, prediction)
        if not np.isfinite(found).all():
            raise DataError(
                f"bundle {bundle.hash[:12]}: {int((~np.isfinite(found)).sum())} probabilities are no numbers"
            )
        return found


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion at one operating point, each at its own frozen threshold, on the same images.

    Attributes:
        balanced: of (sensitivity + specificity) / 2.
        matched: of the point's promised rate, the champion's threshold being moved to where its other rate equals
            the challenger's: is the challenger above the champion's ROC curve, or only elsewhere on it?
        discordant: share of fractures, and of non-fractures, on which the two bundles disagree.
        errors: standard errors over patients, of sensitivity, specificity and matched, in this order.
    """

    sensitivity: Estimate
    specificity: Estimate
    balanced: Estimate
    matched: Estimate
    discordant: tuple[float, float]
    errors: tuple[float, float, float]


def paired_difference(
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    challenger: tuple[np.ndarray, float],
    champion: tuple[np.ndarray, float],
    promise: str,
    resamples: int,
    seed: int,
) -> Difference:
    """Compare two bundles on the same images; intervals draw patients.

    Two made-up patients a class, one on which only the challenger is right and one on which only the champion is,
    keep the interval honest where the bundles hardly disagree: a plain bootstrap of no disagreement has no width, and
    would find 60 fractures enough to exclude a loss of 3% (source: Bonett and Price 2012).

    Args:
        challenger, champion: (n,) probabilities and the threshold.
        promise: "sensitivity" or "specificity": what the point was chosen to keep.

    Raises:
        DataError: a class is missing.
    """
    calls = [probabilities >= threshold for probabilities, threshold in (challenger, champion)]
    right = [np.where(labels == 1, call, ~call).astype(np.float64) for call in calls]
    classes = np.stack([labels == 1, labels == 0], axis=1).astype(np.float64)
    tops = (right[0] - right[1])[:, None] * classes
    values = ratios_of(tops, classes)(np.ones((1, len(labels))))[0]
    # A made-up patient weighs as much as a real one does in its class.
    size = [len(np.unique(patients[labels == kind])) for kind in (1, 0)]
    weight = np.diag([classes[:, column].sum() / max(size[column], 1) for column in (0, 1)])
    padded = ratios_of(np.vstack([tops, weight, -weight]), np.vstack([classes, weight, weight]))
    matching = _matched_of(labels, challenger, champion, promise)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.hstack([padded(weights), matching(weights[:, : len(labels)])])

    whose = np.concatenate([patients.astype(str), [f"made up {n}" for n in range(4)]])
    draws = bootstrap(whose, statistic, resamples=resamples, seed=seed)
    same = float(matching(np.ones((1, len(labels))))[0, 0])
    positives, negatives = int(classes[:, 0].sum()), int(classes[:, 1].sum())
    found = (
        percentile(values[0], draws[:, 0], positives),
        percentile(values[1], draws[:, 1], negatives),
        percentile(values.mean(), draws[:, :2].mean(axis=1), len(labels)),
        percentile(same, draws[:, 2], positives if promise == "sensitivity" else negatives),
    )
    if found[0] is None or found[1] is None or found[2] is None or found[3] is None:
        raise DataError(f"two bundles cannot be compared on {positives} fractures and {negatives} non-fractures")
    apart = tuple(float(np.abs(tops[:, c]).sum() / classes[:, c].sum()) for c in (0, 1))
    errors = [float(np.nanstd(draws[:, column])) for column in range(3)]
    return Difference(found[0], found[1], found[2], found[3], (apart[0], apart[1]), (errors[0], errors[1], errors[2]))


def _matched_of(
    labels: np.ndarray, challenger: tuple[np.ndarray, float], champion: tuple[np.ndarray, float], promise: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Difference of the promised rate at equal other rate, as a function of weights (b, n) -> (b, 1)."""
    sign = 1.0 if promise == "sensitivity" else -1.0  # specificity is the sensitivity of the mirrored problem
    kept, other = (labels == 1, labels == 0) if sign > 0 else (labels == 0, labels == 1)
    calls = challenger[0] >= challenger[1] if sign > 0 else challenger[0] < challenger[1]
    order = np.flatnonzero(other)[np.argsort(-sign * champion[0][other], kind="stable")]
    chosen = np.flatnonzero(kept)[np.argsort(-sign * champion[0][kept], kind="stable")]
    # How many of the promised class the champion still catches when it accepts so many false ones.
    caught = np.searchsorted(-sign * champion[0][chosen], -sign * champion[0][order], side="left")
    caught = np.append(caught, len(chosen))

    def statistic(weights: np.ndarray) -> np.ndarray:
        allowed = weights[:, other] @ calls[other].astype(np.float64)
        spent = np.cumsum(weights[:, order], axis=1)
        accepted = (spent <= allowed[:, None] + 1e-9).sum(axis=1)
        gained = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, chosen], axis=1)], axis=1)
        champions = gained[np.arange(len(weights)), caught[accepted]]
        challengers = weights[:, kept] @ calls[kept].astype(np.float64)
        total = gained[:, -1]
        return np.divide(challengers - champions, total, out=np.full(len(total), np.nan), where=total > 0)[:, None]

    return statistic


def positives_needed(margin: float, discordance: float, *, power: float = 0.8) -> int:
    """Fractures (or non-fractures) that show a paired difference above -margin when there is none (two-sided 95%).

    Args:
        discordance: share of images on which the two disagree.

    Source: paired proportions; margin .03 and discordance .08 need 698 at 80% power and 934 at 90%.
    """
    from scipy.stats import norm

    return math.ceil((norm.ppf(0.975) + norm.ppf(power)) ** 2 * discordance / margin**2)


def holm(p: Sequence[float] | np.ndarray, alpha: float) -> np.ndarray:
    """(k,) bool: rejected with a family-wise error rate of at most `alpha`; for decisions (Holm 1979)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    kept = np.flatnonzero(values[order] > alpha / np.arange(len(values), 0, -1))
    rejected = np.zeros(len(values), dtype=bool)
    rejected[order[: kept[0] if kept.size else len(values)]] = True
    return rejected
