"""Benchmark: what 100 more radiographs cost in archives of several sizes (`make bench-data`).

Shards and stages of this repository: intake of DICOM files, `dvc add`, push, commit, then a build up to `prepare` as
`retrain` makes it, pushed and committed. Beside it, in the same run and in turns: one file an image under plain `dvc
add`, and a stage that writes a prepared file for each new image (tests/benchmarks/archives.py). 100 other images a
round, medians over rounds; nothing is asserted.

Seconds are wall time. CPU seconds are user and system time of this process and all below it; not counted is what the
kernel writes back later. Sent is what the remote (a folder) grew by. Read back is what came from the remote into the
cache. A side that stands in OUT.json at this commit is not measured again, a side that is not asked for keeps what it
has there, and archives that stand in --folder are taken up, with what earlier runs added. Writes OUT.json and OUT.png,
prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from components.radiograph.phantom import DETECTOR_A, write_archive
from tests.benchmarks.archives import BATCH, REPOSITORY, SEED, SIDE, Archive, Plain, Sharded, objects

NEW = 100
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
KINDS: dict[str, Callable[[Path], Archive]] = {"ours": Sharded, "plain": Plain}
NAMES = {"ours": "shards, this repository", "plain": "a file an image, plain DVC"}
UNITS = {"wall": "s", "cpu": "CPU s", "sent": "MB sent", "back": "MB read back"}
Round = dict[str, float]
Results = dict[str, Any]


def source(folder: Path, number: int) -> Path:
    """A folder of NEW DICOM files and their labels, others for every number."""
    detector = dataclasses.replace(DETECTOR_A, name=f"A{number}", rows=144, columns=112, pitch_mm=0.64)
    place = folder / f"round-{number}"
    shutil.rmtree(place, ignore_errors=True)
    write_archive(place, patients=NEW // 2, images_per_patient=2, detector=detector, seed=SEED + number)
    return place


def adopt_orphans() -> None:
    """Let the processes that outlive their parents become this one's children: pools of a stage end after it."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("this kernel does not hand orphans over: their CPU seconds could not be counted")


