"""Small invented sources, and an archive to take them into."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components import params
from components.dataset.intake import Batch, intake
from components.dataset.squares import Squares
from components.dataset.store import label_events, read_catalog, write_catalog
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, draw
from components.radiograph.pixels import Transform

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SMALL = dataclasses.replace(DETECTOR_A, rows=160, columns=128, pitch_mm=2.0)


@dataclass(frozen=True)
class Home:
    """Where an archive lies, and the way into it."""

    folder: Path

    @property
    def studies(self) -> Path:
        return self.folder / "studies"

    @property
    def labels(self) -> Path:
        return self.folder / "labels"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    @property
    def pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(bytes(range(32)))

    def take_in(
        self,
        source: Path,
        *,
        now: datetime = NOON,
        may_be_empty: bool = False,
        progress: Callable[[int, int], None] | None = None,
        apart: Callable[[str], bool] | None = None,
        **changes: int,
    ) -> Batch:
        limits = {
            "shard_mb": 1,
            "max_megapixels": 10,
            "seconds_per_file": 20,
            "memory_mb": 2048,
            "weak_block": 10,
            "burned_in": "mask",
        } | changes
        return intake(
            source=source,
            studies=self.studies,
            labels=self.labels,
            catalog=self.folder / "catalog",
            quarantine=self.quarantine,
            pseudonyms=self.pseudonyms,
            params=params.Intake(**limits | changes),
            now=now,
            may_be_empty=may_be_empty,
            progress=progress,
            apart=apart,
        )

    def catalog(self) -> pd.DataFrame:
        return read_catalog(self.studies)

    def entries(self) -> Path:
        """The catalog's folder, with an entry for every shard."""
        write_catalog(self.studies, self.folder / "catalog")
        return self.folder / "catalog"

    def events(self) -> pd.DataFrame:
        return label_events(self.labels)

    def files(self) -> list[str]:
        """Everything that lies in the archive, hidden or not."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def contents(self) -> dict[str, str]:
        """The SHA-256 of every file, hidden or not."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def new_home(tmp_path: Path) -> Callable[[str], Home]:
    return lambda name: Home(tmp_path / name)


@pytest.fixture(scope="session")
def home_at() -> type[Home]:
    return Home


def picture(seed: int, *, rows: int = 120, columns: int = 90, smooth: float = 6) -> np.ndarray:
    """(rows, columns) uint8 of soft blobs; every seed another one. smooth=0: noise, which does not compress."""
    field = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), smooth) if smooth else field
    return cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def grain(seed: int, *, side: int = 500) -> np.ndarray:
    """(side, side) uint8 of fine grain on a ramp, which hardly compresses; every seed another one."""
    grains = np.random.default_rng(seed).integers(0, 32, (side, side))
    return (np.linspace(0, 200, side)[None] + grains).astype(np.uint8)


def jpeg(pixels: np.ndarray, *, orientation: int | None = None) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@dataclass
class Shot:
    """One image of an archive in FracAtlas's layout. fractured: as the table says; folder: as the folders say."""

    number: int
    data: bytes
    fractured: str = "0"
    folder: str | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    size: tuple[int, int] = (90, 120)  # (width, height) the boxes refer to
    flags: tuple[str, ...] = ("hand", "frontal")

    @property
    def name(self) -> str:
        return f"IMG{self.number:07d}.jpg"


def write_fracatlas(folder: Path, shots: list[Shot]) -> Path:
    columns = ["hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan", "frontal", "lateral", "oblique"]
    images, annotations = [], []
    for shot in shots:
        where = folder / "images" / (shot.folder or ("Fractured" if shot.fractured == "1" else "Non_fractured"))
        where.mkdir(parents=True, exist_ok=True)
        (where / shot.name).write_bytes(shot.data)
        if shot.boxes:
            images.append({"id": shot.number, "file_name": shot.name, "width": shot.size[0], "height": shot.size[1]})
            annotations += [{"image_id": shot.number, "bbox": list(box)} for box in shot.boxes]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "dataset.csv").open("w", newline="") as text:
        table = csv.writer(text)
        table.writerow(["image_id", "fractured", *columns])
        table.writerows([s.name, s.fractured, *(int(c in s.flags) for c in columns)] for s in shots)
    coco = folder / "Annotations" / "COCO JSON"
    coco.mkdir(parents=True, exist_ok=True)
    (coco / "COCO_fracture_masks.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def write_dicoms(folder: Path, patients: list[int], *, labels: dict[int, str] | None = None, images: int = 1) -> Path:
    """Phantoms of the numbered patients; labels: what labels.csv says about each patient's images."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in patients:
        for image in range(images):
            phantom = draw(7, patient=patient, detector=SMALL, fracture=bool(patient % 2), image=image)
            (folder / f"{patient}-{image}").write_bytes(phantom.dicom)
            rows.append((phantom.sop_instance_uid, (labels or {}).get(patient), ""))
    if labels is not None:
        text = "".join(f"{uid},{label},{boxes}\n" for uid, label, boxes in rows if label is not None)
        (folder / "labels.csv").write_text(f"sop_instance_uid,label,boxes\n{text}")
    return folder


def write_squares(folder: Path, table: pd.DataFrame) -> Path:
    """Squares of 16 pixels for every image of `table` (image_id, shard), each of another grey."""
    folder.mkdir(exist_ok=True)
    for shard, rows in table.groupby("shard"):
        greys = (np.arange(len(rows)) % 256).astype(np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
        Squares(Transform(size=16)).write(folder / f"{shard}.npz", [(list(rows["image_id"]), greys)], "key")
    return folder


@pytest.fixture(scope="session")
def make() -> type:
    """The makers above, for test modules (which do not import each other)."""

    class Makers:
        picture = staticmethod(picture)
        jpeg = staticmethod(jpeg)
        grain = staticmethod(grain)
        fracatlas = staticmethod(write_fracatlas)
        dicoms = staticmethod(write_dicoms)
        squares = staticmethod(write_squares)
        shot = Shot
        NOON = NOON

        @staticmethod
        def noise(count: int) -> list[Shot]:
            """Shots of about 180 kB of encoded pixels each: six to a shard of 1 MB. Nothing in them looks like text."""
            return [Shot(n, jpeg(grain(n)), "01"[n % 2]) for n in range(1, count + 1)]

    return Makers


@pytest.fixture
def source(make, tmp_path) -> Path:
    """Two good images of two patients; the test adds what it is about."""
    return make.dicoms(tmp_path / "source", [1, 2])


@pytest.fixture
def good(make, tmp_path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(make.dicoms(tmp_path / "good", [1, 2]).iterdir())]
