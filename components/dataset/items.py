"""What a source offers: items that read themselves, and what it says about them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from components.dataset.tree import File
from components.errors import DataError
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph
from components.radiograph.labels import UNKNOWN, Box


@dataclass(frozen=True)
class Statement:
    """What a source says about one image: boxes in pixels of the stored image."""

    label: str = UNKNOWN
    boxes: tuple[Box, ...] = ()


class Item(Protocol):
    """One file of a source; it travels between processes and holds no pixels."""

    @property
    def file(self) -> File:
        """Where its bytes are."""

    def image_id(self, data: bytes, pseudonyms: Pseudonyms) -> str | None:
        """The image's pseudonym, without decoding pixels; None when the file does not say."""

    def read(self, data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int) -> Radiograph:
        """Decode; raises UnreadableImage or MissingPatient."""


@dataclass(frozen=True)
class Source:
    """What there is to take in.

    Attributes:
        reader: who says the labels, as it stands in label events.
        names: one stable text an item, to tell sources apart; never stored.
        statements: by image_id; images without one were not spoken about.
        disagreements: images about which the source contradicts itself; their statement is `unknown`.
        passed_over: what lies there and is no file, by what it is.
    """

    reader: str
    items: list[Item]
    names: list[str]
    statements: Mapping[str, Statement] = field(default_factory=dict)
    disagreements: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)


def read_table(text: str, wanted: Iterable[str], name: str) -> list[dict[str, str]]:
    """The rows of a CSV table; a cell that its row does not reach is empty.

    Raises:
        DataError: it is no CSV, or columns are missing.
    """
    try:
        if "\0" in text:
            raise csv.Error("a NUL character")
        table = csv.DictReader(text.splitlines(), restval="")
        found, rows = table.fieldnames or (), [{k: v for k, v in row.items() if k is not None} for row in table]
    except csv.Error as error:
        raise DataError(f"{name}: not a table ({error}); nothing was done") from None
    if missing := [column for column in wanted if column not in found]:
        raise DataError(f"{name}: column(s) {', '.join(missing)} missing; nothing was done")
    return rows