def cpu() -> float:
    """Seconds that this process and all below it have computed; they end here, or go uncounted."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # else intake's pool reports to a server that stays
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return sum(os.times()[:4])


def measured(archive: Archive, source: Path) -> Round:
    """One round; by phase `wall.PHASE` and `cpu.PHASE` in s, and over all of it wall, cpu, and MB sent and back."""
    found: Round = {}
    remote, cache = dict(objects(archive.remote)), dict(objects(archive.cache))
    phases = {"intake": lambda: archive.arrive(source), "version": archive.version, "build": archive.build}
    for name, work in phases.items():
        began, before = time.monotonic(), cpu()
        work()
        found[f"wall.{name}"], found[f"cpu.{name}"] = time.monotonic() - began, cpu() - before
    for what in ("wall", "cpu"):
        found[what] = sum(found[f"{what}.{name}"] for name in phases)
    sent = [size for name, size in objects(archive.remote) if name not in remote]
    back = [size for name, size in objects(archive.cache) if name in remote and name not in cache]
    return found | {"sent": sum(sent) / 1e6, "objects": len(sent), "back": sum(back) / 1e6}


def grow(size: int, folder: Path, rounds: int, kinds: list[str]) -> Results:
    """Bring archives of `size` images to stand, then let them grow in turns; by kind its commit, size and rounds."""
    archives: dict[str, Archive] = {}
    found: Results = {}
    for kind in kinds:
        home, began = folder / kind, time.monotonic()
        taken = home / "taken"  # rounds so far; written once it stands
        if stood := taken.exists():
            archives[kind] = KINDS[kind](home)
            archives[kind].follow()
        else:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            archives[kind] = KINDS[kind](home)
            archives[kind].stand(size)
            taken.write_text("0")
        did = "follows" if stood else "stands"
        print(f"{size:>8} {kind:<6} {did} after {time.monotonic() - began:.0f} s", flush=True)
        found[kind] = {"commit": commit(), "before": size + int(taken.read_text()) * NEW, "rounds": []}
    for _ in range(rounds):
        for kind, archive in archives.items():
            taken = folder / kind / "taken"
            number = int(taken.read_text())
            taken.write_text(str(number + 1))
            round_ = measured(archive, source(folder, number)) | {"load": os.getloadavg()[0]}
            found[kind]["rounds"].append(round_)
            said = ", ".join(f"{name} {value:.2f}" for name, value in round_.items())
            print(f"{size:>8} {kind:<6} round {number + 1}: {said}", flush=True)
    return found


def commit() -> str:
    """The code that is measured: the last commit, marked where the code differs from it."""
    git = ["git", "-C", str(REPOSITORY)]
    said = [[*git, "rev-parse", "--short=12", "HEAD"], [*git, "status", "--porcelain", "components", "*.yaml"]]
    head, changed = (subprocess.run(one, check=True, capture_output=True, text=True).stdout.strip() for one in said)
    return head + ("-dirty" if changed else "")


def median(rounds: list[Round], what: str) -> float:
    return statistics.median(one[what] for one in rounds)


def sides(results: Results) -> list[str]:
    """The kinds that were measured at every size."""
    return [kind for kind in KINDS if all(kind in size for size in results["sizes"].values())]


def table(results: Results) -> str:
    """The medians, with their ratio to the smallest archive, as Markdown."""
    sizes = sorted(results["sizes"], key=int)
    lines = ["| | " + " | ".join(f"{int(size):,}" for size in sizes) + " |", "|---" * (1 + len(sizes)) + "|"]
    rows = [(kind, what, unit) for kind in sides(results) for what, unit in UNITS.items()]
    rows += [
        ("ours", f"cpu.{phase}", f"CPU s, {phase}")
        for phase in ("intake", "version", "build")
        if "ours" in sides(results)
    ]
    for kind, what, unit in rows:
        values = [median(results["sizes"][size][kind]["rounds"], what) for size in sizes]
        cells = [f"{value:.2f}" + (f" (x {value / values[0]:.2f})" if values[0] else "") for value in values]
        lines.append(f"| {NAMES[kind]}: {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """Seconds, CPU seconds and megabytes sent against the size of the archive; points are rounds, lines medians."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    sizes = sorted(results["sizes"], key=int)
    for axis, (what, unit) in zip(axes, list(UNITS.items())[:3], strict=True):
        for kind in sides(results):
            rounds = [results["sizes"][size][kind]["rounds"] for size in sizes]
            (line,) = axis.plot(
                [int(size) for size in sizes], [median(one, what) for one in rounds], "-", label=NAMES[kind]
            )
            for size, some in zip(sizes, rounds, strict=True):
                axis.plot([int(size)] * len(some), [one[what] for one in some], ".", color=line.get_color())
        axis.set(xscale="log", xlabel="images in the archive", ylabel=f"{unit} for {NEW} more")
        axis.set_ylim(0, None)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(KINDS), help="which to measure: ours, plain")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "growth")
    parser.add_argument("--folder", type=Path, help="where the archives stand and stay; else in a folder of this run")
    arguments = parser.parse_args()
    adopt_orphans()
    kept, results = arguments.out.with_suffix(".json"), {}
    if kept.is_file():
        results = json.loads(kept.read_text(encoding="utf-8"))["sizes"]
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    document = {"new": NEW, "side": SIDE, "batch": BATCH, "seed": SEED, "machine": machine, "sizes": results}
    with tempfile.TemporaryDirectory(prefix="growth-") as own:
        for size in arguments.sizes.split(","):
            known = results.setdefault(size, {})
            asked = [kind for kind in arguments.sides.split(",") if known.get(kind, {}).get("commit") != commit()]
            folder = (arguments.folder or Path(own)) / size
            known |= grow(int(size), folder, arguments.rounds, asked)
            kept.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            if not arguments.folder:
                shutil.rmtree(folder, ignore_errors=True)
    plot(document, arguments.out.with_suffix(".png"))
    print(table(document))


if __name__ == "__main__":
    main()
