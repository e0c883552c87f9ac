"""What is doubtful about an image is told, with how many do not say, and keeps it from nothing."""

from __future__ import annotations

import pytest

from tests.dataset.tables import Tables


@pytest.fixture
def tables(tmp_path, make):
    return Tables(tmp_path, make.squares)


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        ("cnr", 2.5, "cnr"),
        ("motion", 9.0, "motion"),
        ("clutter", 20.0, "clutter"),
        ("deviation_index", 1.5, "deviation_index"),
        ("deviation_index", -1.5, "deviation_index"),
    ],
)
def test_a_doubtful_image_is_told_of_and_kept(tables, column, value, name):
    tables.features["deviation_index"] = 0.0
    tables.features.loc[7, column] = value

    accepted = tables.run()

    assert accepted["accepted"].all()
    assert tables.results["quarantined"]["by_reason"] == {}
    assert [v["check"]["name"] for v in tables.results["verdicts"] if not v["success"]] == [name]
    assert "<td>1 of 40 images fail</td>" in tables.pages()["index.html"].decode()


def test_a_wrong_exposure_is_told_apart_from_a_doubtful_one(tables):
    """Beyond 3 dB both warnings stand; images whose device states no index are counted, not failed."""
    tables.features.loc[:9, "deviation_index"] = [0.0] * 8 + [1.5, -3.5]

    tables.run()
    found = {v["check"]["name"]: v["found"] for v in tables.results["verdicts"]}

    assert found["deviation_index"] == "2 of 40 images fail, 30 not stated"
    assert found["far_deviation_index"] == "1 of 40 images fail, 30 not stated"


def test_few_grey_levels_in_a_deep_file_are_told(tables):
    """200 levels are all that 8 bits need, and few for a file that claims 12."""
    tables.splits.loc[3, "bits_stored"] = 12

    tables.run()
    found = {v["check"]["name"]: v["found"] for v in tables.results["verdicts"]}

    assert found["deep_levels"] == "1 of 40 images fail, 39 not stated"
