"""Step: put every patient on one side of the train / tune / calibrate / test line, for life.

A patient's first image decides, in order of arrival: nothing that comes later moves anybody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.matches import read_matches
from components.dataset.merges import one_person, read_merges
from components.dataset.places import EXCLUDED, Merge, deal, divided
from components.dataset.rows import extend_rows, read_rows
from components.dataset.withdrawals import read_withdrawals, withdrawn
from components.errors import MissingPatient, PatientLeak
from components.params import Split

NEEDED = ["image_id", "patient_id", "ai_visible"]  # of `cases`; the rest is handed on unread


def split(*, cases: Path, matches: Path, merges: Path, withdrawals: Path, splits: Path, params: Split) -> None:
    """Write `splits`, a file a shard: the rows of `cases`, in order, plus what this step says of them.

    role: train, tune, calibrate, test; or excluded: a near-duplicate of an image in another role, of a patient who
    turned out to be somebody in another role, a test image whose truth was given by somebody who had seen the AI's
    answer, or withdrawn. group_id: patients and near-duplicates that belong together; no group has two roles.
    picture_id: the earliest image_id of the images that are one picture, whatever their roles. near_duplicate_of,
    likeness: the earlier image most like this one, and how much (to 1). withdrawn: of a withdrawn patient, or a copy of
    such a picture.

    Raises:
        MissingPatient: rows without patient_id.
        DataError: rows that `match` has not seen, or a damaged log of merges or withdrawals.
        PatientLeak: a patient or a near-duplicate in two roles (a defect of this step).
    """
    table = read_rows(cases, NEEDED)
    if orphans := int(table["patient_id"].isna().sum()):
        raise MissingPatient(f"{cases}: {orphans} of {len(table)} images lack patient_id; fix `intake`")
    pairs, alike = read_matches(matches, table["image_id"])
    same = read_merges(merges)
    table = seated(table, pairs, params, same, one_person(read_withdrawals(withdrawals), same))
    ids = table["image_id"].to_numpy(dtype=object)
    table["near_duplicate_of"], table["likeness"] = _closest(ids, pairs, alike)
    check(table, pairs)
    extend_rows(splits, table.drop(columns=NEEDED), of=cases)


def seated(
    table: pd.DataFrame, pairs: np.ndarray, params: Split, same: Sequence[Merge], gone: Collection[str]
) -> pd.DataFrame:
    """`table` with role, group_id, picture_id and withdrawn.

    Args:
        table: NEEDED.
        pairs: (m, 2) positions of near-duplicates.
        same: which patients are one person, in the order in which it was found out.
        gone: patients who were withdrawn, under every name.
    """
    table = table.copy()
    table["role"], table["group_id"] = deal(table["patient_id"].tolist(), pairs, params, same)
    table["picture_id"] = table["image_id"].to_numpy(dtype=object)[_pictures(len(table), pairs)]
    # After everybody has a place: a truth or a withdrawal that arrives later must not move anybody else.
    table.loc[(table["role"] == "test") & table["ai_visible"], "role"] = EXCLUDED
    table["withdrawn"] = withdrawn(table["patient_id"], table["picture_id"], gone)
    table.loc[table["withdrawn"], "role"] = EXCLUDED
    return table


def check(table: pd.DataFrame, pairs: np.ndarray) -> None:
    """Prove the promise on the rows themselves, not on how they were made.

    Raises:
        PatientLeak: a patient, a group, or a pair of near-duplicates sits in two roles.
    """
    placed = table[table["role"] != EXCLUDED]
    for column, said in (("patient_id", "patients"), ("group_id", "groups")):
        torn = len(divided(placed[column], placed["role"]))
        if torn:
            raise PatientLeak(f"{torn} of {placed[column].nunique()} {said} have images in two roles; report this")
    roles = table["role"].to_numpy(dtype=object)
    one, other = roles[pairs[:, 0]], roles[pairs[:, 1]]
    torn = int(((one != other) & (one != EXCLUDED) & (other != EXCLUDED)).sum())
    if torn:
        raise PatientLeak(f"{torn} of {len(pairs)} pairs of near-duplicates stand in two roles; report this")


def _pictures(n: int, pairs: np.ndarray) -> np.ndarray:
    """(n,) for each image the position of the earliest one that is, by a chain of near-duplicates, the same picture."""
    parents = {position: position for position in np.unique(pairs).tolist()}

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = parents[parents[position]]
            position = parents[position]
        return position

    for one, other in pairs.tolist():
        first, second = sorted((root(one), root(other)))
        parents[second] = first
    first_of = np.arange(n)
    first_of[list(parents)] = [root(position) for position in parents]
    return first_of


def _closest(ids: np.ndarray, pairs: np.ndarray, alike: np.ndarray) -> tuple[list[str | None], np.ndarray]:
    """For each image the earlier near-duplicate that is most like it, and how much."""
    near: list[str | None] = [None] * len(ids)
    far = np.full(len(ids), np.nan)
    for (one, other), value in zip(pairs.tolist(), alike.tolist(), strict=True):
        if not far[other] >= value:
            near[other], far[other] = ids[one], value
    return near, far
