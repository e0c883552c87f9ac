"""An evaluation to show: misses, false alarms, an insufficient slice and a site whose name would break HTML and XML."""

from __future__ import annotations

import numpy as np
import pandas as pd

from components.model import measure
from components.model.evaluation import Evaluation, Foreign, Localisation, Perturbed, Polarity, Robustness
from components.model.slices import slices
from components.model.statistics import Estimate
from components.model.studies import Studies
from components.params import Evaluate
from components.serving.bundle import Manifest, StudyThresholds, Threshold, Thresholds
from tests.sweeps import QUICK

IMAGES = 200
PARAMS = Evaluate(resamples=200, prevalences=(0.05, 0.2), min_slice=10, robustness=QUICK, seed=0)
CUTS = Thresholds(
    high_sensitivity=Threshold(threshold=0.2, source_role="tune"),
    high_specificity=Threshold(threshold=0.6, source_role="tune"),
)
ROBUSTNESS = Robustness(
    turned_away=Estimate(0.01, 0.0, 0.05, 200),
    images=60,
    positives=30,
    auroc=Estimate(0.9, 0.8, 0.95, 60),
    perturbed=(
        Perturbed(
            name="blur",
            strength=1.5,
            auroc=Estimate(0.85, 0.7, 0.93, 60),
            drop=Estimate(0.05, -0.01, 0.1, 60),
            flips=None,
        ),
    ),
    polarity=Polarity(images=60, largest_difference=0.0),
    foreign=(
        Foreign(
            picture="page of text", probability=0.7, call="review", abstained=True, warnings=("Not a radiograph.",)
        ),
        Foreign(picture="photograph", probability=0.2, call="no_fracture", abstained=False, warnings=()),
    ),
)


def evaluation(manifest: Manifest) -> tuple[Evaluation, np.ndarray, np.ndarray, np.ndarray]:
    """The figures of a bundle, and the labels, probabilities and patients they are of."""
    random = np.random.default_rng(0)
    labels = (np.arange(IMAGES) % 3 == 0).astype(float)
    p = 1 / (1 + np.exp(-(random.normal(size=IMAGES) * 1.3 + 2 * labels - 1)))
    patients = np.array([f"p{n // 2}" for n in range(IMAGES)])
    site = np.where(np.arange(IMAGES) < 190, "north <b>", "south")
    table = pd.DataFrame({"label": labels, "patient_id": patients, "study_id": patients, "site": site})
    auroc, auprc = measure.ranking(labels, p, patients, PARAMS)
    points = measure.points(labels, p, patients, CUTS, PARAMS)
    found = Evaluation(
        bundle_hash="ab" * 32,
        accepted_sha256="cd" * 32,
        test_sha256="ef" * 32,
        evidence="patient grouping",
        images=IMAGES,
        patients=100,
        positives=int(labels.sum()),
        negatives=int(IMAGES - labels.sum()),
        excluded={"label unknown": 7},
        resamples=200,
        seed=0,
        min_slice=10,
        auroc=auroc,
        auprc=auprc,
        sensitivity=points.high_sensitivity.sensitivity,
        specificity=points.high_specificity.specificity,
        points=points,
        reliability=measure.reliability(labels, p, patients, resamples=PARAMS.resamples, seed=PARAMS.seed),
        review=measure.review(labels, ["review"] * IMAGES, patients),
        sets=measure.sets(labels, p, patients, manifest.conformal),
        studies=measure.studies(Studies.of(table), p, CUTS, StudyThresholds(maximum=CUTS, noisy_or=CUTS), 3, PARAMS),
        localisation=Localisation(hit_rate=None, chance=None, heat_map_shown=False, reasons=("it failed",)),
        benefit=measure.benefit(labels, p),
        slices=slices(table, p, CUTS, PARAMS),
        robustness=ROBUSTNESS,
    )
    return found, labels, p, patients
