"""Where radiographs come from, as one table: the layouts that a folder or zip may have.

A source lists items without reading pixels; an item reads itself, in whatever process it is handed to. What a source
says about labels is checked whole before the first image is read. A new layout is a module with the two functions
that `Layout` names, and a row in LAYOUTS; what lies on other machines is fetched into a folder first (spool.py).
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from components.dataset import dicoms, fracatlas, grazpedwri, spool
from components.dataset.items import Source
from components.dataset.tree import Tree, plant
from components.errors import DataError
from components.radiograph.deidentify import Pseudonyms


class Open(Protocol):
    def __call__(self, tree: Tree, pseudonyms: Pseudonyms, *, weak_block: int) -> Source:
        """List what is there; raises DataError or UnknownLabel, before any image is read."""


@dataclass(frozen=True)
class Layout:
    """One way in which archives lie in folders.

    Attributes:
        find: the part of a tree that has this layout, or None.
        open: list it.
    """

    find: Callable[[Tree], Tree | None]
    open: Open


LAYOUTS = (
    Layout(fracatlas.find, fracatlas.open_fracatlas),
    Layout(grazpedwri.find, grazpedwri.open_grazpedwri),
    Layout(dicoms.find, dicoms.open_dicoms),  # the last: it takes any file for DICOM until its content says otherwise
)


def open_source(path: Path, pseudonyms: Pseudonyms, *, weak_block: int, may_be_empty: bool = False) -> Source:
    """Find out what lies at `path` and list it.

    Args:
        weak_block: where no patients are named, how many neighbouring image numbers stand in for one.
        may_be_empty: a folder with nothing in it is no error: an inbox on a quiet night.

    Raises:
        DataError: nothing there, or nothing in it.
        UnknownLabel: a label outside the vocabulary, with its row.
    """
    lost = spool.lost(path)
    if not path.is_dir() and not (path.is_file() and zipfile.is_zipfile(path)):
        raise DataError(
            "source: expected a folder or a .zip of DICOM files, or one in FracAtlas's or GRAZPEDWRI-DX's layout; "
            "found neither"
        )
    tree = plant(path / spool.FILES if spool.is_spool(path) else path)
    found, layout = next((part, layout) for layout in LAYOUTS if (part := layout.find(tree)) is not None)
    source = layout.open(found, pseudonyms, weak_block=weak_block)
    if not source.items and not source.statements and not lost and not may_be_empty:
        raise DataError("source: no files in it; nothing to take in")
    items = [*source.items, *(dicoms.DicomFile(nothing) for nothing in lost)]
    return replace(source, items=items, passed_over=Counter(tree.passed_over) + Counter(source.passed_over))
