"""Step: logits into probabilities (Platt, on role `calibrate`), and two frozen operating points (on role `tune`).

The points are frozen twice: on images, which is what is served, and on studies, whose one probability is at least that
of any of its images and so calls more at the same threshold. Role `calibrate` also fixes the prediction sets.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from components.dataset.store import atomic_path
from components.errors import DataError
from components.model import examples, network
from components.model.conformal import conformal
from components.model.statistics import high_sensitivity_threshold, high_specificity_threshold
from components.model.studies import Studies
from components.model.training import MODEL
from components.params import Calibrate
from components.serving.bundle import Attention, Calibration, Conformal, StudyThresholds, Threshold, Thresholds


class Calibrated(Calibration):
    """calibration.json: the curve and the thresholds, each with the role it was chosen on."""

    thresholds: Thresholds
    study_thresholds: StudyThresholds | None
    conformal: Conformal

    @classmethod
    def read(cls, path: Path) -> Calibrated:
        """Raises: DataError when the file is missing or is not a calibration."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: no calibration ({type(error).__name__}); run `calibrate`") from None

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """(n,) logits -> (n,) calibrated probabilities."""
        return sigmoid(self.slope * logits + self.intercept)


def calibrate(*, accepted: Path, prepared: Path, trained: Path, calibration: Path, params: Calibrate) -> None:
    """Write `calibration` (JSON).

    Raises:
        DataError: a role lacks fractures or non-fractures, or the model ranks non-fractures above fractures.
    """
    data = examples.load(accepted, prepared, roles=("tune", "calibrate"))
    fit, tune = data.role("calibrate"), data.role("tune")
    fit.require_both("calibrate", "calibrate")
    tune.require_both("tune", "calibrate")
    model = network.load(trained / MODEL)
    logits = network.logits(model, fit.pixels)
    slope, intercept = platt(fit.labels, logits)
    if slope <= 0:
        raise DataError(
            f"calibrate: slope {slope:.3f} on {len(fit.table)} images of role calibrate: fractures score below "
            "non-fractures, the model has learned nothing that carries over; change `train` or add data"
        )
    probabilities = sigmoid(slope * network.logits(model, tune.pixels) + intercept)
    studies = Studies.of(tune.table)
    found = Calibrated(
        slope=slope,
        intercept=intercept,
        source_role="calibrate",
        n=len(fit.table),
        thresholds=frozen(tune.labels, probabilities, params),
        study_thresholds=_of_studies(studies, probabilities, params) if studies.judgeable else None,
        conformal=conformal(
            fit.labels,
            sigmoid(slope * logits + intercept),
            fit.table["group_id"].to_numpy(str),
            params.conformal_alpha,
        ),
    )
    with atomic_path(calibration) as temporary:
        temporary.write_text(json.dumps(found.model_dump(mode="json"), indent=2, sort_keys=True) + "\n")


def _of_studies(studies: Studies, probabilities: np.ndarray, params: Calibrate) -> StudyThresholds:
    """Thresholds of every rule, and the learned rule itself where `tune` has studies enough; it is fitted there too."""
    rule, attention = studies.fit(probabilities), None
    if not isinstance(rule, str):
        attention = Attention(
            sharpness=rule[0],
            confidence=rule[1],
            views=rule[2],
            studies=int((studies.images > 1).sum()),
            source_role="tune",
            thresholds=frozen(studies.labels, studies.attention(probabilities, rule), params),
        )
    return StudyThresholds(
        maximum=frozen(studies.labels, studies.maximum(probabilities), params),
        noisy_or=frozen(studies.labels, studies.noisy_or(probabilities), params),
        attention=attention,
        no_attention=rule if isinstance(rule, str) else None,
    )


def frozen(labels: np.ndarray, probabilities: np.ndarray, params: Calibrate) -> Thresholds:
    """The two operating points of cases of role `tune`: (n,) labels, both kinds present, and (n,) probabilities."""
    low = high_sensitivity_threshold(labels, probabilities, params.high_sensitivity)
    high = high_specificity_threshold(labels, probabilities, params.high_specificity)
    return Thresholds(
        high_sensitivity=Threshold(threshold=low, source_role="tune"),
        high_specificity=Threshold(threshold=high, source_role="tune"),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def platt(labels: np.ndarray, logits: np.ndarray, *, steps: int = 100) -> tuple[float, float]:
    """Slope and intercept of P(fracture) = sigmoid(slope * logit + intercept), by Newton's method.

    Args:
        labels: (n,) 1 or 0, both present.
        logits: (n,) finite.

    Returns:
        Finite even when the logits separate the classes: the targets are Platt's, (n+ + 1) / (n+ + 2) and
        1 / (n- + 2), not 1 and 0.

    Source: Platt 1999; Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs".
    """
    positives = labels.sum()
    negatives = len(labels) - positives
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # In units of the logits' own spread, one start and one ridge suit every network.
    centre, spread = logits.mean(), max(float(logits.std()), 1e-12)
    design = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)
    weights = np.array([0.0, np.log((positives + 1) / (negatives + 1))])

    def loss(w: np.ndarray) -> float:
        z = design @ w
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    for _ in range(steps):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - targets)
        if np.abs(gradient).max() < 1e-9 * len(labels):
            break
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-12 * np.eye(2)
        step, scale = np.linalg.solve(hessian, gradient), 1.0
        while loss(weights - scale * step) > loss(weights) and scale > 1e-10:
            scale /= 2
        weights = weights - scale * step
    slope = weights[0] / spread
    return float(slope), float(weights[1] - slope * centre)
