"""Where radiographs come from: a folder or zip of DICOM files, or an archive in FracAtlas's layout.

A source lists items without reading pixels; an item reads itself, in whatever process it is handed to. What a source
says about labels is checked whole before the first image is read.
"""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from components.dataset.fracatlas import open_fracatlas
from components.dataset.items import Item, Source, Statement, require
from components.errors import DataError, UnknownLabel
from components.radiograph import dicom
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph
from components.radiograph.labels import VALUES, Box, to_value

LABELS_FILE = "labels.csv"
LABELS_COLUMNS = ("sop_instance_uid", "label", "boxes")
BOXES = TypeAdapter(tuple[Box, ...])
MAX_TABLE = 64 * 1024 * 1024  # bytes of a labels.csv in a zip


def open_source(path: Path, pseudonyms: Pseudonyms, *, weak_block: int, may_be_empty: bool = False) -> Source:
    """Find out what lies at `path` and list it.

    Args:
        weak_block: where no patients are named, how many neighbouring image numbers stand in for one.
        may_be_empty: a folder with nothing in it is no error: an inbox on a quiet night.

    Raises:
        DataError: nothing there, or nothing in it.
        UnknownLabel: a label outside the vocabulary, with its row.
    """
    if (path / "dataset.csv").is_file() and (path / "images").is_dir():
        source = open_fracatlas(path, pseudonyms, weak_block=weak_block)
    elif path.is_dir():
        source = _open_folder(path, pseudonyms)
    elif path.is_file() and zipfile.is_zipfile(path):
        source = _open_zip(path, pseudonyms)
    else:
        raise DataError("source: expected a folder or a .zip of DICOM files, or a FracAtlas folder; found neither")
    if not source.items and not source.statements and not may_be_empty:
        raise DataError("source: no files in it; nothing to take in")
    return source


@dataclass(frozen=True)
class DicomFile:
    path: Path

    def size(self) -> int:
        return self.path.stat().st_size

    def data(self) -> bytes:
        return self.path.read_bytes()

    def image_id(self, data: bytes, pseudonyms: Pseudonyms) -> str | None:
        uid = dicom.sop_instance_uid(data)
        return dicom.image_id(uid, pseudonyms) if uid else None

    def read(self, data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int) -> Radiograph:
        return dicom.read(data, pseudonyms, max_megapixels=max_megapixels)


@dataclass(frozen=True)
class ZippedDicom(DicomFile):
    """A member of a zip at `path`. Read in memory and never extracted, so its name leads nowhere."""

    member: str
    bytes_: int

    def size(self) -> int:
        return self.bytes_

    def data(self) -> bytes:
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            return file.read(self.bytes_ + 1)[: self.bytes_]  # what the directory promised, however much there is


def _open_folder(folder: Path, pseudonyms: Pseudonyms) -> Source:
    """Every regular file below `folder`, by content and not by name; links are not followed."""
    root = folder.resolve()
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    table = root / LABELS_FILE
    items: list[Item] = [DicomFile(path) for path in files if path != table]
    names = [f"{path.relative_to(root)} {path.stat().st_size}" for path in files if path != table]
    text = table.read_text(encoding="utf-8-sig") if table in files else None
    return Source("archive", items, names, {} if text is None else read_labels(text, pseudonyms))


def _open_zip(path: Path, pseudonyms: Pseudonyms) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted((e for e in archive.infolist() if not e.is_dir()), key=lambda entry: entry.filename)
            tables = [e.filename for e in entries if e.filename.rpartition("/")[2] == LABELS_FILE]
            if len(tables) > 1:
                raise DataError(f"source: {len(tables)} files {LABELS_FILE} in the zip, expected at most one")
            if tables and archive.getinfo(tables[0]).file_size > MAX_TABLE:
                raise DataError(f"source: {LABELS_FILE} is larger than {MAX_TABLE >> 20} MB")
            text = archive.read(tables[0]).decode("utf-8-sig") if tables else None
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"source: the zip cannot be read ({type(error).__name__}); send it again") from None
    members = [entry for entry in entries if entry.filename not in tables]
    items: list[Item] = [ZippedDicom(path.resolve(), entry.filename, entry.file_size) for entry in members]
    names = [f"{entry.filename} {entry.CRC}" for entry in members]
    return Source("archive", items, names, {} if text is None else read_labels(text, pseudonyms))


def read_labels(text: str, pseudonyms: Pseudonyms) -> dict[str, Statement]:
    """The statements of a labels.csv: sop_instance_uid, label, boxes (JSON list of {x, y, width, height}, or empty).

    Raises:
        DataError: a column is missing, a box is malformed, or one image has two different rows.
        UnknownLabel: a label outside the vocabulary, with its row.
    """
    table = csv.DictReader(text.splitlines())
    require(table.fieldnames, LABELS_COLUMNS[:2], LABELS_FILE)
    statements: dict[str, Statement] = {}
    for number, row in enumerate(table, start=2):
        label = (row["label"] or "").strip()
        try:
            to_value(label)
            boxes = BOXES.validate_python(json.loads((row.get("boxes") or "").strip() or "[]"))
        except UnknownLabel:
            raise UnknownLabel(
                f"{LABELS_FILE} row {number}: label {label[:40]!r} is not one of {', '.join(VALUES)}; "
                "nothing was taken in"
            ) from None
        except (ValueError, ValidationError):
            raise DataError(
                f"{LABELS_FILE} row {number}: boxes are no JSON list of {{x, y, width, height}} in pixels"
            ) from None
        image_id = dicom.image_id((row["sop_instance_uid"] or "").strip(), pseudonyms)
        said = Statement(label, boxes)
        if statements.setdefault(image_id, said) != said:
            raise DataError(f"{LABELS_FILE} row {number}: a second, different row about one image; keep one")
    return statements
