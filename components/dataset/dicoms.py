"""DICOM files in any folders, and a labels.csv beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from components.dataset.items import Source, Statement, read_table
from components.dataset.tree import File, Tree
from components.errors import DataError, UnknownLabel
from components.radiograph import dicom
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph
from components.radiograph.labels import VALUES, Box, to_value

NAME = "archive"
LABELS_FILE = "labels.csv"
LABELS_COLUMNS = ("sop_instance_uid", "label", "boxes")
BOXES = TypeAdapter(tuple[Box, ...])


@dataclass(frozen=True)
class DicomFile:
    """A file that is taken for DICOM by its content, whatever its name is."""

    file: File

    def image_id(self, data: bytes, pseudonyms: Pseudonyms) -> str | None:
        uid = dicom.sop_instance_uid(data)
        return dicom.image_id(uid, pseudonyms) if uid else None

    def read(self, data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int) -> Radiograph:
        return dicom.read(data, pseudonyms, max_megapixels=max_megapixels)


def find(tree: Tree) -> Tree | None:
    """Any files at all may be DICOM files."""
    return tree


def open_dicoms(tree: Tree, pseudonyms: Pseudonyms, *, weak_block: int) -> Source:
    """Every file is an item; labels.csv, at most one and in any folder, says what they show.

    Raises:
        DataError: two labels.csv, or one that cannot be read.
        UnknownLabel: a label outside the vocabulary, with its row.
    """
    tables = [f"{top}{LABELS_FILE}" for top in tree.tops(LABELS_FILE)]
    if len(tables) > 1:
        raise DataError(f"source: {len(tables)} files {LABELS_FILE} in it, expected at most one")
    files: Mapping[str, File] = {name: file for name, file in tree.files.items() if name not in tables}
    statements = read_labels(tree.text(tables[0]), pseudonyms) if tables else {}
    names = [f"{name} {file.stamp()}" for name, file in files.items()]
    return Source(NAME, [DicomFile(file) for file in files.values()], names, statements)


def read_labels(text: str, pseudonyms: Pseudonyms) -> dict[str, Statement]:
    """The statements of a labels.csv: sop_instance_uid, label, boxes (JSON list of {x, y, width, height}, or empty).

    Raises:
        DataError: a column is missing, a box is malformed, or one image has two different rows.
        UnknownLabel: a label outside the vocabulary, with its row.
    """
    table = read_table(text, LABELS_COLUMNS[:2], LABELS_FILE)
    statements: dict[str, Statement] = {}
    for number, row in enumerate(table, start=2):
        label = row["label"].strip()
        try:
            to_value(label)
            boxes = BOXES.validate_python(json.loads(row.get("boxes", "").strip() or "[]"))
        except UnknownLabel:
            raise UnknownLabel(
                f"{LABELS_FILE} row {number}: the label is not one of {', '.join(VALUES)}; nothing was taken in"
            ) from None
        except (ValueError, ValidationError):
            raise DataError(
                f"{LABELS_FILE} row {number}: boxes are no JSON list of {{x, y, width, height}} in pixels"
            ) from None
        image_id = dicom.image_id(row["sop_instance_uid"].strip(), pseudonyms)
        said = Statement(label, boxes)
        if statements.setdefault(image_id, said) != said:
            raise DataError(f"{LABELS_FILE} row {number}: a second, different row about one image; keep one")
    return statements
