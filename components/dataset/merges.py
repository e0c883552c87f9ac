"""The log of merged identities: which pseudonyms turned out to be one person. Append-only, small, in git.

A row says when it became known, in images that had arrived, so that the split can replay history: nobody who was placed
before is moved by it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from components.dataset.places import Merge
from components.dataset.store import atomic_path
from components.errors import DataError

COLUMNS = ("after_images", "patient_id", "same_as")
PSEUDONYM = re.compile(r"[0-9a-f]{20}")


def read_merges(path: Path) -> list[Merge]:
    """The log, oldest first.

    Raises:
        DataError: it is missing, has other columns, a row is no merge of two pseudonyms, or rows are out of order;
            a row is named by its number alone: it might hold what is no pseudonym.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}); run `git checkout -- {path}`") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise DataError(f"{path}: the first line is not {','.join(COLUMNS)}; run `git checkout -- {path}`")
    merges: list[Merge] = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 3 or not row[0].isdecimal() or not all(PSEUDONYM.fullmatch(name) for name in row[1:]):
            raise DataError(
                f"{path} row {number}: expected a count and two pseudonyms; record merges with "
                "`osteoflow data merge-patients`, never by hand"
            )
        merge = Merge(int(row[0]), row[1], row[2])
        if merges and merge.after < merges[-1].after:
            raise DataError(f"{path} row {number}: out of order; the log only grows at its end")
        merges.append(merge)
    return merges


def one_person(patients: Iterable[str], merges: Sequence[Merge]) -> set[str]:
    """These pseudonyms, and all that are the same persons, directly or by a chain of merges."""
    found = set(patients)
    pairs = [{merge.patient, merge.other} for merge in merges]
    while more := {name for pair in pairs if pair & found for name in pair} - found:
        found |= more
    return found


def record_merges(path: Path, pairs: Iterable[tuple[str, str]], *, after: int) -> int:
    """Append the pairs of pseudonyms that the log does not say already, directly or by a chain; return how many.

    Args:
        after: images in the archive now.

    Raises:
        DataError: the log is damaged, or knows of more images than there are.
    """
    merges = read_merges(path)
    if merges and after < merges[-1].after:
        raise DataError(f"{path}: a merge was recorded after {merges[-1].after} images, here are {after}; pull first")
    person: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := person.get(name, name)) != name:
            name = above
        return name

    for merge in merges:
        person[root(merge.other)] = root(merge.patient)
    added: list[Merge] = []
    for one, other in pairs:
        if root(one) != root(other):
            added.append(Merge(after, one, other))
            person[root(other)] = root(one)
    lines = [f"{merge.after},{merge.patient},{merge.other}\n" for merge in added]
    if lines:
        with atomic_path(path) as draft:
            draft.write_text(path.read_text(encoding="utf-8") + "".join(lines), encoding="utf-8")
    return len(added)
