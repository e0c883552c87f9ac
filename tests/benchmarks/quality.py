"""Benchmark: the `images` suite beside cleanvision, on the same files in the same run (`make bench-quality`).

Clean radiographs and ones with a planted defect, all as 8-bit PNG, which both sides decode themselves. Prints images a
second, which share of each defect is found, and which share of the clean ones is flagged; nothing is asserted. The
clean pictures are dealt in two halves: thresholds were chosen on `tune`, the figures are those of `report`. Large
phantoms are there for their size, and are not judged.

Speed, of the same files: the whole run, from no process to every verdict; and processor time an image, decoding
included, of what either side does for one image, in one process that is warm. Sides take turns, and the least of
`--turns` counts, because other work may be running.

cleanvision's "grayscale" is true of every radiograph: it is left out, on its side only. A quality defect counts as
found by any other issue but the duplicates; a copy counts as found by an issue about duplicates. What `validate` warns
of counts as found or as a false flag like what it quarantines; the share that is quarantined stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from cleanvision import Imagelab
from cleanvision.dataset.fsspec_dataset import FSDataset
from cleanvision.issue_managers.duplicate_issue_manager import DuplicateIssueManager, compute_hash
from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager, compute_scores

from components import params
from components.dataset.expectations import image_checks, judge
from components.dataset.neighbours import neighbours
from components.radiograph.appearance import appearance
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.likeness import likeness, thumbnail
from components.radiograph.phantom import DETECTOR_A
from components.radiograph.pitch import FINE, halved
from components.radiograph.pixels import decode
from components.radiograph.quality import measure
from tests.benchmarks.corpora import REAL, SEED, phantoms, radiographs
from tests.benchmarks.planted import COPIES, DEFECTS

LARGE = (replace(DETECTOR_A, rows=1800, columns=1500, pitch_mm=0.05, blur_px=1.5),)
DUPLICATES = ("exact_duplicates", "near_duplicates")
PROPERTIES = ("dark", "odd_aspect_ratio", "low_information", "blurry", "odd_size")  # "light" is read off with "dark"


@dataclass(frozen=True)
class Planted:
    """One file: the picture it shows and what is wrong with it ("clean": nothing was planted)."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Outcome:
    """What one side said. issues: file name -> names of its issues; refused: names of files that are quarantined."""

    issues: dict[str, set[str]]
    refused: set[str]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--each", type=int, default=20, help="pictures of a defect, and of a kind of copy")
    arguments.add_argument("--clean", type=int, default=200, help="pictures with no defect planted")
    arguments.add_argument("--large", type=int, default=40, help="phantoms of 1500 x 1800 pixels, for speed alone")
    arguments.add_argument("--half", choices=("tune", "report"), default="report")
    arguments.add_argument("--processes", type=int, default=2, help="for either side's whole run")
    arguments.add_argument("--turns", type=int, default=3, help="of either side, of which the fastest counts")
    chosen = arguments.parse_args()
    print(f"seed {SEED}, half `{chosen.half}`, {chosen.processes} processes for either side, {os.cpu_count()} cores")
    needed = chosen.clean + chosen.each * (len(DEFECTS) + len(COPIES))
    with tempfile.TemporaryDirectory() as folder:
        large = plant(phantoms(chosen.large, chosen.half, LARGE), Path(folder), 0)
        print(f"\nlarge phantoms, 1500 x 1800: {len(large)} files")
        raced(large, chosen.processes, chosen.turns)
    corpora = {"phantoms": phantoms}
    if (REAL / "dataset.csv").is_file():
        corpora["FracAtlas subset"] = radiographs
    for name, corpus in corpora.items():
        with tempfile.TemporaryDirectory() as folder:
            files = plant(corpus(needed, chosen.half), Path(folder), chosen.each)
            print(f"\n{name}: {len(files)} files")
            told(files, *raced(files, chosen.processes, chosen.turns))


