"""The layout of GRAZPEDWRI-DX: dataset.csv, 16-bit PNG named by `filestem`, YOLO boxes in folders called labels.

The archive comes as four zips of images and one of annotations; wherever below one folder they are unpacked, the
stem of a file's name is what ties them together. Patients are real and named by number; a study is a patient's visit.

Source: Nagy et al., Scientific Data 9, 222 (2022); figshare 14825193. Columns: filestem, patient_id, study_number,
gender, age (years), laterality (L, R), projection (1 AP, 2 lateral, 3 oblique), fracture_visible, metal and others;
a flag is 1 or empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from components.dataset.boxes import upright_box, upright_size
from components.dataset.items import Item, Source, Statement, read_table
from components.dataset.tree import SECOND, File, Tree
from components.errors import DataError, MissingPatient, UnknownLabel
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph
from components.radiograph.labels import FRACTURE, NO_FRACTURE, UNKNOWN, Box
from components.radiograph.raster import read_raster

NAME = "grazpedwri"
TABLE = "dataset.csv"
CLASSES_FILE = "meta.yaml"
COLUMNS = ("filestem", "patient_id", "study_number", "gender", "age", "laterality", "projection", "fracture_visible")
CLASSES = ("boneanomaly", "bonelesion", "foreignbody", "fracture", "metal", "periostealreaction", "pronatorsign",
           "softtissue", "text")  # fmt: skip
VIEWS = {"1": "frontal", "2": "lateral", "3": "oblique"}
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class GrazFile:
    """One image and its row of dataset.csv.

    Attributes:
        patient: the archive's patient number, None where no row names one.
        study: the patient's visit.
        meta: what else the row says, as fields of ImageMeta.
    """

    file: File
    patient: str | None
    study: str
    meta: tuple[tuple[str, Any], ...]

    def image_id(self, data: bytes, pseudonyms: Pseudonyms) -> str:
        return pseudonym(PurePosixPath(self.file.name).stem, pseudonyms)

    def read(self, data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int) -> Radiograph:
        """Decode.

        Raises:
            MissingPatient: no row of dataset.csv names its patient.
            UnreadableImage: see `read_raster`.
        """
        if self.patient is None:
            raise MissingPatient(f"{TABLE}: no row with a patient for an image")
        raster = read_raster(data, max_megapixels=max_megapixels)
        return Radiograph.plain(
            raster.pixels,
            raster.bits_stored,
            image_id=self.image_id(data, pseudonyms),
            patient_id=pseudonyms.of("patient", f"{NAME}:{self.patient}"),
            study_id=pseudonyms.of("study", f"{NAME}:{self.patient}:{self.study}"),
            source=NAME,
            grouping="patient",
            site=NAME,
            body_region="wrist",
            **dict(self.meta),
        )


def find(tree: Tree) -> Tree | None:
    """The part of `tree` that lies like GRAZPEDWRI-DX: a dataset.csv with a column `filestem`, and all below it."""
    for top in tree.tops(TABLE):
        if "filestem" in tree.text(f"{top}{TABLE}").partition("\n")[0].replace('"', "").strip().split(","):
            return tree.under(top)
    return None


def open_grazpedwri(tree: Tree, pseudonyms: Pseudonyms, *, weak_block: int) -> Source:
    """List the images, with what table and boxes say.

    A fracture is what the table calls visible. Unknown is an image whose table and boxes contradict each other, whose
    diagnosis was uncertain, or with a classified fracture that nobody saw in it: none of them is a clean negative.

    Raises:
        DataError: a column is missing, a row is there twice, or a line of boxes is malformed.
        UnknownLabel: `fracture_visible` is neither 1, 0 nor empty, or a box's class is not the archive's.
    """
    rows = _rows(tree.text(TABLE))
    classes = _classes(tree)
    notes = {PurePosixPath(name).stem: name for name in sorted(tree.files, reverse=True) if _is_note(name)}
    pictures = [name for name in sorted(tree.files, reverse=True) if PurePosixPath(name).suffix.lower() in IMAGES]
    files = {PurePosixPath(name).stem: tree.files[name] for name in pictures}
    statements, contradicted = {}, 0
    items: list[Item] = []
    for stem in sorted(files):
        row = rows.get(stem, {})
        boxes = _boxes(tree.text(notes[stem]), classes, files[stem]) if stem in notes else {}
        seen, drawn = _flag(row, "fracture_visible"), "fracture" in boxes
        unsure = not row or _flag(row, "diagnosis_uncertain") or (bool(row.get("ao_classification")) and not seen)
        contradicted += bool(row) and drawn and not seen
        label = FRACTURE if seen else UNKNOWN if drawn or unsure else NO_FRACTURE
        items.append(_item(files[stem], row, metal=_flag(row, "metal") or "metal" in boxes))
        found = tuple(box for box in boxes.get("fracture", ()) if box)
        statements[pseudonym(stem, pseudonyms)] = Statement(label, found if label == FRACTURE else ())
    names = [f"{stem} {files[stem].stamp()}" for stem in sorted(files)]
    passed = {SECOND: len(pictures) - len(files)} if len(pictures) > len(files) else {}
    return Source(NAME, items, names, statements, contradicted, passed)


def pseudonym(stem: str, pseudonyms: Pseudonyms) -> str:
    """The image_id of the image `stem` of the archive."""
    return pseudonyms.of("image", f"{NAME}:{stem}")


def _rows(text: str) -> dict[str, dict[str, str]]:
    table = read_table(text, COLUMNS, TABLE)
    rows: dict[str, dict[str, str]] = {}
    for number, row in enumerate(table, start=2):
        if (row["fracture_visible"] or "") not in ("", "0", "1", "0.0", "1.0"):
            raise UnknownLabel(
                f"{TABLE} row {number}: fracture_visible is neither 1, 0 nor empty; nothing was taken in"
            )
        if rows.setdefault(row["filestem"], row) is not row:
            raise DataError(f"{TABLE} row {number}: a second row about one image; keep one")
    return rows


def _classes(tree: Tree) -> tuple[str, ...]:
    """The names of the YOLO classes, in order: the archive's meta.yaml, or those it is known to have."""
    tops = tree.tops(CLASSES_FILE)
    if not tops:
        return CLASSES
    try:
        names = yaml.safe_load(tree.text(f"{tops[0]}{CLASSES_FILE}"))["names"]
        return tuple(str(name) for name in (names.values() if isinstance(names, dict) else names))
    except (yaml.YAMLError, KeyError, TypeError):
        raise DataError(f"{CLASSES_FILE}: no list of class names; nothing was taken in") from None


