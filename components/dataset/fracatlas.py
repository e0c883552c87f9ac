"""The layout of FracAtlas: dataset.csv, images/Fractured, images/Non_fractured, COCO annotations.

It names no patients: blocks of neighbouring image numbers stand in for one, and are marked "weak".

Source: Abedeen et al., Scientific Data 10, 521 (2023); figshare 22363012.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from components.dataset.boxes import upright_box
from components.dataset.items import Item, Source, Statement, read_table
from components.dataset.tree import File, Tree
from components.errors import DataError, MissingPatient, UnknownLabel
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph
from components.radiograph.labels import FRACTURE, NO_FRACTURE, UNKNOWN, Box
from components.radiograph.raster import read_raster

NAME = "fracatlas"
FOLDERS = {"1": "Fractured", "0": "Non_fractured"}
LABELS = {"1": FRACTURE, "0": NO_FRACTURE}
REGIONS = ("hand", "leg", "hip", "shoulder", "mixed")
VIEWS = ("frontal", "lateral", "oblique")
TABLE = "dataset.csv"
ANNOTATIONS = "Annotations/COCO JSON/COCO_fracture_masks.json"


@dataclass(frozen=True)
class FracAtlasFile:
    """One JPEG and its row of dataset.csv.

    Attributes:
        block: number of the group of neighbouring images that stands in for a patient; None: its name has no number.
    """

    file: File
    block: int | None
    view: str
    body_region: str
    hardware: bool

    def image_id(self, data: bytes, pseudonyms: Pseudonyms) -> str:
        return pseudonym(self.file.name, pseudonyms)

    def read(self, data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int) -> Radiograph:
        """Decode, turned the way EXIF says.

        Raises:
            UnreadableImage: see `read_raster`.
            MissingPatient: an image whose name has no number, expected IMG<number>.jpg.
        """
        raster = read_raster(data, max_megapixels=max_megapixels)
        if self.block is None:
            raise MissingPatient("images: a file name without a number; it cannot be grouped")
        return Radiograph.plain(
            raster.pixels,
            raster.bits_stored,
            image_id=self.image_id(data, pseudonyms),
            patient_id=pseudonyms.of("patient", f"{NAME}:block:{self.block}"),
            study_id=pseudonyms.of("study", f"{NAME}:{self.file.name}"),
            source=NAME,
            grouping="weak",
            site=NAME,
            view=self.view,
            body_region=self.body_region,
            hardware=self.hardware,
        )


def find(tree: Tree) -> Tree | None:
    """The part of `tree` that lies like FracAtlas: its table, or its folders beside a table."""
    for top in tree.tops(TABLE):
        header = tree.text(f"{top}{TABLE}").partition("\n")[0].split(",")
        folders = tuple(f"{top}images/{name}/" for name in FOLDERS.values())
        if "fractured" in header or any(name.startswith(folders) for name in tree.files):
            return tree.under(top)
    return None


def open_fracatlas(tree: Tree, pseudonyms: Pseudonyms, *, weak_block: int) -> Source:
    """List the images that dataset.csv and the folders both know.

    Where the table and the folder contradict each other about a fracture, the label is unknown.

    Raises:
        DataError: a column is missing, or the annotations are not COCO.
        UnknownLabel: `fractured` is neither 0 nor 1, with its row.
    """
    held = {name: _folder(tree, name) for name in FOLDERS.values()}
    where = {name: folder for folder, files in held.items() for name in files}
    files = {name: held[folder][name] for name, folder in where.items()}
    twice = held[FOLDERS["0"]].keys() & held[FOLDERS["1"]].keys()
    table = read_table(tree.text(TABLE), ("image_id", "fractured", "hardware", *REGIONS, *VIEWS), TABLE)
    rows = {row["image_id"]: row for row in _checked(table)}
    boxes = _boxes(tree, files)
    statements, contradicted = {}, 0
    items: list[Item] = []
    for name in sorted(files):
        row = rows.get(name)
        agrees = row is not None and name not in twice and where[name] == FOLDERS[row["fractured"]]
        label = LABELS[row["fractured"]] if row is not None and agrees else UNKNOWN
        contradicted += not agrees
        items.append(_item(files[name], row or {}, weak_block))
        statements[pseudonym(name, pseudonyms)] = Statement(label, boxes.get(name, ()) if label == FRACTURE else ())
    names = [f"{name} {files[name].stamp()}" for name in sorted(files)]
    return Source(NAME, items, names, statements, contradicted)


def pseudonym(name: str, pseudonyms: Pseudonyms) -> str:
    """The image_id of the file `name` of the archive."""
    return pseudonyms.of("image", f"{NAME}:{name}")


def _checked(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    for number, row in enumerate(rows, start=2):
        if row["fractured"] not in LABELS:
            raise UnknownLabel(
                f"dataset.csv row {number}: fractured is not one of {', '.join(sorted(LABELS))}; nothing was taken in"
            )
    return rows


def _folder(tree: Tree, name: str) -> dict[str, File]:
    """The files that lie in images/`name` itself, by name."""
    top = f"images/{name}/"
    return {
        path[len(top) :]: file for path, file in tree.files.items() if path.startswith(top) and path.count("/") == 2
    }


def _item(file: File, row: dict[str, str], weak_block: int) -> FracAtlasFile:
    digits = "".join(ch for ch in PurePosixPath(file.name).stem if ch in "0123456789")
    regions = [name for name in REGIONS if row.get(name) == "1"]
    views = [name for name in VIEWS if row.get(name) == "1"]
    return FracAtlasFile(
        file=file,
        block=int(digits) // weak_block if digits else None,
        view=views[0] if len(views) == 1 else "unknown",
        body_region=("mixed" if len(regions) > 1 else regions[0]) if regions else "unknown",
        hardware=row.get("hardware") == "1",
    )


def _boxes(tree: Tree, files: Mapping[str, File]) -> dict[str, tuple[Box, ...]]:
    """Boxes by file name, in pixels of the turned image. Annotations of another size than the image are left out."""
    if ANNOTATIONS not in tree.files:
        return {}
    found: dict[str, list[Box]] = defaultdict(list)
    try:
        document = json.loads(tree.text(ANNOTATIONS))
        images = {image["id"]: image for image in document["images"]}
        for annotation in document["annotations"]:
            image = images[annotation["image_id"]]
            if (file := files.get(image["file_name"])) and (
                box := upright_box(_four(annotation["bbox"]), (image["width"], image["height"]), file)
            ):
                found[image["file_name"]].append(box)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{PurePosixPath(ANNOTATIONS).name}: not COCO annotations ({type(error).__name__})") from None
    return {name: tuple(boxes) for name, boxes in found.items()}


def _four(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    return x, y, width, height
