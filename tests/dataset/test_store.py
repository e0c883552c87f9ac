"""Shards are immutable and in order of arrival; anything is written whole or not at all."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.dataset.shards import radiographs
from components.dataset.store import (
    IMAGE_SCHEMA,
    Packed,
    atomic_folder,
    atomic_path,
    count_events,
    label_events,
    next_batch,
    read_catalog,
    read_pixels,
    sweep,
    write_images,
    write_labels,
)
from components.errors import DataError
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.labels import Box, LabelEvent


def image(name: str, **changes) -> Radiograph:
    pixels = np.random.default_rng(len(name)).integers(0, 4096, (40, 30)).astype(np.uint16)
    meta = {
        "image_id": name, "patient_id": "p", "study_id": "s", "source": "dicom", "grouping": "patient", "site": "a",
        "device": "d", "view": "frontal", "body_region": "hand", "photometric": "MONOCHROME1", "bits_stored": 12,
        "rows": 40, "columns": 30,
    }  # fmt: skip
    return Radiograph(meta=ImageMeta(**(meta | changes)), pixels=pixels)


def event(image_id: str, label: str = "fracture") -> LabelEvent:
    return LabelEvent.new(image_id=image_id, time="2026-01-01T00:00:00+00:00", label=label, reader="archive",
                          provenance="archive", boxes=(Box(x=1, y=2, width=3, height=4),))  # fmt: skip


def test_every_field_of_an_image_is_stored():
    assert set(ImageMeta.model_fields) | {"pixel_sha256", "batch", "pixels"} == set(IMAGE_SCHEMA.names)


def test_pixels_and_facts_come_back_exactly(tmp_path):
    stored = image("one", age_years=31, hardware=True, exposure_index=412.5, deviation_index=-1.5)

    write_images(tmp_path, [stored], batch="000001-a", shard_bytes=10**6)
    [(name, pixels)] = read_pixels(tmp_path, ["one"])
    row = read_catalog(tmp_path).iloc[0]

    assert name == "one"
    assert np.array_equal(pixels, stored.pixels)
    assert (row["age_years"], row["hardware"], row["exposure_index"], row["sex"]) == (31.0, True, 412.5, None)
    assert row["deviation_index"] == -1.5
    assert (row["pixel_sha256"], row["batch"], row["shard"]) == (stored.sha256, "000001-a", "000001-a-0000")


def test_a_full_shard_begins_the_next(tmp_path):
    images = [image(str(n)) for n in range(5)]

    paths = write_images(tmp_path, images, batch="000001-a", shard_bytes=3000)

    assert [path.name for path in paths] == ["000001-a-0000.parquet", "000001-a-0001.parquet", "000001-a-0002.parquet"]
    assert [pq.read_metadata(path).num_rows for path in paths] == [2, 2, 1]


def test_a_shard_that_stands_is_never_touched(tmp_path):
    [first] = write_images(tmp_path, [image("one")], batch="000001-a", shard_bytes=10**6)
    before = first.read_bytes()

    [second] = write_images(tmp_path, [image("two")], batch="000001-a", shard_bytes=10**6)

    assert (second.name, first.read_bytes()) == ("000001-a-0001.parquet", before)
    assert list(read_catalog(tmp_path)["image_id"]) == ["one", "two"]


def test_columns_do_not_change_type_with_what_is_missing(tmp_path):
    write_images(tmp_path / "a", [image("one")], batch="000001-a", shard_bytes=10**6)
    full = image("one", age_years=3, hour=4, hardware=False, sex="F")
    write_images(tmp_path / "b", [full], batch="000001-a", shard_bytes=10**6)

    assert read_catalog(tmp_path / "a").dtypes.equals(read_catalog(tmp_path / "b").dtypes)


def test_an_image_that_is_not_here_is_an_error(tmp_path):
    with pytest.raises(DataError, match="1 image\\(s\\) are not in the archive, for instance nobody"):
        list(read_pixels(tmp_path, ["nobody"]))


def test_events_that_stand_are_left_out(tmp_path):
    write_labels(tmp_path, [event("one")], batch="000001-a")

    assert write_labels(tmp_path, [event("one")], batch="000002-b") is None
    assert write_labels(tmp_path, [event("one"), event("two")], batch="000002-b") is not None
    assert list(label_events(tmp_path)["image_id"]) == ["one", "two"]


def test_a_label_shard_is_never_overwritten(tmp_path):
    write_labels(tmp_path, [event("one")], batch="000001-a")

    with pytest.raises(DataError, match="never overwritten"):
        write_labels(tmp_path, [event("two")], batch="000001-a")


def test_batches_count_on(tmp_path):
    assert next_batch(tmp_path, "0123456789abcdef") == "000001-0123456789ab"
    write_labels(tmp_path, [event("one")], batch="000041-a")
    write_labels(tmp_path, [event("two")], batch="feedback-abc")
    assert next_batch(tmp_path, "0123456789abcdef") == "000042-0123456789ab"


def test_a_giant_batch_rolls_over(tmp_path):
    """A shard ends with the image that fills it; none holds more than the limit and that one image."""
    images = [image(f"image-{n}") for n in range(7)]
    one = len(Packed.of(images[0]).pixels)
    written = write_images(tmp_path, images, batch="000001-a", shard_bytes=2 * one)

    assert [path.name for path in written] == [f"000001-a-{n:04d}.parquet" for n in range(4)]
    assert list(read_catalog(tmp_path)["image_id"]) == [f"image-{n}" for n in range(7)]


def test_what_stands_is_never_written_again(tmp_path):
    """Another batch, the same batch continued, labels said twice: the shards before keep their bytes and times."""

    def standing() -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.glob("*.parquet")}

    write_images(tmp_path, [image("one")], batch="000001-a", shard_bytes=1)
    before = standing()
    write_images(tmp_path, [image("two")], batch="000001-a", shard_bytes=1)
    write_images(tmp_path, [image("three")], batch="000002-b", shard_bytes=1)
    after = standing()

    assert len(after) == 3
    assert before.items() <= after.items()


def test_events_are_counted_without_reading_them(tmp_path):
    write_labels(tmp_path, [event("one"), event("two")], batch="000001-a")
    write_labels(tmp_path, [event("two"), event("three")], batch="000002-b")

    assert count_events(tmp_path) == len(label_events(tmp_path)) == 3


def test_an_empty_archive_has_the_columns_of_a_full_one(tmp_path):
    write_images(tmp_path / "full", [image("one")], batch="000001-a", shard_bytes=10**6)

    assert list(read_catalog(tmp_path / "absent").columns) == list(read_catalog(tmp_path / "full").columns)


@pytest.mark.parametrize("writer", [atomic_path, atomic_folder])
def test_a_block_that_fails_leaves_what_stood(tmp_path, writer):
    target = tmp_path / "target"
    with writer(target) as draft:
        (draft / "file" if writer is atomic_folder else draft).write_text("old")

    def spoil() -> None:
        with writer(target) as draft:
            (draft / "file" if writer is atomic_folder else draft).write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        spoil()

    assert (target / "file" if writer is atomic_folder else target).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "target") as draft:
            (draft / name).write_text("")

    assert [path.name for path in (tmp_path / "target").iterdir()] == ["new"]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    (tmp_path / ".a.parquet.x1.part").write_text("half")
    (tmp_path / ".folder.x2.part").mkdir()
    (tmp_path / "a.parquet").write_text("whole")

    sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(("stands", "kept"), [(True, "new"), (False, "old")])
def test_a_folder_that_was_moved_aside_goes_or_comes_back(tmp_path, stands, kept):
    """Killed after its successor had its name, or before: then it is the only one there is."""
    for name in [".page.x1.old"] + ["page"] * stands:
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("new" if name == "page" else "old")

    sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    assert (tmp_path / "page" / "index.html").read_text() == kept


ADDED_LATER = ["window_center", "window_width", "deviation_index"]


@pytest.mark.parametrize("then", [[], ["two"]])
def test_shards_written_before_a_column_was_added_are_read(tmp_path, then):
    """An old shard, alone or beside a new one: what it cannot know is not stated, and its pictures come back."""
    old = image("one", age_years=31)
    [path] = write_images(tmp_path, [old], batch="000001-a", shard_bytes=10**6)
    pq.write_table(pq.read_table(path).drop_columns(ADDED_LATER), path)
    for name in then:
        write_images(tmp_path, [image(name, window_center=7.5, window_width=3.0)], batch="000002-b", shard_bytes=10**6)

    frame = read_catalog(tmp_path).set_index("image_id")
    [read] = radiographs(path, 0)

    assert list(frame.columns) == [name for name in IMAGE_SCHEMA.names if name not in ("image_id", "pixels")] + [
        "shard"
    ]
    assert frame.loc["one", ADDED_LATER].isna().all()
    assert [frame.loc[name, "window_center"] for name in then] == [7.5] * len(then)
    assert (read.meta.age_years, read.meta.window_center, read.sha256) == (31, None, old.sha256)
