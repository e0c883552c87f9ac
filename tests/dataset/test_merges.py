"""The log of merged identities: append-only, pseudonyms only, and said once."""

from __future__ import annotations

import pytest

from components.dataset.merges import read_merges, record_merges
from components.dataset.places import Merge
from components.errors import DataError

HEAD = "after_images,patient_id,same_as\n"
A, B, C, D = (letter * 20 for letter in "abcd")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "merges.csv"
    path.write_text(HEAD)
    return path


def test_the_repository_ships_an_empty_log(request):
    path = request.config.rootpath / "data" / "merges.csv"

    assert path.read_text().startswith(HEAD)


def test_the_log_says_when_a_merge_became_known(log):
    record_merges(log, [(A, B)], after=7)
    record_merges(log, [(C, D)], after=9)

    assert log.read_text() == f"{HEAD}7,{A},{B}\n9,{C},{D}\n"
    assert read_merges(log) == [Merge(7, A, B), Merge(9, C, D)]


def test_what_was_said_is_not_said_again(log):
    """Nor what follows from it: a is b, b is c, so a is c."""
    record_merges(log, [(A, B), (B, C)], after=7)
    before = log.read_bytes()

    assert record_merges(log, [(A, B), (B, A), (C, A), (A, A)], after=8) == 0
    assert log.read_bytes() == before


def test_the_log_never_goes_back_in_time(log):
    """An older copy of the archive must not write history into the past of a newer one."""
    record_merges(log, [(A, B)], after=7)

    with pytest.raises(DataError, match="recorded after 7 images, here are 6; pull first"):
        record_merges(log, [(C, D)], after=6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line is not after_images,patient_id,same_as"),
        ("patient_id,same_as\n", "the first line is not"),
        (f"{HEAD}7,{A}\n", "row 2: expected a count and two pseudonyms"),
        (f"{HEAD}x,{A},{B}\n", "row 2: expected a count"),
        (f"{HEAD}7,{A},{B}\n7,{A},Jane Doe\n", "row 3: expected a count"),
        (f"{HEAD}7,{A},{B}\n6,{C},{D}\n", "row 3: out of order"),
    ],
)
def test_a_damaged_log_is_refused(log, text, said):
    log.write_text(text)

    with pytest.raises(DataError, match=said) as caught:
        read_merges(log)
    assert "Jane" not in str(caught.value)


def test_a_missing_log_says_how_to_get_it_back(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(FileNotFoundError\); run `git checkout"):
        read_merges(tmp_path / "merges.csv")
