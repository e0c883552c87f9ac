"""Benchmark: intervals over a big test set, beside a loop over scikit-learn (`make bench-statistics`).

    python -m tests.benchmarks.statistics [--images 100000] [--per-patient 3] [--resamples 2000] [--loop 20]

Both sides draw patients with replacement, with all their images; seconds are of processor time. The loop is what a
person would write: the rows of the drawn patients, then scikit-learn (for rates, a mean in NumPy) on those images. It
runs over fewer resamples, and its time is scaled up to as many. The last column shows that both resample the same
thing: the standard deviation over either side's resamples. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from components.model.statistics import auroc_of, average_precision_of, bootstrap, ratios_of

SEED = 20261123


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=100_000)
    arguments.add_argument("--per-patient", type=int, default=3)
    arguments.add_argument("--resamples", type=int, default=2000)
    arguments.add_argument("--loop", type=int, default=20, help="resamples of the loop")
    chosen = arguments.parse_args()
    random = np.random.default_rng(SEED)
    labels = (random.random(chosen.images) < 0.3).astype(float)
    scores = random.normal(size=chosen.images) + 1.5 * labels
    patients = np.arange(chosen.images) // chosen.per_patient
    positive, called = labels == 1, scores >= 1
    rates = ratios_of(np.stack([called & positive, ~called & ~positive], 1), np.stack([positive, ~positive], 1))
    figures: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], object]]] = {
        "AUROC": (auroc_of(labels, scores), lambda rows: roc_auc_score(labels[rows], scores[rows])),
        "average precision": (
            average_precision_of(labels, scores),
            lambda rows: average_precision_score(labels[rows], scores[rows]),
        ),
        "sensitivity and specificity": (
            rates,
            lambda rows: [called[rows][positive[rows]].mean(), (~called[rows])[~positive[rows]].mean()],
        ),
    }
    print(
        f"{chosen.images} images of {patients[-1] + 1} patients, {chosen.resamples} resamples, processor time; "
        f"the loop ran {chosen.loop}, scaled\n{'':<30}{'s':>8}{'loop, s':>10}{'ratio':>8}   spread of both"
    )
    for name, (ours, theirs) in figures.items():
        began = time.process_time()
        draws = bootstrap(patients, ours, resamples=chosen.resamples, seed=SEED)
        mine, began = time.process_time() - began, time.process_time()
        other = [theirs(rows) for rows in drawn(patients, chosen.loop)]
        loop = (time.process_time() - began) * chosen.resamples / chosen.loop
        spread = f"{draws[:, 0].std():.4f} {np.array(other).reshape(len(other), -1)[:, 0].std():.4f}"
        print(f"{name:<30}{mine:>8.1f}{loop:>10.1f}{loop / mine:>7.0f}x   {spread}")


def drawn(patients: np.ndarray, resamples: int) -> list[np.ndarray]:
    """The rows of as many patients as there are, drawn with replacement; one array a resample."""
    random = np.random.default_rng(SEED)
    rows = np.split(np.arange(len(patients)), np.flatnonzero(np.diff(patients)) + 1)
    return [np.concatenate([rows[n] for n in random.integers(len(rows), size=len(rows))]) for _ in range(resamples)]


if __name__ == "__main__":
    main()
