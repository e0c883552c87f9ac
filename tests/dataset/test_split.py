"""Roles are for life, by patient, and look-alikes never straddle them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.split import EXCLUDED, bucket, check, deal, split
from components.errors import DataError, MissingPatient, PatientLeak
from components.params import Shares, Split

SHARES = Shares(train=55, tune=12, calibrate=13, test=20)
PARAMS = Split(salt="osteoflow", shares=SHARES, near_duplicate_bits=4)
FAR = [0x0, 0xFFFFFFFF, 0xFFFFFFFF00000000, 0xFFFF0000FFFF0000]  # 32 bits apart

# Few patients and few pictures, disturbed by up to three bits: look-alikes within and across patients are common.
images = st.lists(
    st.tuples(
        st.integers(0, 9).map(str),
        st.tuples(st.sampled_from(FAR), st.sets(st.integers(0, 63), max_size=3)).map(
            lambda made: made[0] ^ sum(1 << bit for bit in made[1])
        ),
    ),
    max_size=40,
)


def dealt(rows: list[tuple[str, int]]):
    return deal([patient for patient, _ in rows], np.array([code for _, code in rows], np.uint64), PARAMS)


def a_patient(role: str) -> str:
    """A patient whose bucket is `role`."""
    return next(name for name in map(str, range(99)) if bucket(name, "osteoflow", SHARES) == role)


@given(images, images)
@settings(deadline=None)
def test_patients_stay_put_when_the_archive_grows(before, later):
    """Whatever arrives later moves no image that was placed."""
    assert dealt(before + later).roles[: len(before)] == dealt(before).roles


@given(images)
@settings(deadline=None)
def test_a_patient_has_one_role(rows):
    homes: dict[str, set[str]] = {}
    for (patient, _), role in zip(rows, dealt(rows).roles, strict=True):
        homes.setdefault(patient, set()).add(role)

    assert all(len(roles - {EXCLUDED}) <= 1 for roles in homes.values())


@given(images)
@settings(deadline=None)
def test_near_duplicates_never_straddle_roles(rows):
    roles = dealt(rows).roles
    straddling = [
        (a, b)
        for a in range(len(rows))
        for b in range(a)
        if EXCLUDED not in (roles[a], roles[b]) and roles[a] != roles[b] and (rows[a][1] ^ rows[b][1]).bit_count() <= 4
    ]

    assert straddling == []


@given(images)
@settings(deadline=None)
def test_a_group_has_one_role(rows):
    places = dealt(rows)
    groups: dict[str, set[str]] = {}
    for group, role in zip(places.groups, places.roles, strict=True):
        groups.setdefault(group, set()).add(role)

    assert all(len(roles - {EXCLUDED}) <= 1 for roles in groups.values())


def test_the_buckets_meet_the_shares():
    """10,000 patients: each share within 1.5 percent points (four standard deviations are 2)."""
    counts = Counter(bucket(f"patient-{n}", "osteoflow", SHARES) for n in range(10_000))

    assert counts["train"] == pytest.approx(5500, abs=150)
    assert counts["tune"] == pytest.approx(1200, abs=150)
    assert counts["calibrate"] == pytest.approx(1300, abs=150)
    assert counts["test"] == pytest.approx(2000, abs=150)


def test_the_deal_is_pinned():
    """These five roles are a promise to archives that exist: a change here re-deals every patient."""
    assert [bucket(name, "osteoflow", SHARES) for name in "abcde"] == [
        "calibrate",
        "calibrate",
        "train",
        "train",
        "train",
    ]


def test_a_role_of_no_share_gets_nobody():
    shares = Shares(train=100, tune=0, calibrate=0, test=0)

    assert {bucket(str(n), "salt", shares) for n in range(300)} == {"train"}


def test_one_person_under_two_names_gets_one_role():
    """A new patient who looks like an earlier one follows them, whatever the bucket says."""
    patients = [str(n) for n in range(50)]
    places = deal(patients, np.zeros(50, np.uint64), PARAMS)

    assert set(places.roles) == {bucket("0", "osteoflow", SHARES)}
    assert set(places.groups) == {"0"}


def test_a_look_alike_of_another_role_is_excluded_and_nobody_moves():
    one, other = (
        next(n for n in map(str, range(99)) if bucket(n, "osteoflow", SHARES) == r) for r in ("test", "train")
    )
    places = deal([one, other, other], np.array([FAR[0], FAR[1], FAR[0]], np.uint64), PARAMS)

    assert places.roles == ["test", "train", EXCLUDED]


def test_twenty_thousand_images_take_seconds():
    codes = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    begin = time.process_time()
    deal([str(n // 2) for n in range(20_000)], codes, PARAMS)

    assert time.process_time() - begin < 20


def files(folder: Path, cases: pd.DataFrame, codes: list[int]) -> dict[str, Path]:
    (folder / "features").mkdir()
    cases.to_parquet(folder / "cases.parquet")
    hashes = [f"{code:016x}" for code in codes]
    pd.DataFrame({"image_id": cases["image_id"], "phash": hashes}).to_parquet(folder / "features" / "a.parquet")
    return {"cases": folder / "cases.parquet", "features": folder / "features", "splits": folder / "splits.parquet"}


def cases(patients: list[str | None]) -> pd.DataFrame:
    ids = [f"image-{n}" for n in range(len(patients))]
    return pd.DataFrame({"image_id": ids, "patient_id": patients, "ai_visible": False})


def test_a_truth_seen_with_the_ai_never_judges(tmp_path):
    """In role test the image is excluded; the patient's other image stays."""
    tested = a_patient("test")
    table = cases([tested, tested]).assign(ai_visible=[True, False])
    paths = files(tmp_path, table, FAR[:2])

    split(**paths, params=PARAMS)

    assert list(pd.read_parquet(paths["splits"])["role"]) == [EXCLUDED, "test"]


def test_a_late_truth_moves_nobody_who_followed(tmp_path):
    """A look-alike that followed into test stays there when the first image's truth turns out tainted."""
    tested = a_patient("test")
    table = cases([tested, "follower"]).assign(ai_visible=[True, False])
    paths = files(tmp_path, table, [0, 1])

    split(**paths, params=PARAMS)

    assert list(pd.read_parquet(paths["splits"])["role"]) == [EXCLUDED, "test"]


def test_an_image_without_a_patient_stops_the_split(tmp_path):
    paths = files(tmp_path, cases(["a", None]), FAR[:2])

    with pytest.raises(MissingPatient, match="1 of 2 images lack patient_id; fix `intake`"):
        split(**paths, params=PARAMS)


def test_images_without_features_name_the_step(tmp_path):
    paths = files(tmp_path, cases(["a"]), FAR[:1])
    (tmp_path / "features" / "a.parquet").unlink()

    with pytest.raises(DataError, match="1 of 1 images lack features; run `inspect`"):
        split(**paths, params=PARAMS)


@pytest.mark.parametrize(("patients", "codes"), [(["a", "a"], FAR[:2]), (["a", "b"], [0, 1])])
def test_a_leak_is_found_on_the_rows_themselves(patients, codes):
    table = cases(patients).assign(role=["train", "test"])

    with pytest.raises(PatientLeak):
        check(table, np.array(codes, np.uint64), PARAMS)
