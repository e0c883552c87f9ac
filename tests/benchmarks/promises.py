"""Benchmark: what intervals, flags and sets promise, against simulated patients whose truth is known.

    python -m tests.benchmarks.promises [--runs 2000] [--seed 20261123]

Every patient has several images that resemble each other. The suite holds the same simulations with fewer runs
(tests/model/test_promises.py); this prints them with more. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import itertools
import time
from statistics import NormalDist

import numpy as np
import pandas as pd

from components.model.comparison import paired_difference, paired_rate
from components.model.conformal import conformal
from components.model.reliability import calibration_error, calibration_error_null
from components.model.slices import slices
from components.model.statistics import auroc, auroc_of, bootstrap, percentile, rate
from components.params import Evaluate
from components.serving.bundle import Threshold, Thresholds
from tests.sweeps import QUICK

AUROC = 0.7894  # of `clustered`
RESAMPLES = 500
CUTS = Thresholds(
    high_sensitivity=Threshold(threshold=0.3, source_role="tune"),
    high_specificity=Threshold(threshold=0.7, source_role="tune"),
)
SLICING = Evaluate(resamples=200, prevalences=(0.05,), min_slice=30, robustness=QUICK, seed=0)


def clustered(random: np.random.Generator, patients: int, images: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and owners of `images` strongly correlated images a patient, all with the patient's label."""
    label = (random.random(patients) < 0.4).astype(float)
    shared = random.normal(size=patients) + 1.264 * label
    scores = 0.9 * np.repeat(shared, images) + np.sqrt(1 - 0.81) * random.normal(size=patients * images)
    return np.repeat(label, images), scores, np.repeat(np.arange(patients), images)


def auroc_coverage(runs: int, seed: int, *, images_as_patients: bool = False) -> float:
    """Share of intervals that hold the true AUROC: 80 patients of three images."""
    random, covered = np.random.default_rng(seed), 0
    for run in range(runs):
        labels, scores, patients = clustered(random, 80)
        whose = np.arange(len(labels)) if images_as_patients else patients
        draws = bootstrap(whose, auroc_of(labels, scores), resamples=RESAMPLES, seed=run)
        found = percentile(auroc(labels, scores), draws[:, 0], len(labels))
        covered += found is not None and found.low <= AUROC <= found.high
    return covered / runs


def sensitivity_coverage(runs: int, seed: int) -> float:
    """Share of intervals that hold a sensitivity of .9: 60 patients of three images."""
    random, covered = np.random.default_rng(seed), 0
    for _ in range(runs):
        hits = random.random((60, 3)) < random.beta(0.9 * 7 / 3, 0.1 * 7 / 3, 60)[:, None]
        found = rate(hits.ravel(), np.repeat(np.arange(60), 3))
        covered += found is not None and found.low <= 0.9 <= found.high
    return covered / runs


def difference_coverage(runs: int, seed: int) -> tuple[float, float]:
    """Share of intervals that hold the true paired difference of (sensitivity, specificity): 200 patients of three.

    Two bundles agree on most images: they see the same patient, the same image, and a fifth of the variance apart.
    """
    normal, random, covered = NormalDist(), np.random.default_rng(seed), np.zeros(2)
    champion, challenger = (1.2, -1.2), (1.4, -1.1)  # means with and without a fracture; a call is above 0
    true = (
        normal.cdf(challenger[0]) - normal.cdf(champion[0]),
        normal.cdf(-challenger[1]) - normal.cdf(-champion[1]),
    )
    for run in range(runs):
        label = np.repeat((random.random(200) < 0.5).astype(float), 3)
        common = np.sqrt(0.5) * np.repeat(random.normal(size=200), 3) + np.sqrt(0.3) * random.normal(size=600)
        scores = [
            np.where(label == 1, *means) + common + np.sqrt(0.2) * random.normal(size=600)
            for means in (challenger, champion)
        ]
        found = paired_difference(
            label, np.repeat(np.arange(200), 3), challenger=(scores[0], 0.0), champion=(scores[1], 0.0),
            promise="sensitivity", resamples=RESAMPLES, seed=run,
        )  # fmt: skip
        for column, interval in enumerate((found.sensitivity, found.specificity)):
            covered[column] += interval.low <= true[column] <= interval.high
    return float(covered[0] / runs), float(covered[1] / runs)


GRID = tuple(
    itertools.product((30, 60, 150, 400), (1, 3, 9), (0.0, 0.6, 0.9), (0.7, 0.9, 0.98), (0.02, 0.2), (0.0, -0.03))
)


def rate_difference(
    runs: int, seed: int, patients: int, images: int, alike: float, rate_: float, apart: float, true: float
) -> tuple[float, float, float]:
    """The interval of one paired difference, where two bundles see the same patients of one to `images` images.

    Args:
        alike: correlation of what makes two images of a patient hard.
        rate_: the champion's rate; the challenger's is `rate_` + `true`.
        apart: share of what makes an image hard that the bundles do not have in common.

    Returns:
        Share of intervals that hold `true`, share that lie wholly above it (a challenger that is worse by the margin
        and passes), and the mean number of patients on whom the bundles disagree.
    """
    random, normal = np.random.default_rng(seed), NormalDist()
    cuts, covered, above, disagreed = (normal.inv_cdf(rate_), normal.inv_cdf(rate_ + true)), 0, 0, 0
    for _ in range(runs):
        whose = np.repeat(np.arange(patients), random.integers(1, images + 1, patients))
        common, *own = (
            np.sqrt(alike) * random.normal(size=patients)[whose] + np.sqrt(1 - alike) * random.normal(size=len(whose))
            for _ in range(3)
        )
        champion, challenger = (
            np.sqrt(1 - apart) * common + np.sqrt(apart) * mine < cut for mine, cut in zip(own, cuts, strict=True)
        )
        gains = challenger.astype(int) - champion
        found = paired_rate(gains, whose)
        covered += found.low <= true <= found.high
        above += found.low > true
        disagreed += len(np.unique(whose[gains != 0]))
    return covered / runs, above / runs, disagreed / runs


