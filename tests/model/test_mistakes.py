"""Errors for a person to go through: tags that something known speaks for, and the most alike cases."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

from components.model.mistakes import Neighbours, as_csv, mistakes, proposed
from components.serving.bundle import Threshold, Thresholds

CUTS = Thresholds(
    high_sensitivity=Threshold(threshold=0.2, source_role="tune"),
    high_specificity=Threshold(threshold=0.6, source_role="tune"),
)
FINE = {"cnr": 10.0, "motion": 1.0, "clutter": 2.0, "grey_levels": 200}


def facts(label: float, **changes: object) -> dict[str, object]:
    """An image of 100 x 100 pixels of which nothing else is known."""
    return {"label": label, "boxes": "[]", "rows": 100, "columns": 100, "age_years": np.nan, "hardware": None} | changes


def box(side: int) -> str:
    return json.dumps([{"x": 5, "y": 5, "width": side, "height": side}])


@pytest.mark.parametrize(
    ("about", "quality", "tags"),
    [
        (facts(1, boxes=box(10)), FINE, ["subtle"]),
        (facts(1, boxes=box(11)), FINE, []),
        (facts(1), FINE, ["occult"]),
        (facts(1, boxes=box(30), view="oblique"), FINE, ["off-view"]),
        (facts(1, boxes=box(30), view="lateral"), FINE | {"cnr": 2.0}, ["quality"]),
        (facts(1, boxes=box(30)), FINE | {"deviation_index": np.nan}, []),
        (facts(0), FINE, []),
        (facts(0, age_years=17.0), FINE, ["growth plate"]),
        (facts(0, age_years=18.0, hardware=False, masked=None), FINE, []),
        (facts(0, hardware=True), FINE, ["hardware"]),
        (facts(0, masked='[{"x": 1, "y": 1, "width": 2, "height": 2}]'), FINE, ["artefact"]),
    ],
)
def test_a_tag_needs_something_that_is_known(about, quality, tags):
    """What is not recorded proposes nothing."""
    assert list(proposed(about, quality, boxes_drawn=True)) == tags


def test_without_boxes_in_the_archive_none_is_missing():
    """Where nobody draws boxes, a fracture without one is not occult."""
    assert list(proposed(facts(1), FINE, boxes_drawn=False)) == []


@pytest.fixture
def near(tmp_path) -> Neighbours:
    """Three reference cases in two dimensions; one of them has no label any more."""
    vectors = [[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]
    pd.DataFrame({"image_id": ["a", "b", "c"], "probability": [0.9, 0.1, 0.5], "embedding": vectors}).to_parquet(
        tmp_path / "reference.parquet"
    )
    pd.DataFrame({"image_id": ["a", "b", "c"], "label": [1.0, 0.0, np.nan]}).to_parquet(tmp_path / "accepted.parquet")
    return Neighbours.open(tmp_path, tmp_path / "accepted.parquet")


def test_the_nearest_is_by_angle(near):
    """Length says nothing; a case without a label is left out."""
    found = near.of(np.array([0.2, 7.0]))

    assert [one.image_id for one in found] == ["b", "a"]
    assert found[0].likeness == pytest.approx(0.99959, abs=1e-5)
    assert str(found[0]) == "b 1.000 no fracture (0.10)"


def test_errors_are_those_at_the_points_that_promised_otherwise(near):
    """Fractures below the lower threshold, then non-fractures from the upper one; what lies between is no error."""
    labels = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    table = pd.DataFrame([facts(label, image_id=f"t{n}") for n, label in enumerate(labels)])
    p = np.array([0.19, 0.2, 0.05, 0.59, 0.6, 0.9])
    found = mistakes(table, p, np.ones((6, 2)), pd.DataFrame([FINE] * 6), near, CUTS)

    assert [(one.image_id, one.kind) for one in found] == [
        ("t2", "missed"),
        ("t0", "missed"),
        ("t5", "false alarm"),
        ("t4", "false alarm"),
    ]


def test_the_list_leaves_room_for_a_person(near):
    """Proposals in one column, empty tags and note in two others; and it survives being read back."""
    table = pd.DataFrame([facts(0, image_id="t0", hardware=True, age_years=9.0, site="north, wing 2")])
    found = mistakes(table, np.array([0.9]), np.ones((1, 2)), pd.DataFrame([FINE]), near, CUTS)
    read = pd.read_csv(io.StringIO(as_csv(found, table))).iloc[0]

    assert (read["error"], read["proposed"], read["site"]) == ("false alarm", "growth plate; hardware", "north, wing 2")
    assert pd.isna(read["tags"])
    assert pd.isna(read["note"])
    assert read["nearest"].count(";") == 1


def test_no_error_is_an_empty_list(near):
    table = pd.DataFrame([facts(0, image_id="t0")])
    found = mistakes(table, np.array([0.1]), np.ones((1, 2)), pd.DataFrame([FINE]), near, CUTS)

    assert as_csv(found, table).count("\n") == 1
