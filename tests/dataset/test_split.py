"""The step: roles by patient, one picture in one role, and what the rows say about it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.dataset.keys import write_keyed
from components.dataset.match import match
from components.dataset.matches import read_matches
from components.dataset.places import EXCLUDED, bucket
from components.dataset.rows import write_rows
from components.dataset.split import check, split
from components.errors import DataError, MissingPatient, PatientLeak
from components.params import Match, Shares, Split
from components.radiograph.likeness import SIDE

SHARES = Shares(train=55, tune=12, calibrate=13, test=20)
PARAMS = Split(salt="osteoflow", shares=SHARES)
NONE = np.empty((0, 2), np.int64)


def a_patient(role: str) -> str:
    """A patient whose bucket is `role`."""
    return next(name for name in map(str, range(99)) if bucket(name, "osteoflow", SHARES) == role)


def picture(number: int) -> np.ndarray:
    """(SIDE, SIDE) uint8: clouds, different for every number."""
    noise = np.random.default_rng(number).normal(size=(SIDE, SIDE)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def files(folder: Path, cases: pd.DataFrame, codes: list[int], pictures: list[int]) -> dict[str, Path]:
    """Two shards, matched; `codes` are perceptual hashes."""
    (folder / "features").mkdir()
    write_rows(folder / "cases", cases)
    features = pa.table(
        {
            "image_id": cases["image_id"],
            "phash": [f"{code:016x}" for code in codes],
            "thumbnail": [picture(number).tobytes() for number in pictures],
        }
    )
    write_keyed(folder / "features" / "a.parquet", features[:2], "a")
    write_keyed(folder / "features" / "b.parquet", features[2:], "b")
    match(features=folder / "features", matches=folder / "matches", params=Match(bits=12, likeness=0.97))
    (folder / "merges.csv").write_text("after_images,patient_id,same_as\n")
    (folder / "withdrawals.csv").write_text("patient_id\n")
    return {
        "cases": folder / "cases",
        "matches": folder / "matches",
        "merges": folder / "merges.csv",
        "withdrawals": folder / "withdrawals.csv",
        "splits": folder / "splits",
    }


def cases(patients: list[str | None]) -> pd.DataFrame:
    ids = [f"image-{n}" for n in range(len(patients))]
    return pd.DataFrame({"image_id": ids, "patient_id": patients, "ai_visible": False, "shard": "000001-a-0000"})


def test_only_a_picture_that_is_the_same_is_a_near_duplicate(tmp_path):
    """The hash proposes the first three; two of them are one picture. The fourth is the same, but no hash says so."""
    table = cases(["a", "b", "c", "d"])
    paths = files(tmp_path, table, [0, 0b111, 0b11, 2**40 - 1], [1, 2, 1, 1])
    pairs, alike = read_matches(paths["matches"], table["image_id"])

    assert pairs.tolist() == [[0, 2]]
    assert alike[0] == pytest.approx(1.0, abs=1e-3)


def test_a_row_names_its_picture_and_the_image_it_repeats(tmp_path):
    tested = a_patient("test")
    paths = files(tmp_path, cases([tested, "a", "b", "b"]), [0, 1, 3, 2**40 - 1], [1, 1, 2, 1])

    split(**paths, params=PARAMS)
    rows = pd.read_parquet(paths["splits"])

    assert list(rows["near_duplicate_of"]) == [None, "image-0", None, None]
    assert list(rows["picture_id"]) == ["image-0", "image-0", "image-2", "image-3"]
    assert list(rows["group_id"]) == [tested, tested, "b", "b"]
    assert list(rows["role"])[:2] == ["test", "test"]
    assert list(rows["likeness"].notna()) == [False, True, False, False]


def test_a_late_repetition_of_a_test_image_is_excluded_and_still_named(tmp_path):
    """`train` is known already; the test image stays where it is."""
    tested, trained = a_patient("test"), a_patient("train")
    paths = files(tmp_path, cases([tested, trained, trained]), [0, 2**40 - 1, 1], [1, 2, 1])

    split(**paths, params=PARAMS)
    rows = pd.read_parquet(paths["splits"])

    assert list(rows["role"]) == ["test", "train", EXCLUDED]
    assert rows.loc[2, ["near_duplicate_of", "picture_id"]].tolist() == ["image-0", "image-0"]


def test_a_truth_seen_with_the_ai_never_judges(tmp_path):
    """In role test the image is excluded; the patient's other image stays."""
    tested = a_patient("test")
    table = cases([tested, tested]).assign(ai_visible=[True, False])
    paths = files(tmp_path, table, [0, 2**40 - 1], [1, 2])

    split(**paths, params=PARAMS)

    assert list(pd.read_parquet(paths["splits"])["role"]) == [EXCLUDED, "test"]


