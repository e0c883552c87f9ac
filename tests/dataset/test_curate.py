"""What is true of an image, from everything that was said about it."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.curate import curate, settle
from components.dataset.rows import write_rows
from components.dataset.store import label_events, read_catalog, write_images, write_labels
from components.errors import DataError, UnknownLabel
from components.params import Curate
from components.radiograph.image import ImageMeta, Radiograph
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
    path = home.folder / "cases"
    curate(catalog=home.studies, labels=home.labels, cases=path, params=Curate(min_readers=2))
    return pd.read_parquet(path).iloc[0].to_dict()


def image(name: str) -> Radiograph:
    meta = ImageMeta(
        image_id=name, patient_id=name, study_id=name, source="test", grouping="patient", site="a", device="d",
        view="frontal", body_region="hand", photometric="MONOCHROME2", bits_stored=8, rows=2, columns=2,
    )  # fmt: skip
    return Radiograph(meta=meta, pixels=np.zeros((2, 2), np.uint8))


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


BOXES = ((), (Box(x=1, y=2, width=3, height=4),), (Box(x=5, y=6, width=7, height=8),))
SAID = st.lists(
    st.builds(
        LabelEvent.new,
        image_id=st.integers(0, 11).map("image-{}".format),
        time=st.integers(1, 3).map("2026-01-0{}T00:00:00+00:00".format),
        label=st.sampled_from(["fracture", "no_fracture", "unknown"]),
        reader=st.sampled_from(["archive", "r1", "r2", "r1+r2"]),
        provenance=st.sampled_from(["archive", "report", "clinician", "adjudicated"]),
        boxes=st.sampled_from(BOXES),
        ai_visible=st.booleans(),
    ),
    max_size=20,
)


@given(SAID, st.integers(1, 2))
@settings(deadline=None, max_examples=40)
def test_every_image_is_settled_by_its_own_events(tmp_path_factory, said, readers):
    """Eight images, some of them never spoken about, and words about four that are not here."""
    folder = tmp_path_factory.mktemp("settled")
    write_images(folder / "studies", [image(f"image-{n}") for n in range(8)], batch="000001-a", shard_bytes=1000)
    write_labels(folder / "labels", said, batch="000001-a")
    params = Curate(min_readers=readers)
    curate(catalog=folder / "studies", labels=folder / "labels", cases=folder / "cases", params=params)
    found = pd.read_parquet(folder / "cases").astype({"label": object})
    log = label_events(folder / "labels").sort_values(["time", "event_id"])

    for row in found.to_dict("records"):
        truth = settle(log[log["image_id"] == row["image_id"]].to_dict("records"), params)
        assert {name: None if row[name] != row[name] else row[name] for name in asdict(truth)} == asdict(truth)
    assert [str(found[name].dtype) for name in ("ai_visible", "readers")] == ["bool", "int64"]


def test_the_files_are_those_of_the_catalog_with_the_truths_beside_it(tmp_path):
    """To the byte, as pandas writes the whole of it."""
    folders = {"catalog": tmp_path / "studies", "labels": tmp_path / "labels", "cases": tmp_path / "cases"}
    write_images(folders["catalog"], [image(f"image-{n}") for n in range(3)], batch="000001-a", shard_bytes=100)
    word = {"time": "2026-01-01T00:00:00+00:00", "reader": "archive", "provenance": "archive"}
    drawn = LabelEvent.new(image_id="image-1", label="fracture", boxes=BOXES[1], **word)
    write_labels(folders["labels"], [drawn, LabelEvent.new(image_id="image-2", label="no_fracture", **word)], batch="a")
    curate(**folders, params=Curate(min_readers=2))
    table = read_catalog(folders["catalog"])
    table["label"] = [math.nan, 1.0, 0.0]
    table["boxes"] = ["[]", '[{"height": 4.0, "width": 3.0, "x": 1.0, "y": 2.0}]', "[]"]
    table["label_provenance"] = [None, "archive", "archive"]
    table["ai_visible"] = [False] * 3
    table["readers"] = [0] * 3
    write_rows(tmp_path / "expected", table)

    assert table["shard"].nunique() > 1
    for path in (tmp_path / "expected").iterdir():
        assert path.read_bytes() == (folders["cases"] / path.name).read_bytes()


@pytest.mark.parametrize("where", ["image-0", "elsewhere"])
def test_a_word_outside_the_vocabulary_stops_it(tmp_path, where):
    """One event alone, also about an image that is not here."""
    write_images(tmp_path / "studies", [image("image-0")], batch="000001-a", shard_bytes=1000)
    event = LabelEvent.new(image_id=where, time="2026-01-01T00:00:00+00:00", label="fracture", reader="archive",
                           provenance="archive")  # fmt: skip
    write_labels(tmp_path / "labels", [event.model_copy(update={"label": "broken"})], batch="000001-a")

    with pytest.raises(UnknownLabel, match="'broken' is not one of"):
        curate(
            catalog=tmp_path / "studies", labels=tmp_path / "labels", cases=tmp_path / "c", params=Curate(min_readers=2)
        )


def test_rows_are_in_order_of_arrival(archive, make, tmp_path):
    archive.take_in(make.dicoms(tmp_path / "later", [2, 3]))
    path = tmp_path / "cases"
    curate(catalog=archive.studies, labels=archive.labels, cases=path, params=Curate(min_readers=2))

    assert list(pd.read_parquet(path)["image_id"]) == list(archive.catalog()["image_id"])


def test_an_empty_archive_names_the_step(home):
    with pytest.raises(DataError, match="run `osteoflow intake SOURCE`"):
        curate(catalog=home.studies, labels=home.labels, cases=home.folder / "c", params=Curate(min_readers=2))