def false_flags(runs: int, seed: int) -> tuple[float, float, float]:
    """A model that serves everyone alike, 150 patients of three images in four sites and two sexes.

    Returns:
        Share of evaluations with any slice flagged, share of single tests with p < .05, and share of intervals that
        hold the true difference, 0.
    """
    random, flagged, small, tests, covered = np.random.default_rng(seed), 0, 0, 0, 0
    for _ in range(runs):
        labels, scores, patients = clustered(random, 150)
        about = {"site": random.choice(list("abcd"), 150), "sex": random.choice(["F", "M"], 150)}
        table = pd.DataFrame({"label": labels, "patient_id": patients} | {k: np.repeat(v, 3) for k, v in about.items()})
        found = slices(table, 1 / (1 + np.exp(-scores)), CUTS, SLICING)
        flagged += any(s.flagged for s in found)
        for s in found:
            for p, gap in (
                (s.p_sensitivity, s.difference_sensitivity),
                (s.p_specificity, s.difference_specificity),
            ):
                if p is not None and gap is not None:
                    tests, small, covered = tests + 1, small + (p < 0.05), covered + (gap.low <= 0 <= gap.high)
    return flagged / runs, small / tests, covered / tests


def calibration_alarms(runs: int, seed: int) -> float:
    """Share of calibrated models whose calibration error lies above the null's 95th percentile: 300 images."""
    random, beyond = np.random.default_rng(seed), 0
    for run in range(runs):
        p = random.beta(0.5, 0.5, 300)
        beyond += calibration_error((random.random(300) < p).astype(float), p) > calibration_error_null(p, seed=run)[1]
    return float(beyond / runs)


def set_coverage(runs: int, seed: int, alpha: float) -> tuple[float, float]:
    """(Fractures, others) whose set holds their label, in the mean over draws of 30 and 60 patients to calibrate on."""
    random, covered = np.random.default_rng(seed), np.zeros(2)
    for _ in range(runs):
        (p1, who1), (p0, who0) = _uneven(random, 30, 1), _uneven(random, 60, 0)
        labels = np.r_[np.ones(len(p1)), np.zeros(len(p0))]
        cuts = conformal(labels, np.r_[p1, p0], np.r_[who1, 100 + who0], alpha)
        for column, name in ((0, "fracture"), (1, "no_fracture")):
            p, who = _uneven(random, 60, 1 - column)
            inside = np.array([name in cuts.labels(float(v)) for v in p])
            covered[column] += (np.bincount(who, weights=inside) / np.bincount(who)).mean()
    return float(covered[0] / runs), float(covered[1] / runs)


def _uneven(random: np.random.Generator, patients: int, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and owners of one to nine correlated images a patient; who has many is sicker."""
    images = random.integers(1, 10, patients)
    own = random.normal(size=patients) + 1.5 * label + 0.1 * images
    logits = np.repeat(own, images) + 0.4 * random.normal(size=images.sum())
    return 1 / (1 + np.exp(-logits)), np.repeat(np.arange(patients), images)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=20261123)
    chosen = arguments.parse_args()
    runs, seed, began = chosen.runs, chosen.seed, time.process_time()
    differences, flags, sets = difference_coverage(runs, seed), false_flags(runs, seed), set_coverage(runs, seed, 0.1)
    rows = [
        ("AUROC, interval over patients", "95%", auroc_coverage(runs, seed)),
        ("AUROC, were images patients", "not kept", auroc_coverage(runs, seed, images_as_patients=True)),
        ("sensitivity", "95%", sensitivity_coverage(runs, seed)),
        ("paired difference of sensitivity", "95%", differences[0]),
        ("paired difference of specificity", "95%", differences[1]),
        ("difference of a slice to the rest", "95%", flags[2]),
        ("one slice's test, p < .05, no difference", "5%", flags[1]),
        ("evaluations with any slice flagged, no difference", "at most 5%", flags[0]),
        ("calibrated models beyond the null's 95th percentile", "5%", calibration_alarms(runs, seed)),
        ("prediction sets that hold a fracture", "at least 90%", sets[0]),
        ("prediction sets that hold a non-fracture", "at least 90%", sets[1]),
    ]
    print(f"{runs} runs each, seed {seed}, {time.process_time() - began:.0f} s of processor time")
    for name, promised, found in rows:
        print(f"{name:<54}{promised:<14}{100 * found:.1f}%")
    cells = np.array([rate_difference(max(1, runs // 4), seed + n, *cell) for n, cell in enumerate(GRID)])
    print(f"paired difference of a rate, {len(GRID)} kinds of data, {max(1, runs // 4)} runs each:")
    print("  patients disagreed on   kinds   covered: least, median, most   within 93-97%   above, at most")
    for name, low, high in (("below 5", 0, 5), ("5 to 10", 5, 10), ("10 to 20", 10, 20), ("20 and more", 20, np.inf)):
        covered, above, _ = cells[(cells[:, 2] >= low) & (cells[:, 2] < high)].T
        kept = np.mean((covered >= 0.93) & (covered <= 0.97))
        figures = "  ".join(f"{100 * value:.1f}%" for value in (covered.min(), np.median(covered), covered.max()))
        print(f"  {name:<24}{len(covered):<8}{figures:<31}{100 * kept:<16.0f}{100 * above.max():.1f}%")


if __name__ == "__main__":
    main()
