"""Benchmark: what 100 more images cost in archives of different sizes: time, and bytes written, up to `prepare`.

    python -m tests.benchmarks.data [--sizes 1000,10000,100000] [--out docs/growth]

Each archive holds small generated pixels in batches, was versioned, pushed and built once; then 100 images come in and
the same is done as the product does it: shards, commit_data (`dvc add`, push, commit), a build up to `prepare`. Beside
it, in the same run: one file an image under plain `dvc add` and `dvc push`. Written bytes are what the processes
handed to files, as the kernel counts them (`wchar`), children included. One measurement a size (n = 1): ratios of one
run are what is comparable. Writes OUT.json and OUT.png; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from components.dataset.store import catalog, label_events, write_images, write_labels
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.labels import LabelEvent
from components.radiograph.pixels import encode
from components.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = [Path("data/studies"), Path("data/labels")]
STAGES = ("inspect", "curate", "split", "validate", "prepare")
BATCH, NEW, SIDE = 1000, 100, 32
Phases = dict[str, dict[str, float]]


def images(start: int, count: int) -> Iterator[Radiograph]:
    """Distinct pictures of noise, two a patient, two sites."""
    for n in range(start, start + count):
        pixels = np.random.default_rng(n).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        meta = ImageMeta(
            image_id=f"i{n:09d}",
            patient_id=f"p{n // 2:09d}",
            study_id=f"s{n:09d}",
            source="bench",
            grouping="patient",
            site=f"site-{n % 2}",
            device="none",
            view="frontal",
            body_region="hand",
            photometric="MONOCHROME2",
            bits_stored=8,
            rows=SIDE,
            columns=SIDE,
        )
        yield Radiograph(meta=meta, pixels=pixels)


def append(root: Path, start: int, count: int) -> None:
    """One batch of `count` images and their labels, after what intake reads first: the catalog and the events."""
    studies, labels = (root / folder for folder in FOLDERS)
    if start:
        catalog(studies)
        label_events(labels)
    batch = f"{start // NEW + 1:06d}-bench"
    time_ = "2026-01-01T00:00:00+00:00"
    words = ("no_fracture", "fracture")
    events = [
        LabelEvent.new(image_id=f"i{n:09d}", time=time_, label=words[n % 5 == 0], reader="r", provenance="archive")
        for n in range(start, start + count)
    ]
    write_labels(labels, events, batch=f"{batch}-0000")
    write_images(studies, images(start, count), batch=batch, shard_bytes=256_000_000)


def site(folder: Path) -> Workspace:
    """A clone of this repository's last commit in which odd pictures are no reason to stop."""
    root = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(root)], check=True)
    return Workspace(root, folder / "state", str(folder / "remote"), "bench").open()


def build(home: Workspace) -> None:
    """A build as `reproduce` makes it, stage by stage up to `prepare`; `validate` may refuse such pictures."""
    with home.building("HEAD") as clone:
        clone._dvc("pull", "--quiet", "--force", "--allow-missing")
        for stage in STAGES:
            try:
                clone._dvc("repro", "--quiet", "--single-item", stage)
            except Exception as error:
                if stage != "validate":
                    raise
                print(f"  validate: {type(error).__name__}", file=sys.stderr)
        clone._dvc("push", "--quiet", "inspect", "curate", "split", "prepare")
        clone._git("add", "dvc.lock")
        clone._commit("Lock the build", ["dvc.lock"])
        home.adopt(clone)


def written() -> int:
    """Bytes this process and its finished children handed to files."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(": ")
        if name == "wchar":
            return int(value)
    raise SystemExit("this kernel counts no written bytes (/proc/self/io)")


def measured(phases: Phases, name: str, work: Callable[[], object]) -> None:
    """Run `work`; note its seconds and written megabytes."""
    began, before = time.monotonic(), written()
    work()
    phases[name] = {"seconds": time.monotonic() - began, "megabytes": (written() - before) / 1e6}


def grow(size: int, folder: Path) -> Phases:
    """Bring an archive of `size` images to stand, then measure what NEW more cost."""
    home = site(folder)
    for start in range(0, size, BATCH):
        append(home.root, start, min(BATCH, size - start))
    home.commit_data(FOLDERS, f"Take in {size} radiographs")
    build(home)
    phases: Phases = {}
    measured(phases, "shards", lambda: append(home.root, size, NEW))
    measured(phases, "add, push, commit", lambda: home.commit_data(FOLDERS, f"Take in {NEW} radiographs"))
    measured(phases, "build to prepare", lambda: build(home))
    return phases


def plain(size: int, folder: Path) -> Phases:
    """The same growth with one file an image: `dvc add` of the folder and `dvc push`, nothing else."""
    home = site(folder)
    place = home.root / "data" / "studies"
    place.mkdir(parents=True)

    def put(start: int, count: int) -> None:
        for image in images(start, count):
            (place / f"{image.meta.image_id}.png").write_bytes(encode(image.pixels))

    def version() -> None:
        home._dvc("add", "--quiet", "data/studies")
        home._dvc("push", "--quiet", "data/studies.dvc")

    put(0, size)
    version()
    phases: Phases = {}
    measured(phases, "files", lambda: put(size, NEW))
    measured(phases, "add, push", version)
    return phases


def total(phases: Phases, what: str) -> float:
    return sum(phase[what] for phase in phases.values())


def plot(results: dict[str, dict[str, Phases]], path: Path) -> None:
    """Seconds and megabytes against the size of the archive, ours beside plain files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = [int(size) for size in results]
    for axis, what in zip(axes, ("seconds", "megabytes"), strict=True):
        for kind, label in (("ours", "shards, up to prepare"), ("plain", "a file an image, add and push alone")):
            axis.plot(sizes, [total(found[kind], what) for found in results.values()], "o-", label=label)
        axis.set(xscale="log", ylim=(0, None), xlabel="images in the archive", ylabel=f"{what} for {NEW} more")
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "growth")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Phases]] = {}
    for size in (int(size) for size in arguments.sizes.split(",")):
        results[str(size)] = {}
        for kind, work in (("ours", grow), ("plain", plain)):
            folder = Path(tempfile.mkdtemp(prefix="growth-"))
            try:
                results[str(size)][kind] = work(size, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            found = results[str(size)][kind]
            for name, phase in found.items():
                print(
                    f"{size:>8} {kind:<6} {name:<18} {phase['seconds']:8.2f} s {phase['megabytes']:9.2f} MB", flush=True
                )
            whole = f"{total(found, 'seconds'):8.2f} s {total(found, 'megabytes'):9.2f} MB"
            print(f"{size:>8} {kind:<6} {'all':<18} {whole}", flush=True)
    first, *_, last = [*results.values(), *results.values()]
    for kind in ("ours", "plain"):
        for what in ("seconds", "megabytes"):
            ratio = total(last[kind], what) / total(first[kind], what)
            print(f"{kind}: {what} grow {ratio:.2f}-fold from the smallest archive to the largest (n = 1)")
    arguments.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