def test_a_late_truth_moves_nobody_who_followed(tmp_path):
    """A look-alike that followed into test stays there when the first image's truth turns out tainted."""
    tested = a_patient("test")
    table = cases([tested, "follower"]).assign(ai_visible=[True, False])
    paths = files(tmp_path, table, [0, 1], [1, 1])

    split(**paths, params=PARAMS)

    assert list(pd.read_parquet(paths["splits"])["role"]) == [EXCLUDED, "test"]


def test_an_image_without_a_patient_stops_the_split(tmp_path):
    paths = files(tmp_path, cases(["a", None]), [0, 1], [1, 2])

    with pytest.raises(MissingPatient, match="1 of 2 images lack patient_id; fix `intake`"):
        split(**paths, params=PARAMS)


@pytest.mark.parametrize("others", [["image-0", "image-9"], ["image-0"]], ids=["another", "fewer"])
def test_other_images_than_were_compared_name_the_step(tmp_path, others):
    """The second of two images of one picture has another name, or was compared and is not here."""
    paths = files(tmp_path, cases(["a", "b"]), [0, 1], [1, 1])
    write_rows(paths["cases"], cases(["a", "b"])[: len(others)].assign(image_id=others))

    with pytest.raises(DataError, match=f"not the {len(others)} images at hand were compared, but 2; run `match`"):
        split(**paths, params=PARAMS)


def test_damaged_matches_name_the_step(tmp_path):
    paths = files(tmp_path, cases(["a"]), [0], [1])
    (tmp_path / "matches" / "a.parquet").write_bytes(b"PAR1 damaged PAR1")

    with pytest.raises(DataError, match="run `match`"):
        split(**paths, params=PARAMS)


@pytest.mark.parametrize(
    ("patients", "groups", "pairs", "said"),
    [
        (["a", "a"], ["a", "b"], NONE, "1 of 1 patients"),
        (["a", "b"], ["a", "a"], NONE, "1 of 1 groups"),
        (["a", "b"], ["a", "b"], np.array([[0, 1]]), "1 of 1 pairs"),
    ],
)
def test_a_leak_is_found_on_the_rows_themselves(patients, groups, pairs, said):
    table = cases(patients).assign(role=["train", "test"], group_id=groups)

    with pytest.raises(PatientLeak, match=said):
        check(table, pairs)


def test_a_recorded_merge_reaches_the_rows(tmp_path):
    """`train` turns out to be `test`: who came first stays, the other's images go."""
    names = [f"{n:020x}" for n in range(99)]
    tested, trained = (next(n for n in names if bucket(n, "osteoflow", SHARES) == role) for role in ("test", "train"))
    paths = files(tmp_path, cases([tested, trained, "c"]), [0, 2**40 - 1, 2**20 - 1], [1, 2, 3])
    paths["merges"].write_text(f"after_images,patient_id,same_as\n3,{trained},{tested}\n")

    split(**paths, params=PARAMS)
    rows = pd.read_parquet(paths["splits"])

    assert list(rows["role"]) == ["test", EXCLUDED, "train"]
    assert list(rows["group_id"]) == [tested, tested, "c"]
