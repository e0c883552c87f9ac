"""Step: put every patient on one side of the train / tune / calibrate / test line, for life.

A patient's first image decides, in order of arrival: nothing that comes later moves anybody.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.store import atomic_path
from components.errors import DataError, MissingPatient, PatientLeak
from components.params import Shares, Split

EXCLUDED = "excluded"


def split(*, cases: Path, features: Path, splits: Path, params: Split) -> None:
    """Write `splits`: the rows of `cases`, in order, plus role, group_id, near_duplicate_of and near_duplicate_bits.

    role: train, tune, calibrate, test; or excluded: a near-duplicate of an image in another role, or a test image
    whose truth was given by somebody who had seen the AI's answer. group_id: patients and near-duplicates that
    belong together; no group has two roles. near_duplicate_of: image_id of the nearest earlier near-duplicate in the
    same role, and by how many bits its hash differs.

    Raises:
        MissingPatient: rows without patient_id.
        DataError: rows without features.
        PatientLeak: a patient or a near-duplicate in two roles (a defect of this step).
    """
    table = pd.read_parquet(cases)
    if orphans := int(table["patient_id"].isna().sum()):
        raise MissingPatient(f"{cases}: {orphans} of {len(table)} images lack patient_id; fix `intake`")
    hashes = _hashes(table["image_id"], features)
    places = deal(table["patient_id"].tolist(), hashes, params)
    table["role"], table["group_id"] = places.roles, places.groups
    table["near_duplicate_of"] = [None if n is None else table["image_id"].iloc[n] for n in places.twins]
    far = [
        np.nan if n is None else float(np.bitwise_count(hashes[n] ^ code))
        for n, code in zip(places.twins, hashes, strict=True)
    ]
    table["near_duplicate_bits"] = far
    # After everybody has a place: a truth that arrives later must not move anybody else.
    table.loc[(table["role"] == "test") & table["ai_visible"], "role"] = EXCLUDED
    check(table, hashes, params)
    with atomic_path(splits) as draft:
        table.to_parquet(draft, index=False)


@dataclass
class Places:
    """One entry an image: its role, its group (a patient's pseudonym), its nearest earlier twin (a position)."""

    roles: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    twins: list[int | None] = field(default_factory=list)


def deal(patients: list[str], hashes: np.ndarray, params: Split) -> Places:
    """Place images in order of arrival.

    A new patient takes the role of an earlier near-duplicate of another patient (one person under two names), or
    else the bucket HMAC-SHA256(salt, patient) mod 100. An image that looks like one in another role is excluded.

    Args:
        hashes: (n,) uint64 perceptual hashes.
    """
    places = Places()
    homes: dict[str, str] = {}
    parents: dict[str, str] = {}
    standing = np.zeros(len(hashes), dtype=bool)  # images that sit in a role
    for n, patient in enumerate(patients):
        distances = np.bitwise_count(hashes[:n] ^ hashes[n])
        near = np.flatnonzero(standing[:n] & (distances <= params.near_duplicate_bits))
        if patient not in homes:
            homes[patient] = places.roles[near[0]] if len(near) else bucket(patient, params.salt, params.shares)
            parents[patient] = patient
        home = homes[patient]
        excluded = any(places.roles[twin] != home for twin in near)
        standing[n] = not excluded
        places.roles.append(EXCLUDED if excluded else home)
        places.twins.append(None if excluded or not len(near) else int(near[np.argmin(distances[near])]))
        for twin in [] if excluded else near:
            first, second = _root(parents, patients[twin]), _root(parents, patient)
            parents[second] = first
    places.groups = [_root(parents, patient) for patient in patients]
    return places


def bucket(patient: str, salt: str, shares: Shares) -> str:
    """The role of a patient nobody has seen: HMAC-SHA256(salt, patient) mod 100 against the cumulative shares."""
    number = int.from_bytes(hmac.digest(salt.encode(), patient.encode(), "sha256"), "big") % 100
    bounds = np.cumsum([shares.train, shares.tune, shares.calibrate, shares.test])
    return ("train", "tune", "calibrate", "test")[int(np.searchsorted(bounds, number, side="right"))]


def check(table: pd.DataFrame, hashes: np.ndarray, params: Split) -> None:
    """Prove the promise on the rows themselves, not on how they were made.

    Raises:
        PatientLeak: a patient, or a pair of near-duplicates, sits in two roles.
    """
    placed = table[table["role"] != EXCLUDED]
    torn = int((placed.groupby("patient_id")["role"].nunique() > 1).sum())
    if torn:
        raise PatientLeak(f"{torn} of {placed['patient_id'].nunique()} patients have images in two roles; report this")
    roles, codes = placed["role"].to_numpy(), hashes[placed.index.to_numpy()]
    for n in range(1, len(placed)):
        if np.any((np.bitwise_count(codes[:n] ^ codes[n]) <= params.near_duplicate_bits) & (roles[:n] != roles[n])):
            raise PatientLeak(f"image {placed['image_id'].iloc[n]} has a near-duplicate in another role; report this")


def _root(parents: dict[str, str], patient: str) -> str:
    while parents[patient] != patient:
        parents[patient] = parents[parents[patient]]
        patient = parents[patient]
    return patient


def _hashes(image_ids: pd.Series, features: Path) -> np.ndarray:
    parts = [pd.read_parquet(path, columns=["image_id", "phash"]) for path in sorted(features.glob("*.parquet"))]
    known = {} if not parts else pd.concat(parts).set_index("image_id")["phash"].to_dict()
    if missing := [image_id for image_id in image_ids if image_id not in known]:
        raise DataError(f"{features}: {len(missing)} of {len(image_ids)} images lack features; run `inspect`")
    return np.array([int(known[image_id], 16) for image_id in image_ids], dtype=np.uint64)
