"""Benchmark: which grey pictures that are no radiographs a site finds strange, and how many of its own.

A site learns what its images look like from its first images (the half `tune`), and is then shown others of its own
(the half `report`), photographs and pages (`tests/benchmarks/planted.py`), and parts of the pictures in `--pictures`.
What is measured was chosen with scikit-learn's two photographs and the half `tune` in view; matplotlib's portrait and
`--pictures` chose nothing. Prints shares with Wilson's 95% interval; nothing is asserted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from components.dataset.usual import Usual
from components.model.statistics import rate
from components.radiograph.appearance import appearance
from tests.benchmarks import planted
from tests.benchmarks.corpora import SEED, phantoms, radiographs

CORPORA = (("phantoms", phantoms, 400, 400), ("FracAtlas subset", radiographs, 1000, 1300))
KINDS = {
    "scikit-learn's two photographs": planted.photo,
    "matplotlib's portrait": planted.portrait,
    "scanned page": planted.document,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--each", type=int, default=100, help="parts of every picture")
    arguments.add_argument("--pictures", type=Path, help="a folder of pictures that are no radiographs")
    chosen = arguments.parse_args()
    strangers = {} if chosen.pictures is None else _pictures(chosen.pictures)
    for name, corpus, first, rest in CORPORA:
        own, others = corpus(first, "tune"), corpus(rest, "report")
        usual = Usual.of(_appearances(own))
        print(f"\n{name}: learned from {len(own)} images, seed {SEED}")
        _told("its own, not learned from", usual, others)
        rng = np.random.default_rng(SEED)
        shapes = [others[place] for place in rng.integers(len(others), size=chosen.each)]
        for kind, draw in KINDS.items():
            _told(kind, usual, [draw(shape, rng) for shape in shapes])
        for kind, picture in strangers.items():
            _told(kind, usual, [planted.part(picture, shape.shape, rng) for shape in shapes])


def _pictures(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    return {path.stem: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2GRAY) for path in files}


def _appearances(pictures: list[np.ndarray]) -> np.ndarray:
    return np.stack([appearance(pixels) for pixels in pictures])


def _told(kind: str, usual: Usual, pictures: list[np.ndarray]) -> None:
    strangeness = usual.strangeness(_appearances(pictures))
    found = rate(strangeness > 1, np.arange(len(pictures)))
    assert found
    share = f"{found.value:.1%} ({found.low:.1%}-{found.high:.1%})"
    print(f"{kind:<34}{len(pictures):>5}  {share:<24} median strangeness {np.median(strangeness):.2f}")


if __name__ == "__main__":
    main()
