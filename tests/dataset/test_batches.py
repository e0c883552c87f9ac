"""What intake refused and dropped reaches the build as counts: once each, whatever is repeated."""

from __future__ import annotations

import json

import pytest

from components.dataset.batches import BatchRecord, read_records, write_record
from components.dataset.findings import at_intake
from components.errors import DataError


@pytest.fixture
def shots(make):
    """Eight: one cut short, one that is no picture, one a copy of another."""
    made = [make.shot(n, make.jpeg(make.picture(n)), "01"[n % 2]) for n in range(1, 9)]
    made[0].data = made[0].data[:900]
    made[1].data = b"no picture"
    made[3].data = made[2].data
    return made


def test_a_record_counts_refusals_by_reason_and_label_and_copies(home, make, shots, tmp_path):
    record = home.take_in(make.fracatlas(tmp_path / "source", shots)).record()

    assert record.refused == {"not_an_image": {"no_fracture": 1}, "truncated": {"fracture": 1}}
    assert (record.copies, record.disagreements) == (1, 0)


def test_the_same_offer_again_makes_the_same_record(home, make, shots, tmp_path):
    source = make.fracatlas(tmp_path / "source", shots)

    assert home.take_in(source).record() == home.take_in(source).record()


def test_a_file_that_an_earlier_batch_was_refused_for_is_not_counted_again(home, make, shots, tmp_path):
    """A folder that grows offers its broken file every night."""
    home.take_in(make.fracatlas(tmp_path / "source", shots))
    more = [*shots, make.shot(9, make.jpeg(make.picture(9)))]

    assert home.take_in(make.fracatlas(tmp_path / "source", more)).record().refused == {}


RECORD = BatchRecord(
    batch="000001-0123456789ab", refused={"truncated": {"no_fracture": 30}}, copies=69, disagreements=1
)


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path, RECORD)

    assert read_records(tmp_path) == [RECORD]


def test_the_same_offer_under_another_number_is_on_record_already(tmp_path):
    """Otherwise an old folder that is offered again would make a data version, and a build."""
    write_record(tmp_path, RECORD)

    write_record(tmp_path, RECORD.model_copy(update={"batch": "000003-0123456789ab"}))

    assert read_records(tmp_path) == [RECORD]


def test_a_batch_that_goes_on_with_other_counts_replaces_its_record(tmp_path):
    write_record(tmp_path, RECORD)
    more = RECORD.model_copy(update={"batch": "000003-0123456789ab", "copies": 70})

    assert write_record(tmp_path, more) == tmp_path / "0123456789ab.json"
    assert read_records(tmp_path) == [more]


def test_a_batch_of_which_nothing_was_refused_or_dropped_needs_no_record(tmp_path):
    """The inbox is empty on most nights."""
    clean = BatchRecord(batch="000001-0123456789ab", refused={}, copies=0, disagreements=0)

    assert write_record(tmp_path, clean) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", json.dumps({"batch": "a", "refused": {}})])
def test_a_damaged_record_is_named_with_what_to_do(tmp_path, text):
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(DataError, match=r"a\.json: no record of a batch; run `git checkout"):
        read_records(tmp_path)


def test_findings_add_the_batches_up():
    other = BatchRecord(
        batch="000002-b", refused={"truncated": {"fracture": 1}, "empty": {"unknown": 2}}, copies=0, disagreements=0
    )

    assert at_intake([RECORD, other]) == [
        {"name": "refused at intake: truncated", "found": "31 files (fracture 1, no fracture 30)"},
        {"name": "refused at intake: empty", "found": "2 files (unknown 2)"},
        {"name": "exact duplicates", "found": "69 images under another name, dropped at intake"},
        {"name": "source contradicts itself", "found": "1 images, their label is unknown"},
    ]


def test_nothing_refused_is_no_finding():
    assert at_intake([]) == []
