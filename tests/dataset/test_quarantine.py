"""What was refused waits where a person finds it, is listed once, and is settled when it comes in after all."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from components.dataset.bucket import GONE
from components.dataset.quarantine import REASONS, entries, waiting

REPOSITORY = Path(__file__).resolve().parents[2]


def archive_of(home) -> set[str]:
    return set(home.catalog()["image_id"])


@pytest.fixture
def shots(make):
    made = [make.shot(n, make.jpeg(make.picture(n)), "01"[n % 2]) for n in range(1, 5)]
    made[1].data = made[1].data[:900]
    return made


def test_a_refusal_says_what_it_was(home, make, shots, tmp_path):
    home.take_in(make.fracatlas(tmp_path / "source", shots))

    [line] = entries(home.quarantine)

    assert (line.reason, line.label, line.kept, line.batch[:6]) == ("truncated", "no_fracture", True, "000001")
    assert (home.quarantine / f"{line.sha256}.bin").read_bytes() == shots[1].data


def test_copies_are_for_their_owner_alone(home, make, shots, tmp_path):
    home.take_in(make.fracatlas(tmp_path / "source", shots))

    modes = {path.name[-5:]: path.stat().st_mode & 0o777 for path in home.quarantine.iterdir()}

    assert (home.quarantine.stat().st_mode & 0o777, set(modes.values())) == (0o700, {0o600})


def test_the_same_file_again_changes_nothing(home, make, shots, tmp_path):
    source = make.fracatlas(tmp_path / "source", shots)
    home.take_in(source)
    before = (home.quarantine / "refused.jsonl").read_bytes()

    home.take_in(source, now=make.NOON + timedelta(days=1))

    assert (home.quarantine / "refused.jsonl").read_bytes() == before


def test_a_repaired_file_comes_in_and_settles_its_refusal(home, make, shots, tmp_path):
    home.take_in(make.fracatlas(tmp_path / "source", shots))
    [group] = waiting(entries(home.quarantine), archive_of(home))
    assert (group.refused, group.settled) == (1, 0)

    shots[1].data = make.jpeg(make.picture(2))
    again = home.take_in(make.fracatlas(tmp_path / "repaired", shots))

    [group] = waiting(entries(home.quarantine), archive_of(home))
    assert (again.added, again.refused) == (1, {})
    assert (group.reason, group.refused, group.settled, group.hashes) == ("truncated", 1, 1, ())


def test_every_reason_that_code_gives_is_explained():
    """A code without a meaning and a remedy helps nobody."""
    rooms = [REPOSITORY / "components" / room for room in ("radiograph", "dataset")]
    code = "\n".join(path.read_text() for room in rooms for path in room.glob("*.py"))
    given = set(re.findall(r'reason="(\w+)"', code)) | set(re.findall(r'Refusal\("(\w+)"', code))
    given |= set(re.findall(r'Lost\("(\w+)"', code)) | {"missing_patient_id", "burned_in_text"} | set(GONE.values())

    assert given - set(REASONS) == set()
    assert all(reason.meaning and reason.remedy for reason in REASONS.values())


def test_the_chapter_lists_every_reason():
    chapter = (REPOSITORY / "docs" / "data.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", chapter, re.MULTILINE))

    assert {code: listed.get(code) for code in REASONS} == {code: why.meaning for code, why in REASONS.items()}
