"""Step: judge the release bundle, the very artefact that will be served, on the sealed test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from components.dataset.rows import rows_sha256
from components.dataset.store import atomic_folder
from components.model import chai, heads, measure, mistakes
from components.model.comparison import Sealed
from components.model.evaluation import FILE, PREDICTIONS, REPORT, WEAK, Evaluation, Localisation
from components.model.explain import covered, pointing_game
from components.model.gallery import Gallery
from components.model.measured import quality_of
from components.model.report import render
from components.model.robustness import Sweep
from components.model.slices import slices
from components.model.statistics import rate
from components.model.studies import Studies
from components.params import Evaluate
from components.radiograph.image import stated_window
from components.radiograph.labels import Box, boxes_of
from components.serving.bundle import Bundle, Call, Prediction

SHOWN = (
    "image_id",
    "patient_id",
    "study_id",
    "label",
    "site",
    "device",
    "view",
    "body_region",
    "sex",
    "age_years",
    "hour",
    "hardware",
)


@dataclass
class Watch:
    """Looks at each image once, while its pixels are in memory: where the map points, the gallery, worse copies."""

    boxes: list[tuple[Box, ...]]
    windows: list[tuple[float, float] | None]
    gallery: Gallery
    sweep: Sweep
    embeddings: dict[int, np.ndarray] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    familiar: dict[int, bool] = field(default_factory=dict)
    besides: dict[int, tuple[Mapping[str, float], float | None]] = field(default_factory=dict)
    hits: dict[int, bool] = field(default_factory=dict)
    chances: dict[int, float] = field(default_factory=dict)

    def __call__(self, row: int, pixels: np.ndarray, prediction: Prediction) -> None:
        if self.boxes[row]:
            self.hits[row] = pointing_game(prediction.heat_map, self.boxes[row])
            self.chances[row] = covered(pixels.shape, self.boxes[row])
        self.gallery.offer(row, pixels, prediction, self.boxes[row], self.windows[row])
        self.sweep.offer(row, pixels)
        self.embeddings[row] = prediction.embedding
        self.calls[row] = prediction.call
        self.familiar[row] = prediction.familiar
        self.besides[row] = prediction.regions, prediction.fractures


def evaluate(
    *,
    accepted: Path,
    retirements: Path,
    studies: Path,
    features: Path,
    bundle: Path,
    evaluation: Path,
    params: Evaluate,
) -> None:
    """Write the folder `evaluation`: evaluation.json, predictions.parquet, errors.csv, report.html, model_card.xml.

    Raises:
        DataError: the test set has no fractures, or nothing but fractures; or images have no quality
            features, or the log of retirements is damaged.
        PatientLeak: the bundle learned from a test patient.
        BundleCorrupt: the bundle does not match its manifest.
    """
    sealed, model = Sealed.read(accepted, retirements), Bundle.open(bundle)
    labels, patients, thresholds = sealed.labels, sealed.patients, model.manifest.thresholds
    looks = sealed.table[["window_center", "window_width"]].to_numpy(float)
    windows = [stated_window(center, width) for center, width in looks]
    sweep = Sweep.of(model, labels, sealed.table["bits_stored"].to_numpy(), params)
    watch = Watch([boxes_of(text) for text in sealed.table["boxes"]], windows, Gallery(labels), sweep)
    probabilities = sealed.predict(model, studies, watch)
    calls = [watch.calls[row] for row in range(len(labels))]
    embeddings = np.stack([watch.embeddings[row] for row in range(len(labels))])
    familiar = np.array([watch.familiar[row] for row in range(len(labels))], dtype=bool)
    auroc, auprc = measure.ranking(labels, probabilities, patients, params)
    points = measure.points(labels, probabilities, patients, thresholds, params)
    frozen, cuts = model.manifest.study_thresholds, model.manifest.conformal
    pointed = np.array([row for row in sorted(watch.hits) if labels[row] == 1], dtype=int)
    found = Evaluation(
        bundle_hash=model.hash,
        accepted_sha256=rows_sha256(accepted),
        test_sha256=sealed.sha256,
        evidence=WEAK if sealed.weak else "patient grouping",
        images=len(labels),
        patients=len(set(patients)),
        positives=int(labels.sum()),
        negatives=int((1 - labels).sum()),
        excluded=sealed.excluded,
        resamples=params.resamples,
        seed=params.seed,
        min_slice=params.min_slice,
        auroc=auroc,
        auprc=auprc,
        sensitivity=points.high_sensitivity.sensitivity,
        specificity=points.high_specificity.specificity,
        points=points,
        reliability=measure.reliability(labels, probabilities, patients, resamples=params.resamples, seed=params.seed),
        review=measure.review(labels, calls, patients),
        unsupported=measure.unsupported(sealed.table, model.manifest.supported, patients),
        sets=measure.sets(labels, probabilities, patients, cuts),
        studies=measure.studies(Studies.of(sealed.table), probabilities, thresholds, frozen, sealed.incomplete, params),
        localisation=Localisation(
            hit_rate=rate(np.array([watch.hits[row] for row in pointed], dtype=bool), patients[pointed]),
            chance=float(np.mean([watch.chances[row] for row in pointed])) if pointed.size else None,
            heat_map_shown=model.manifest.heat_map.shown,
            reasons=model.manifest.heat_map.reasons,
        ),
        benefit=measure.benefit(labels, probabilities),
        slices=slices(sealed.table, probabilities, thresholds, params),
        robustness=sweep.found(labels, probabilities, patients, familiar),
        heads=heads.figures([watch.besides[row] for row in range(len(labels))], sealed.table, patients, params),
    )
    errors = mistakes.mistakes(
        sealed.table,
        probabilities,
        embeddings,
        quality_of(sealed.table, features),
        mistakes.Neighbours.open(bundle, accepted),
        thresholds,
    )
    table = sealed.table[[name for name in SHOWN if name in sealed.table]].assign(probability=probabilities, call=calls)
    with atomic_folder(evaluation) as draft:
        (draft / FILE).write_bytes(found.encode())
        table.to_parquet(draft / PREDICTIONS, index=False)
        (draft / mistakes.FILE).write_text(mistakes.as_csv(errors, sealed.table), encoding="utf-8")
        page = render(found, labels, probabilities, patients, watch.gallery, model.manifest, errors)
        (draft / REPORT).write_text(page, encoding="utf-8")
        (draft / chai.FILE).write_bytes(chai.render(found, model.manifest))
