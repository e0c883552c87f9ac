"""The two archives that `tests/benchmarks/data.py` lets grow: shards and stages of this repository, and one file an
image under plain `dvc add`.

Both hold equally many small pictures, take the same DICOM files in, send to a remote that is a folder of their own, and
shrink every picture to a square of SIDE pixels. Plain does no more than that: no identity is removed, nothing is
checked, no label is kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom import dcmread

from components import params
from components.dataset import inspect
from components.dataset.intake import intake
from components.dataset.keys import write_keyed
from components.dataset.shards import fingerprint
from components.dataset.store import next_batch, shards, write_catalog, write_images, write_labels
from components.radiograph import appearance
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.labels import LabelEvent
from components.radiograph.likeness import thumbnail
from components.radiograph.pixels import decode, encode
from components.radiograph.quality import FEATURES
from components.workspace import Workspace
from flows.builds import make

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = 20261123
SIDE = 96  # pixels, of the pictures that are here already and of what `prepare` makes: hundred thousand fit a disk
BATCH = 500  # images that came together, before: a shard
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
SCALE = {  # what draws from 0.3 to 0.6 are multiplied by, to lie well within the limits of params.yaml
    "saturation": 0.1, "grey_levels": 400, "field_fraction": 1.6, "sharpness": 100,
    "noise": 0.05, "cnr": 20, "motion": 3,
}  # fmt: skip
PLAIN = f"""\
stages:
  prepare:
    cmd: {sys.executable} prepare.py
    deps: [images, prepare.py]
    outs:
      - prepared: {{persist: true}}
"""
SHRINK = f"""\
from pathlib import Path
import cv2
import numpy as np

Path("prepared").mkdir(exist_ok=True)
made = {{path.stem for path in Path("prepared").iterdir()}}
for path in Path("images").iterdir():
    if path.stem not in made:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32)
        square = cv2.resize(pixels, ({SIDE}, {SIDE}), interpolation=cv2.INTER_AREA)
        np.save(f"prepared/{{path.stem}}.npy", (square * (255 / max(1, square.max()))).astype(np.uint8))
