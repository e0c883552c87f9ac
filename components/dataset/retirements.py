"""The log of retired test patients: looks have worn them out, and no model is judged on them any more. Small, in git.

A refresh retires them, in the ledger and signed (promotion/testset.py). Stages know no ledger: here they read the same,
so that a report covers the images that the gate decides on. Their role stays test for life: no model learns from them.

A patient stands here as in the ledger, as 16 hex characters of a SHA-256 over the pseudonym.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from components.dataset.listing import read_listing
from components.dataset.store import atomic_path

HEAD = "patient_sha256"
MARK = re.compile(r"[0-9a-f]{16}")


def marks(patients: Iterable[str]) -> list[str]:
    """Each patient once, as log and ledger name them, sorted."""
    return sorted({hashlib.sha256(str(patient).encode()).hexdigest()[:16] for patient in patients})


def read_retirements(path: Path) -> frozenset[str]:
    """The marks of everybody who is retired.

    Raises:
        DataError: as `read_listing`.
    """
    written = "16 hex characters; `osteoflow testset refresh` writes this log, never a hand"
    return frozenset(read_listing(path, HEAD, MARK, written))


def write_retirements(path: Path, retired: Collection[str]) -> None:
    """Replace the log by these marks, sorted: the same refreshes are the same bytes, whoever writes them down."""
    with atomic_path(path) as draft:
        draft.write_text("\n".join([HEAD, *sorted(retired)]) + "\n", encoding="utf-8")


def touched(table: pd.DataFrame, patients: Collection[str]) -> pd.Series:
    """(n,) bool: rows of these patients, or of whoever is joined to one of them by a merge or a near-duplicate.

    Args:
        table: (n rows) with patient_id, and group_id where the split has joined some.
        patients: their marks.
    """
    theirs = table["patient_id"].map(lambda patient: marks([patient])[0] in patients).astype(bool)
    if "group_id" not in table:
        return theirs
    # The patient a group is named after may have been withdrawn since, and have no row here.
    named = table["group_id"].map(lambda patient: marks([patient])[0] in patients).astype(bool)
    return (theirs | named).groupby(table["group_id"]).transform("any")