def _is_note(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix == ".txt" and "labels" in path.parts[:-1]


def _boxes(text: str, classes: tuple[str, ...], file: File) -> dict[str, list[Box | None]]:
    """Boxes by class, in pixels; None where a box lies outside the image or the image cannot be measured.

    A line is: class number, then centre x, centre y, width and height as shares of the image.
    """
    found: dict[str, list[Box | None]] = {}
    size = None
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            number, *shares = line.split()
            across, down, wide, high = map(float, shares)
            name = classes[int(number)] if int(number) >= 0 and math.isfinite(across + down + wide + high) else ""
        except (ValueError, IndexError):
            name = ""
        if not name:
            raise UnknownLabel(
                f"labels: a line that is no class from 0 to {len(classes) - 1} and four numbers; nothing was taken in"
            )
        size = size or upright_size(file) or (0, 0)
        bbox = ((across - wide / 2) * size[0], (down - high / 2) * size[1], wide * size[0], high * size[1])
        found.setdefault(name, []).append(upright_box(bbox, size, file) if size != (0, 0) else None)
    return found


def _item(file: File, row: dict[str, str], *, metal: bool) -> GrazFile:
    meta = {
        "device": (row.get("device_manufacturer") or "").strip()[:64] or "unknown",
        "view": VIEWS.get(_whole(row.get("projection")), "unknown"),
        "laterality": row["laterality"] if row.get("laterality") in ("L", "R") else None,
        "sex": row["gender"] if row.get("gender") in ("F", "M") else None,
        "age_years": int(age) if (age := _number(row.get("age"))) is not None and 0 <= age <= 130 else None,
        "pixel_spacing_mm": spacing if (spacing := _number(row.get("pixel_spacing"))) and spacing > 0 else None,
        "hardware": metal if row else None,
    }
    return GrazFile(file, row.get("patient_id") or None, row.get("study_number") or "", tuple(meta.items()))


def _flag(row: dict[str, str], column: str) -> bool:
    return _number(row.get(column)) == 1


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(text: str | None) -> str:
    number = _number(text)
    return str(int(number)) if number is not None else ""
