"""The log of withdrawn patients, by pseudonym: whose images no build may use any more. Append-only, small, in git."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.listing import read_listing
from components.dataset.merges import PSEUDONYM
from components.dataset.store import atomic_path
from components.errors import DataError

HEAD = "patient_id"


def read_withdrawals(path: Path) -> list[str]:
    """The pseudonyms, oldest withdrawal first.

    Raises:
        DataError: as `read_listing`.
    """
    written = "a pseudonym; record withdrawals with `osteoflow trace patient --withdraw`, never by hand"
    return read_listing(path, HEAD, PSEUDONYM, written)


def record_withdrawals(path: Path, patients: Iterable[str]) -> int:
    """Append the pseudonyms that the log does not hold; return how many.

    Raises:
        DataError: the log is missing or damaged, or one of them is no pseudonym.
    """
    known = read_withdrawals(path)
    new = [name for name in dict.fromkeys(patients) if name not in known]
    if not all(PSEUDONYM.fullmatch(name) for name in new):
        raise DataError(f"{path}: a name that is no pseudonym of a patient; nothing was recorded")
    if new:
        with atomic_path(path) as draft:
            draft.write_text("\n".join([HEAD, *known, *new]) + "\n", encoding="utf-8")
    return len(new)


def withdrawn(patients: pd.Series, pictures: pd.Series, persons: Collection[str]) -> np.ndarray:
    """Which images are withdrawn: those of `persons`, and every other filing of one of these pictures.

    A copy under another pseudonym shows the same body, so it goes too; the other images of that pseudonym stay. One
    picture in common does not prove that two pseudonyms are one person; a merge says so, and then all of them go.

    Args:
        patients: (n,) pseudonyms. pictures: (n,) what the images are filings of, see `split`.
        persons: all pseudonyms of everybody who is withdrawn.

    Returns:
        (n,) bool.
    """
    theirs = patients.isin(set(persons))
    return pictures.isin(set(pictures[theirs])).to_numpy()
