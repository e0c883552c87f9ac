"""What is true of an image, from everything that was said about it."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from components.dataset.curate import curate
from components.dataset.store import write_labels
from components.errors import DataError
from components.params import Curate
from components.radiograph.labels import Box, LabelEvent


@pytest.fixture
def archive(home, make, tmp_path):
    home.take_in(make.dicoms(tmp_path / "source", [1]))
    return home


def settled(home, *said: tuple[str, str, str], ai_visible: bool = False, boxes=()) -> dict:
    """The case after (provenance, reader, label) were said, in this order, an hour apart."""
    image_id = home.catalog()["image_id"].iloc[0]
    events = [
        LabelEvent.new(image_id=image_id, time=f"2026-01-01T{hour:02d}:00:00+00:00", label=label, reader=reader,
                       provenance=provenance, ai_visible=ai_visible, boxes=boxes)
        for hour, (provenance, reader, label) in enumerate(said)
    ]  # fmt: skip
    write_labels(home.labels, reversed(events), batch="said")
    path = home.folder / "cases.parquet"
    curate(studies=home.studies, labels=home.labels, cases=path, params=Curate(min_readers=2))
    return pd.read_parquet(path).iloc[0].to_dict()


ARCHIVE = ("archive", "archive", "no_fracture")


@pytest.mark.parametrize(
    ("said", "label", "provenance"),
    [
        ([ARCHIVE], 0.0, "archive"),
        ([("report", "reporter", "fracture")], 1.0, "report"),
        ([ARCHIVE, ("archive", "archive", "fracture")], 1.0, "archive"),
        ([ARCHIVE, ("clinician", "reader-1", "fracture")], 0.0, "archive"),
        ([ARCHIVE, ("clinician", "reader-1", "fracture"), ("clinician", "reader-2", "fracture")], 1.0, "clinician"),
        ([ARCHIVE, ("clinician", "reader-1", "fracture"), ("clinician", "reader-1", "fracture")], 0.0, "archive"),
        ([("clinician", "reader-1", "fracture"), ("clinician", "reader-2", "no_fracture")], None, None),
        ([("adjudicated", "reader-1+reader-2", "no_fracture"), ("clinician", "reader-1", "fracture"),
          ("clinician", "reader-2", "fracture")], 0.0, "adjudicated"),
        ([("adjudicated", "reader-1", "no_fracture"), ("adjudicated", "reader-2", "fracture")], 1.0, "adjudicated"),
        ([ARCHIVE, ("adjudicated", "reader-1", "unknown")], None, None),
        ([ARCHIVE, ("archive", "archive/another", "fracture")], None, None),
        ([("archive", "archive", "unknown")], None, None),
        ([], None, None),
    ],
)  # fmt: skip
def test_who_is_believed(archive, said, label, provenance):
    """Adjudicated, then readers who agree, then the archive; contradiction and silence stay unknown."""
    case = settled(archive, *said)

    assert (None if math.isnan(case["label"]) else case["label"], case["label_provenance"]) == (label, provenance)


def test_one_reader_who_saw_the_ai_taints_the_truth(archive):
    case = settled(archive, ("adjudicated", "reader-1+reader-2", "fracture"), ai_visible=True)

    assert (case["ai_visible"], case["readers"]) == (True, 2)


def test_boxes_come_with_a_fracture(archive):
    case = settled(archive, ("archive", "archive", "fracture"), boxes=(Box(x=1, y=2, width=3, height=4),))

    assert case["boxes"] == '[{"height": 4.0, "width": 3.0, "x": 1.0, "y": 2.0}]'


def test_truth_about_images_that_are_not_here_waits(archive):
    event = LabelEvent.new(image_id="elsewhere", time="2026-01-01T00:00:00+00:00", label="fracture", reader="archive",
                           provenance="archive")  # fmt: skip
    write_labels(archive.labels, [event], batch="early")

    assert math.isnan(settled(archive)["label"])


def test_rows_are_in_order_of_arrival(archive, make, tmp_path):
    archive.take_in(make.dicoms(tmp_path / "later", [2, 3]))
    path = tmp_path / "cases.parquet"
    curate(studies=archive.studies, labels=archive.labels, cases=path, params=Curate(min_readers=2))

    assert list(pd.read_parquet(path)["image_id"]) == list(archive.catalog()["image_id"])


def test_an_empty_archive_names_the_step(home):
    with pytest.raises(DataError, match="run `osteoflow intake SOURCE`"):
        curate(studies=home.studies, labels=home.labels, cases=home.folder / "c", params=Curate(min_readers=2))