"""


class Archive(Protocol):
    """An archive under version control, and the phases in which a batch of DICOM files comes into it."""

    remote: Path
    cache: Path

    def stand(self, size: int) -> None:
        """Make an archive of `size` images, version and send it, and build it once."""

    def follow(self) -> None:
        """Build what stands once more, where the code has changed since."""

    def arrive(self, source: Path) -> None:
        """Take the DICOM files of a folder in."""

    def version(self) -> None:
        """`dvc add`, push, commit."""

    def build(self) -> None:
        """`dvc repro` up to `prepare`, push, commit."""


class Sharded:
    """What this repository does, in a clone of its last commit."""

    def __init__(self, folder: Path) -> None:
        root = folder / "clone"
        if not root.exists():
            subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(root)], check=True)
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run(["git", *who, "pull", "--quiet", "--rebase"], cwd=root, check=True)
        self.remote, self.state = folder / "remote", folder / "state"
        self.cache = self.state / "cache"
        self.home = Workspace(root, self.state, str(self.remote), "bench").open()
        asked = root / "params.yaml"
        small, times = re.subn(r"(?m)^  size: \d+", f"  size: {SIDE}", asked.read_text(encoding="utf-8"))
        if times != 1:
            raise SystemExit(f"params.yaml: {times} lines look like prepare.size, expected 1")
        asked.write_text(small, encoding="utf-8")
        self.home.commit_file(Path("params.yaml"), "Small pictures")
        self.params = params.load(asked)
        paths = self.params.paths
        self.folders = [paths.studies, paths.labels, paths.catalog]
        self.message = ""

    def stand(self, size: int) -> None:
        studies, labels, _ = (self.home.root / folder for folder in self.folders)
        for start in range(0, size, BATCH):
            metas = described(start, min(size, start + BATCH))
            batch = next_batch(studies, "before")
            write_labels(labels, map(told, metas), batch=f"{batch}-0000")
            images = (Radiograph(meta, picture(start + n)) for n, meta in enumerate(metas))
            write_images(studies, images, batch=batch, shard_bytes=self.params.intake.shard_mb * 1_000_000)
        self.message = f"Take in {size} radiographs"
        self.version()
        with self.home.building("HEAD") as clone:
            clone.restore(self.folders)
            for shard in shards(studies):
                supposed(shard, clone.root / self.params.paths.features)
            clone._dvc("repro", "--quiet", "inspect")  # no pull from here on: it would clear what no lock knows yet
        self.build()

    def follow(self) -> None:
        self.message = "Follow the code"
        self.version()
        self.build()

    def arrive(self, source: Path) -> None:
        studies, labels, catalog = (self.home.root / folder for folder in self.folders)
        batch = intake(
            source=source,
            studies=studies,
            labels=labels,
            catalog=catalog,
            quarantine=self.state / "quarantine",
            pseudonyms=Pseudonyms(b"growth" + bytes(26)),
            params=self.params.intake,
            now=WHEN,
        )
        if batch.added != (files := len(list(source.glob("*.dcm")))):
            raise SystemExit(f"{batch.added} of {files} images were added: {batch.refused}")
        self.message = batch.message()

    def version(self) -> None:
        write_catalog(*(self.home.root / folder for folder in self.folders[::2]))
        self.home.commit_data(self.folders, self.message)

    def build(self) -> None:
        with self.home.building("HEAD") as clone:
            make(clone, "validate")
            clone.lock()
            self.home.adopt(clone)


class Plain:
    """One file an image: `dvc add` of the folder, and one stage that adds a prepared file for each new one."""

    def __init__(self, folder: Path) -> None:
        self.root, self.remote, self.cache = folder / "plain", folder / "plain-remote", folder / "plain-cache"
        self.images = self.root / "images"
        if self.root.exists():
            return
        self.images.mkdir(parents=True)
        self._run("git", "init", "--quiet")
        self._dvc("init", "--quiet")
        settings = {"core.analytics": "false", "core.check_update": "false", "cache.dir": str(self.cache)}
        for name, value in settings.items():
            self._dvc("config", "--quiet", name, value)
        self._dvc("remote", "add", "--quiet", "--default", "storage", str(self.remote))
        (self.root / "dvc.yaml").write_text(PLAIN, encoding="utf-8")
        (self.root / "prepare.py").write_text(SHRINK, encoding="utf-8")

    def stand(self, size: int) -> None:
        for n in range(size):
            (self.images / f"i{n:07d}.png").write_bytes(encode(picture(n)))
        self.version()
        self.build()

    def follow(self) -> None:
        """Nothing: this side has no code of ours."""

    def arrive(self, source: Path) -> None:
        for path in sorted(source.glob("*.dcm")):
            cv2.imwrite(str(self.images / f"{source.name}-{path.stem}.png"), dcmread(path).pixel_array)

    def version(self) -> None:
        self._dvc("add", "--quiet", "images")
        self._dvc("push", "--quiet", "images")
        self._commit()

    def build(self) -> None:
        self._dvc("repro", "--quiet")
        self._dvc("push", "--quiet", "prepare")
        self._commit()

    def _commit(self) -> None:
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        self._run("git", "add", "-A")
        self._run("git", *who, "commit", "--quiet", "-m", "more")

    def _dvc(self, *arguments: str) -> None:
        self._run(sys.executable, "-m", "dvc", *arguments)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[1:])}: {(done.stderr or done.stdout)[-600:]}")


def described(start: int, stop: int) -> list[ImageMeta]:
    """What is known of the images `start` to `stop`: two a patient, two sites, everything stated."""
    return [
        ImageMeta(
            image_id=f"i{n:09d}",
            patient_id=f"p{n // 2:09d}",
            study_id=f"s{n // 2:09d}",
            source="bench",
            grouping="patient",
            site=f"site-{n // 2 % 2}",
            device=f"device-{n // 2 % 4}",
            view=("frontal", "lateral")[n % 2],
            body_region=("hand", "wrist", "forearm")[n // 2 % 3],
            laterality="LR"[n // 4 % 2],
            sex=("F", "M")[n // 8 % 2],
            age_years=n // 2 * 7 % 90,
            hour=n // 2 * 5 % 24,
            study_day="2020-01-01",
            photometric="MONOCHROME2",
            bits_stored=8,
            rows=SIDE,
            columns=SIDE,
        )
        for n in range(start, stop)
    ]


def told(meta: ImageMeta) -> LabelEvent:
    """Two images of five show a fracture, so that even a small archive has roles that can be compared."""
    label = "fracture" if int(meta.image_id[1:]) % 5 < 2 else "no_fracture"
    return LabelEvent.new(
        image_id=meta.image_id, time=WHEN.isoformat(), label=label, reader="bench", provenance="archive"
    )


def supposed(shard: Path, features: Path) -> None:
    """Write what `inspect` would for a shard, with numbers drawn and not measured, which takes an hour at 100,000."""
    rows = pq.read_table(shard, columns=["image_id", "pixels"]).to_pylist()
    random = np.random.default_rng((SEED, int(rows[0]["image_id"][1:])))
    table = pa.table(
        {"image_id": [row["image_id"] for row in rows]}
        | {name: random.uniform(0.3, 0.6, len(rows)) * SCALE.get(name, 1) for name in FEATURES}
        | {"polarity_ok": [True] * len(rows)}
        | {"phash": [random.bytes(8).hex() for _ in rows]}
        | {"thumbnail": [thumbnail(decode(row["pixels"])).tobytes() for row in rows]}
        | {"appearance": list(random.uniform(0, 1, (len(rows), appearance.LENGTH)).astype(np.float32))},
        schema=inspect.SCHEMA,
    )
    features.mkdir(parents=True, exist_ok=True)
    write_keyed(features / shard.name, table, f"{inspect.Features().version}:{fingerprint(shard)}")


def picture(n: int) -> np.ndarray:
    """The n-th picture, (SIDE, SIDE) uint8: soft shapes and a little noise, different from all others."""
    random = np.random.default_rng((SEED, n))
    soft = cv2.resize(random.uniform(40, 215, (8, 8)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(soft + random.normal(0, 4, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def objects(folder: Path) -> Iterator[tuple[str, int]]:
    """Every stored object below a DVC cache or remote: its hash, and its size in bytes."""
    for path in (folder / "files" / "md5").rglob("*"):
        if path.is_file():
            yield f"{path.parent.name}{path.name}", path.stat().st_size
