"""The layout of FracAtlas: dataset.csv, images/Fractured, images/Non_fractured, COCO annotations.

It names no patients: blocks of neighbouring image numbers stand in for one, and are marked "weak".

Source: Abedeen et al., Scientific Data 10, 521 (2023); figshare 22363012.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from components.dataset.items import Item, Source, Statement, require
from components.errors import DataError, UnknownLabel
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.labels import FRACTURE, NO_FRACTURE, UNKNOWN, Box
from components.radiograph.raster import geometry, read_raster, turn_box

NAME = "fracatlas"
FOLDERS = {"1": "Fractured", "0": "Non_fractured"}
LABELS = {"1": FRACTURE, "0": NO_FRACTURE}
REGIONS = ("hand", "leg", "hip", "shoulder", "mixed")
VIEWS = ("frontal", "lateral", "oblique")
ANNOTATIONS = Path("Annotations") / "COCO JSON" / "COCO_fracture_masks.json"


@dataclass(frozen=True)
class FracAtlasFile:
    """One JPEG and its row of dataset.csv.

    Attributes:
        block: number of the group of neighbouring images that stands in for a patient.
    """

    path: Path
    block: int
    view: str
    body_region: str
    hardware: bool

    def size(self) -> int:
        return self.path.stat().st_size

    def data(self) -> bytes:
        return self.path.read_bytes()

    def image_id(self, data: bytes, pseudonyms: Pseudonyms) -> str:
        return pseudonym(self.path.name, pseudonyms)

    def read(self, data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int) -> Radiograph:
        """Decode, turned the way EXIF says.

        Raises:
            UnreadableImage: see `read_raster`.
        """
        raster = read_raster(data, max_megapixels=max_megapixels)
        meta = ImageMeta(
            image_id=self.image_id(data, pseudonyms),
            patient_id=pseudonyms.of("patient", f"{NAME}:block:{self.block}"),
            study_id=pseudonyms.of("study", f"{NAME}:{self.path.name}"),
            source=NAME,
            grouping="weak",
            site=NAME,
            device="unknown",
            view=self.view,
            body_region=self.body_region,
            photometric="MONOCHROME2",
            bits_stored=raster.bits_stored,
            rows=raster.pixels.shape[0],
            columns=raster.pixels.shape[1],
            hardware=self.hardware,
        )
        return Radiograph(meta=meta, pixels=raster.pixels)


def open_fracatlas(folder: Path, pseudonyms: Pseudonyms, *, weak_block: int) -> Source:
    """List the images that dataset.csv and the folders both know.

    Where the table and the folder contradict each other about a fracture, the label is unknown.

    Raises:
        DataError: a column is missing, or the annotations are not COCO.
        UnknownLabel: `fractured` is neither 0 nor 1, with its row.
    """
    files = {path.name: path for name in FOLDERS.values() for path in sorted((folder / "images" / name).glob("*"))}
    twice = {
        path.name for path in (folder / "images" / FOLDERS["0"]).glob("*") if path.parent != files[path.name].parent
    }
    with (folder / "dataset.csv").open(newline="", encoding="utf-8-sig") as text:
        table = csv.DictReader(text)
        require(table.fieldnames, ("image_id", "fractured", "hardware", *REGIONS, *VIEWS), "dataset.csv")
        rows = {row["image_id"]: row for row in _checked(table)}
    boxes = _boxes(folder, files)
    statements, contradicted = {}, 0
    items: list[Item] = []
    for name in sorted(files):
        row = rows.get(name)
        agrees = row is not None and name not in twice and files[name].parent.name == FOLDERS[row["fractured"]]
        label = LABELS[row["fractured"]] if row is not None and agrees else UNKNOWN
        contradicted += not agrees
        items.append(_item(files[name], row or {}, weak_block))
        statements[pseudonym(name, pseudonyms)] = Statement(label, boxes.get(name, ()) if label == FRACTURE else ())
    names = [f"{name} {files[name].stat().st_size}" for name in sorted(files)]
    return Source(NAME, items, names, statements, contradicted)


def pseudonym(name: str, pseudonyms: Pseudonyms) -> str:
    """The image_id of the file `name` of the archive."""
    return pseudonyms.of("image", f"{NAME}:{name}")


def _checked(table: csv.DictReader[str]) -> list[dict[str, str]]:
    rows = list(table)
    for number, row in enumerate(rows, start=2):
        if row["fractured"] not in LABELS:
            raise UnknownLabel(
                f"dataset.csv row {number}: fractured is {str(row['fractured'])[:40]!r}, not one of "
                f"{', '.join(sorted(LABELS))}; nothing was taken in"
            )
    return rows


def _item(path: Path, row: dict[str, str], weak_block: int) -> FracAtlasFile:
    digits = "".join(ch for ch in path.stem if ch.isdigit())
    if not digits:
        raise DataError("images: a file name without a number; images cannot be grouped, expected IMG<number>.jpg")
    regions = [name for name in REGIONS if row.get(name) == "1"]
    views = [name for name in VIEWS if row.get(name) == "1"]
    return FracAtlasFile(
        path=path.resolve(),
        block=int(digits) // weak_block,
        view=views[0] if len(views) == 1 else "unknown",
        body_region=("mixed" if len(regions) > 1 else regions[0]) if regions else "unknown",
        hardware=row.get("hardware") == "1",
    )


def _boxes(folder: Path, files: dict[str, Path]) -> dict[str, tuple[Box, ...]]:
    """Boxes by file name, in pixels of the turned image. Annotations of another size than the image are left out."""
    path = folder / ANNOTATIONS
    if not path.is_file():
        return {}
    found: dict[str, list[Box]] = defaultdict(list)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in document["images"]}
        for annotation in document["annotations"]:
            image = images[annotation["image_id"]]
            if (file := files.get(image["file_name"])) and (
                box := _turned(_four(annotation["bbox"]), (image["width"], image["height"]), file)
            ):
                found[image["file_name"]].append(box)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{ANNOTATIONS.name}: not COCO annotations ({type(error).__name__})") from None
    return {name: tuple(boxes) for name, boxes in found.items()}


def _four(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    return x, y, width, height


def _turned(bbox: tuple[float, float, float, float], annotated: tuple[int, int], file: Path) -> Box | None:
    """A COCO box (x, y, width, height) of the annotated image, as it lies on the image turned by EXIF.

    Browsers turn images before anybody draws on them, so a box refers to the turned image, unless its image's size
    says otherwise.

    Args:
        annotated: (width, height) the box refers to.
    """
    if (found := geometry(file)) is None:
        return None  # `read` refuses the image itself
    (rows, columns), orientation = found
    turned = (rows, columns) if orientation >= 5 else (columns, rows)
    if annotated == (columns, rows) != turned:
        bbox = turn_box(bbox, stored=(rows, columns), orientation=orientation)
    elif annotated != turned:
        return None
    x, y, width, height = bbox
    left, top = max(x, 0.0), max(y, 0.0)
    width, height = min(x + width, turned[0]) - left, min(y + height, turned[1]) - top
    if min(width, height) < 0.01:  # pixels; annotations carry two decimals
        return None
    return Box(x=round(left, 2), y=round(top, 2), width=round(width, 2), height=round(height, 2))
