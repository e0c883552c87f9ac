"""Withdrawn patients: the log in git, and whose images it takes out of the deal."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.merges import one_person
from components.dataset.places import EXCLUDED, Merge
from components.dataset.rows import write_rows
from components.dataset.split import _pictures, split
from components.dataset.withdrawals import read_withdrawals, record_withdrawals, withdrawn
from components.errors import DataError
from components.model.comparison import Sealed
from components.model.examples import load
from components.radiograph.pixels import Transform
from tests.dataset.test_places import History, histories, patients
from tests.dataset.test_split import PARAMS, cases, files

A, B, C = ("a" * 20, "b" * 20, "c" * 20)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "withdrawals.csv"
    path.write_text("patient_id\n")
    return path


def test_the_log_of_this_repository_is_empty(request):
    assert read_withdrawals(request.config.rootpath / "data" / "withdrawals.csv") == []


def test_the_log_grows_at_its_end_and_holds_nobody_twice(log):
    assert record_withdrawals(log, [B]) == 1
    assert record_withdrawals(log, [A, B, A]) == 1
    assert log.read_text() == f"patient_id\n{B}\n{A}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line is not patient_id; run `git checkout"),
        ("patient_id,reason\n", "the first line is not patient_id"),
        (f"patient_id\n{A}\nDoe^John\n", "row 3: expected a pseudonym"),
    ],
)
def test_a_damaged_log_is_refused_without_its_words(log, text, said):
    log.write_text(text)

    with pytest.raises(DataError, match=said) as caught:
        read_withdrawals(log)
    assert "Doe" not in str(caught.value)


def test_what_is_no_pseudonym_is_not_recorded(log):
    with pytest.raises(DataError, match="no pseudonym of a patient; nothing was recorded"):
        record_withdrawals(log, [A, "Doe^John"])
    assert read_withdrawals(log) == []


def test_a_person_is_all_their_pseudonyms():
    merges = [Merge(0, A, B), Merge(0, B, C), Merge(0, "d", "e")]

    assert one_person([C], merges) == {A, B, C}
    assert one_person(["f"], merges) == {"f"}


def dealt(history: History, names: set[str]) -> tuple[list[str], np.ndarray]:
    """Roles after these patients are withdrawn, as `split` puts them together; and whom that concerns."""
    ids = _pictures(len(history.images), history.pairs)
    gone = withdrawn(pd.Series(history.images, dtype=object), pd.Series(ids), one_person(names, history.merges))
    return [EXCLUDED if out else role for role, out in zip(history.roles, gone, strict=True)], gone


@given(histories, st.sets(patients, min_size=1, max_size=3))
@settings(deadline=None, max_examples=500)
def test_a_withdrawal_takes_out_the_person_and_moves_nobody(events, names):
    """Over 500 histories: every image of the person and every copy is out, everybody else sits where they sat."""
    history = History(events)
    people = history.people()
    theirs = {people.get(name, name) for name in names}
    roles, gone = dealt(history, names)

    assert all(out for patient, out in zip(history.images, gone, strict=True) if people[patient] in theirs)
    assert all(gone[one] == gone[other] for one, other in history.pairs.tolist())
    assert [new for new, out in zip(roles, gone, strict=True) if not out] == [
        old for old, out in zip(history.roles, gone, strict=True) if not out
    ]


@given(histories, st.sets(patients, min_size=1, max_size=3))
@settings(deadline=None, max_examples=300)
def test_nobody_who_is_withdrawn_comes_back(events, names):
    """Whatever arrives or becomes known later."""
    out: set[int] = set()
    for step in range(len(events) + 1):
        now = set(np.flatnonzero(dealt(History(events[:step]), names)[1]).tolist())

        assert out <= now
        out = now


def test_no_step_after_the_split_gets_an_image_of_a_withdrawn_patient(tmp_path):
    """Two ids of one person, one of them withdrawn, and a copy under a stranger's id; train and evaluation ask."""
    names = [f"{n:020x}" for n in range(60)]
    table = cases([*names, names[1], names[3]])
    codes = [n * 0x0101010101010101 % 2**64 for n in range(len(table))]
    pictures = [*range(len(names)), 100, 0]  # the last repeats the first patient's picture
    codes[-1] = codes[0]
    paths = files(tmp_path, table, codes, pictures)
    paths["merges"].write_text(f"after_images,patient_id,same_as\n{len(table)},{names[1]},{names[0]}\n")
    split(**paths, params=PARAMS)
    before = pd.read_parquet(paths["splits"])
    record_withdrawals(paths["withdrawals"], [names[0]])
    split(**paths, params=PARAMS)
    after = pd.read_parquet(paths["splits"])
    gone = {"image-0", "image-1", "image-60", "image-61"}

    assert set(after.loc[after["withdrawn"], "image_id"]) == gone
    assert after.loc[~after["withdrawn"], "role"].tolist() == before.loc[~after["withdrawn"], "role"].tolist()

    label = [float(n % 2) for n in range(len(after))]
    accepted = after.assign(accepted=True, label=label, boxes="[]", study_id=after["image_id"])
    write_rows(tmp_path / "accepted", accepted)
    (tmp_path / "prepared").mkdir()
    np.savez(
        tmp_path / "prepared" / "000001-a-0000.npz", image_id=after["image_id"].to_numpy(dtype=np.str_),
        pixels=np.zeros((len(after), 8, 8), np.uint8), transform=np.array(json.dumps(asdict(Transform(8)))),
    )  # fmt: skip
    learned = load(tmp_path / "accepted", tmp_path / "prepared", roles=("train", "tune", "calibrate"))

    assert len(before[before["role"] != EXCLUDED]) > len(learned.table) > 30
    assert gone & {*learned.table["image_id"], *Sealed.of(tmp_path / "accepted", ()).table["image_id"]} == set()
