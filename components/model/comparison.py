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
from components.model.statistics import Z95, Estimate, bootstrap, percentile, require_both
from components.serving.bundle import TRAINING_IMAGES, Bundle, Prediction

TEST = "test"
RETIRED = "retired by a refresh"
ALIKE = 5  # patients on whom two bundles must disagree before their images tell how alike they are


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
        errors: standard errors over patients, of sensitivity, specificity and matched, in this order: those of the
            two rates from the upper side of their intervals, which a loss is held against.
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
    """Compare two bundles on the same images, by patient.

    The two rates carry `paired_rate`'s intervals. That of their mean follows from theirs and from how the two go
    together in patients who have images of both kinds (source: Zou and Donner 2008). `matched` draws patients.

    Args:
        challenger, champion: (n,) probabilities and the threshold.
        promise: "sensitivity" or "specificity": what the point was chosen to keep.

    Raises:
        DataError: a class is missing.
    """
    require_both(labels)
    calls = [probabilities >= threshold for probabilities, threshold in (challenger, champion)]
    right = [np.where(labels == 1, call, ~call).astype(np.int64) for call in calls]
    gains, classes = right[0] - right[1], [labels == 1, labels == 0]
    rates = [paired_rate(gains[kind], patients[kind]) for kind in classes]
    names, member = np.unique(patients, return_inverse=True)
    apart = [
        np.bincount(member[kind], weights=gains[kind] - found.value, minlength=len(names))
        for kind, found in zip(classes, rates, strict=True)
    ]
    matching = _matched_of(labels, challenger, champion, promise)
    draws = bootstrap(patients, matching, resamples=resamples, seed=seed)[:, 0]
    same = float(matching(np.ones((1, len(labels))))[0, 0])
    matched = percentile(same, draws, rates[0 if promise == "sensitivity" else 1].n)
    if matched is None:
        raise DataError(f"two bundles cannot be compared on {rates[0].n} fractures and {rates[1].n} non-fractures")
    return Difference(
        sensitivity=rates[0],
        specificity=rates[1],
        balanced=_mean(rates[0], rates[1], _correlation(apart[0], apart[1])),
        matched=matched,
        discordant=(float(np.abs(gains[classes[0]]).mean()), float(np.abs(gains[classes[1]]).mean())),
        errors=(_error(rates[0]), _error(rates[1]), float(np.nanstd(draws))),
    )


def paired_rate(gains: np.ndarray, patients: np.ndarray) -> Estimate:
    """Difference of two rates on the same images, Tango's score interval with the patients' design effect.

    The score interval asks for each difference what the images would look like were it true, and so has a width where
    the two hardly disagree: no disagreement on 60 fractures does not exclude a loss of 3%. Gains and losses count as
    many images as would tell as much were they independent. Fewer than ALIKE patients with a disagreement do not say
    how alike their images are: they are taken to be all alike, and the interval is then wider than it need be.

    In simulation it covers 93% to 98% (tests/model/test_promises.py), more where disagreements are few.

    Args:
        gains: (n,) 1 where only the first is right, -1 where only the second is, else 0; n is at least 1.
        patients: (n,) whose image it is.

    Source: Tango 1998; effective sample size: Rao and Scott 1992; in paired data: Eliasziw and Donner 1991.
    """
    n, value = len(gains), float(np.mean(gains))
    _, member = np.unique(patients, return_inverse=True)
    images = np.bincount(member).astype(np.float64)
    disagreed = len(np.unique(member[gains != 0]))
    alone = float(np.mean(np.abs(gains))) - value**2  # variance of one image
    effect = float(images @ images) / n  # of images that are all alike
    if disagreed >= ALIKE and alone > 0:
        residuals = np.bincount(member, weights=gains) - images * value
        between = float(residuals @ residuals) * len(images) / (len(images) - 1) * (n - 1) / n
        effect = max(1.0, between / (n * alone))
    won, lost, of = (float(np.sum(gains > 0)) / effect, float(np.sum(gains < 0)) / effect, n / effect)
    low, high = _score_bound(won, lost, of), -_score_bound(lost, won, of)
    return Estimate(value, min(low, value), max(high, value), n)


def _score_bound(won: float, lost: float, n: float) -> float:
    """The smallest difference whose score is not rejected at 2.5%, for (won - lost) / n observed."""
    from scipy.optimize import brentq

    def beyond(difference: float) -> float:
        b = (2 * n - won + lost) * difference - won - lost
        spare = max(b * b + 8 * n * lost * difference * (1 - difference), 0.0)
        losing = (math.sqrt(spare) - b) / (4 * n)  # the most likely share of losses, were this the difference
        variance = n * max(2 * losing + difference * (1 - difference), 0.0)
        return won - lost - n * difference - Z95 * math.sqrt(variance)

    below = (won - lost) / n - 1e-9  # where nothing was lost or won, the observed one is a root of its own
    return float(brentq(beyond, -1.0, below, xtol=1e-10)) if beyond(-1.0) > 0 > beyond(below) else -1.0


def _error(found: Estimate) -> float:
    """The standard error that a loss is held against: of the interval's upper side; above 0, as the interval is."""
    return (found.high - found.value) / Z95


def _mean(one: Estimate, other: Estimate, correlation: float) -> Estimate:
    """The mean of two estimates, its interval from theirs."""

    def apart(a: float, b: float) -> float:
        return math.sqrt(max(a * a + b * b + 2 * correlation * a * b, 0.0)) / 2

    value = (one.value + other.value) / 2
    below = apart(one.value - one.low, other.value - other.low)
    above = apart(one.high - one.value, other.high - other.value)
    return Estimate(value, value - below, value + above, one.n + other.n)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two figures, from what each patient adds to them; 0 where either has no spread."""
    spread = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / spread if spread > 0 else 0.0


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
