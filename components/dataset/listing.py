"""A log of names in git: one column with a head, a name a row. Small, and written by commands, never by hand."""

from __future__ import annotations

import re
from pathlib import Path

from components.errors import DataError


def read_listing(path: Path, head: str, name: re.Pattern[str], expected: str) -> list[str]:
    """The names of the log at `path`, in order.

    Args:
        head: its first line.
        name: what every other line matches as a whole.
        expected: what such a name is and which command writes it, for whoever reads the error.

    Raises:
        DataError: the log is missing or damaged; a row is named by its number alone: it might hold anything.
    """
    try:
        first, *rows = path.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}); run `git checkout -- {path}`") from None
    if first != head:
        raise DataError(f"{path}: the first line is not {head}; run `git checkout -- {path}`")
    for number, row in enumerate(rows, start=2):
        if not name.fullmatch(row):
            raise DataError(f"{path} row {number}: expected {expected}")
    return rows