def plant(pictures: list[np.ndarray], folder: Path, each: int) -> list[Planted]:
    """Write `each` picture of every defect, `each` pair of every kind of copy, and the rest as they are."""
    rng = np.random.default_rng(SEED)
    files: list[Planted] = []

    def write(kind: str, pixels: np.ndarray) -> None:
        path = folder / f"{len(files):05d}.png"
        cv2.imwrite(str(path), pixels)
        files.append(Planted(path, kind))

    rest = iter(pictures)
    for kind, defect in DEFECTS.items():
        for _ in range(each):
            write(kind, defect(next(rest), rng))
    for kind, copy in COPIES.items():
        for _ in range(each):
            pixels = next(rest)
            write("original", pixels)
            write(kind, copy(pixels, rng))
    for pixels in rest:
        write("clean", pixels)
    return files


def raced(files: list[Planted], processes: int, turns: int) -> tuple[Outcome, Outcome]:
    """Time both sides in turn on `files`, print their speeds, and return what they said."""
    sides, singles = (suite, cleanvision), (facts_of, theirs_of(files))
    least = np.full((2, 2), np.inf)
    outcomes: list[Outcome] = []
    for side in sides:
        side(files[:4], processes)  # imports are not what is measured
    for _ in range(turns):
        outcomes = []
        for number, (side, single) in enumerate(zip(sides, singles, strict=True)):
            started = time.perf_counter()
            outcomes.append(side(files, processes))
            wall = time.perf_counter() - started
            least[number] = np.minimum(least[number], (wall, _busy(single, files[:: max(1, len(files) // 100)])))
    print(f"{'':<38}{'ours':>8}{'cleanvision':>13}")
    for title, speeds in (
        ("images a second, whole run", len(files) / least[:, 0]),
        ("images a second of processor time", 1 / least[:, 1]),
    ):
        print(f"{title:<38}{speeds[0]:>8.1f}{speeds[1]:>13.1f}   {speeds[0] / speeds[1]:.1f} x")
    return outcomes[0], outcomes[1]


def _busy(single: Callable[[Path], object], files: list[Planted]) -> float:
    """Processor seconds an image, one after the other in this process."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    single(files[0].path)
    started = time.process_time()
    for item in files:
        single(item.path)
    busy = time.process_time() - started
    cv2.setNumThreads(threads)
    return busy / len(files)


def suite(files: list[Planted], processes: int) -> Outcome:
    """Ours: read, measured and judged as `inspect`, `match` and `validate` do it."""
    chosen = params.load()
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.quality"])
    with ProcessPoolExecutor(processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        facts = pd.DataFrame(pool.map(facts_of, [item.path for item in files], chunksize=4))
    issues: dict[str, set[str]] = {name: set() for name in facts["name"]}
    numbers = {"images": facts.drop(columns=["phash", "thumbnail", "appearance"])}
    with tempfile.TemporaryDirectory() as docs:
        verdicts = judge(image_checks(chosen.validate_.images, {}), numbers, docs=Path(docs) / "images")
    for verdict in verdicts:
        for name in verdict.failing:
            issues[name].add(verdict.check.name)
    codes = np.array([int(code, 16) for code in facts["phash"]], np.uint64)
    pairs = neighbours(codes, chosen.match.bits)
    alike = likeness(np.stack(facts["thumbnail"]), pairs) >= chosen.match.likeness
    for place in np.unique(pairs[alike]):
        issues[facts["name"][place]].add("near_duplicates")
    same = facts["sha256"].duplicated(keep=False)
    for name in facts.loc[same, "name"]:
        issues[name].add("exact_duplicates")
    refused = {name for verdict in verdicts if verdict.check.severity == "critical" for name in verdict.failing}
    return Outcome(issues, refused)


def facts_of(path: Path) -> dict[str, object]:
    pixels = decode(path.read_bytes())
    image = Radiograph(_described(pixels, 8), pixels)
    sides, fine = sorted(pixels.shape), halved(pixels, FINE)
    known = {"name": path.name, "measured": True, "label_agrees": True, "side_px": sides[0], "deep_levels": np.nan}
    found = {
        "aspect": sides[0] / sides[1],
        "sha256": image.sha256,
        "thumbnail": thumbnail(fine),
        "appearance": appearance(fine),
    }
    return known | measure(image, fine) | found


def _described(pixels: np.ndarray, bits: int) -> ImageMeta:
    said = {"image_id": "x", "patient_id": "x", "study_id": "x", "source": "x", "grouping": "weak", "site": "x"}
    shape = {"rows": pixels.shape[0], "columns": pixels.shape[1], "bits_stored": bits}
    unknown = {"device": "x", "view": "unknown", "body_region": "unknown", "photometric": "MONOCHROME2"}
    return ImageMeta.model_validate(said | shape | unknown)


def cleanvision(files: list[Planted], processes: int) -> Outcome:
    """Every issue type it has, at its defaults, but "grayscale"."""
    lab = Imagelab(filepaths=[str(item.path) for item in files], verbose=False)
    types = [name for name in Imagelab.list_default_issue_types() if name != "grayscale"]
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        lab.find_issues({name: {} for name in types}, n_jobs=processes, verbose=False)
    flagged = lab.issues[[f"is_{name}_issue" for name in types]].to_numpy()
    issues = {
        Path(path).name: {types[n] for n in np.flatnonzero(row)}
        for path, row in zip(lab.issues.index, flagged, strict=True)
    }
    return Outcome(issues, {name for name, found in issues.items() if found.difference(DUPLICATES)})


def theirs_of(files: list[Planted]) -> Callable[[Path], object]:
    """What cleanvision computes of one image, by its own functions."""
    dataset = FSDataset(filepaths=[str(item.path) for item in files])
    properties, hashes = ImagePropertyIssueManager().image_properties, DuplicateIssueManager().params

    def facts(path: Path) -> object:
        scores = compute_scores(str(path), dataset, list(PROPERTIES), properties)
        return scores | compute_hash(str(path), dataset, list(DUPLICATES), hashes)

    return facts


def told(files: list[Planted], ours: Outcome, theirs: Outcome) -> None:
    print(f"{'':<24}{'n':>5}{'ours':>8}{'refused':>9}{'cleanvision':>13}   what ours said")
    for kind in [*DEFECTS, *COPIES]:
        names = [item.path.name for item in files if item.kind == kind]
        shares = [np.mean([_found(side.issues[name], kind in COPIES) for name in names]) for side in (ours, theirs)]
        refused = np.mean([name in ours.refused for name in names])
        print(f"{kind:<24}{len(names):>5}{shares[0]:>8.0%}{refused:>9.0%}{shares[1]:>13.0%}   {_counts(ours, names)}")
    names = [item.path.name for item in files if item.kind == "clean"]
    for title, copies in (("false flags, clean", False), ("duplicates among them", True)):
        shares = [np.mean([_found(side.issues[name], copies) for name in names]) for side in (ours, theirs)]
        refused = np.mean([name in ours.refused for name in names])
        print(f"{title:<24}{len(names):>5}{shares[0]:>8.1%}{refused:>9.1%}{shares[1]:>13.1%}   ", end="")
        print("" if copies else f"ours: {_counts(ours, names)}; cleanvision: {_counts(theirs, names)}")


def _found(issues: set[str], copies: bool) -> bool:
    return bool(issues.intersection(DUPLICATES) if copies else issues.difference(DUPLICATES))


def _counts(side: Outcome, names: list[str]) -> str:
    counts = pd.Series([issue for name in names for issue in sorted(side.issues[name])], dtype=str).value_counts()
    return ", ".join(f"{issue} {count}" for issue, count in counts.items())


if __name__ == "__main__":
    main()
