"""What comes in, what is refused, and that doing it again changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta

import cv2
import numpy as np
import pytest

from components.dataset.store import read_pixels
from components.errors import DataError, UnknownLabel


def test_an_archive_comes_in_with_its_labels(home, make, tmp_path):
    shots = [make.shot(1, make.jpeg(make.picture(1)), "1"), make.shot(2, make.jpeg(make.picture(2)), "0")]

    batch = home.take_in(make.fracatlas(tmp_path / "source", shots))

    assert (batch.added, batch.labels) == (2, {"fracture": 1, "no_fracture": 1})
    assert (batch.sites, batch.refused, batch.label_events) == ({"fracatlas": 2}, {}, 2)
    assert list(home.events()["provenance"]) == ["archive", "archive"]


def test_the_same_source_twice_adds_nothing(home, make, tmp_path):
    source = make.fracatlas(tmp_path / "source", [make.shot(n, make.jpeg(make.picture(n))) for n in range(3)])
    home.take_in(source)
    before = home.files()

    again = home.take_in(source, now=make.NOON + timedelta(days=1))

    assert (again.added, again.duplicates, again.label_events) == (0, 3, 0)
    assert home.files() == before


def test_images_of_a_shard_without_an_entry_are_known_and_entered(home, make, tmp_path):
    """What a run leaves that is killed between its shards and their entries."""
    source = make.dicoms(tmp_path / "source", [1, 2])
    home.take_in(source)
    [entry] = home.entries().iterdir()
    entry.unlink()

    assert (home.take_in(source).duplicates, entry.exists()) == (2, True)


def test_an_entry_whose_shard_is_gone_knows_no_image(home, make, tmp_path):
    source = make.dicoms(tmp_path / "source", [1, 2])
    home.take_in(source)
    [shard] = home.studies.iterdir()
    shard.unlink()

    assert (home.take_in(source).added, shard.exists()) == (2, True)


def test_a_dicom_folder_twice_adds_nothing(home, make, tmp_path):
    source = make.dicoms(tmp_path / "source", [1, 2], labels={1: "fracture", 2: "no_fracture"})
    home.take_in(source)

    again = home.take_in(source)

    assert (again.added, again.duplicates, again.label_events) == (0, 2, 0)


def test_new_images_go_into_a_new_batch(home, make, tmp_path):
    home.take_in(make.dicoms(tmp_path / "one", [1]))
    home.take_in(make.dicoms(tmp_path / "two", [2]))

    assert [batch[:6] for batch in home.catalog()["batch"]] == ["000001", "000002"]


def test_pixels_come_back_as_they_came(home, make, tmp_path):
    """A lossless picture: what the JPEG decodes to is what the archive gives back."""
    data = make.jpeg(make.picture(1))
    home.take_in(make.fracatlas(tmp_path / "source", [make.shot(1, data)]))
    image_id = home.catalog()["image_id"].iloc[0]

    [(_, pixels)] = read_pixels(home.studies, [image_id])

    assert pixels.shape == (120, 90)
    assert np.abs(pixels.astype(int) - make.picture(1)).max() <= 12  # JPEG's own loss


def test_neighbouring_numbers_are_one_weak_patient(home, make, tmp_path):
    shots = [make.shot(n, make.jpeg(make.picture(n))) for n in (10, 19, 20)]

    home.take_in(make.fracatlas(tmp_path / "source", shots))
    table = home.catalog()

    assert list(table["grouping"]) == ["weak"] * 3
    assert table["patient_id"].nunique() == 2
    assert table["patient_id"].iloc[0] == table["patient_id"].iloc[1]


def test_a_truncated_jpeg_is_refused_and_counted_by_label(home, make, tmp_path):
    """OpenCV would fill the missing half with grey and say nothing."""
    whole = make.jpeg(make.picture(1))
    shots = [make.shot(1, whole[: len(whole) // 2], "0"), make.shot(2, make.jpeg(make.picture(2)), "1")]

    batch = home.take_in(make.fracatlas(tmp_path / "source", shots))

    assert (batch.added, batch.refused, batch.refused_by_label) == (1, {"truncated": 1}, {"no_fracture": 1})


def test_refused_files_wait_in_quarantine_under_their_hash(home, make, tmp_path):
    source = make.dicoms(tmp_path / "source", [1])
    (source / "Mustermann.txt").write_bytes(b"not a radiograph")

    home.take_in(source)
    home.take_in(source)
    [row] = map(json.loads, (home.quarantine / "refused.jsonl").read_text().splitlines())

    assert row["reason"] == "not_dicom"
    assert (home.quarantine / f"{row['sha256']}.bin").read_bytes() == b"not a radiograph"
    assert "Mustermann" not in "".join(home.files())


def test_an_image_without_a_patient_is_refused(home, make, tmp_path):
    import pydicom

    source = make.dicoms(tmp_path / "source", [1, 2])
    dataset = pydicom.dcmread(source / "1-0")
    dataset.PatientID = ""
    dataset.save_as(source / "1-0")

    batch = home.take_in(source)

    assert (batch.added, batch.refused) == (1, {"missing_patient_id": 1})


def test_an_unknown_label_stops_before_anything_is_written(home, make, tmp_path):
    source = make.dicoms(tmp_path / "source", [1, 2], labels={1: "fracture", 2: "maybe"})

    with pytest.raises(UnknownLabel, match=r"row 3: the label is not one of fracture, no_fracture, unknown"):
        home.take_in(source)

    assert home.files() == []


def test_an_unknown_value_of_fractured_names_its_row(home, make, tmp_path):
    source = make.fracatlas(tmp_path / "source", [make.shot(1, make.jpeg(make.picture(1)), "2", "Fractured")])

    with pytest.raises(UnknownLabel, match=r"dataset.csv row 2: fractured is not one of 0, 1"):
        home.take_in(source)


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_nothing_to_take_in_is_an_error(home, tmp_path, name):
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="source"):
        home.take_in(tmp_path / name)


def test_table_and_folder_disagree_so_the_label_is_unknown(home, make, tmp_path):
    shots = [make.shot(1, make.jpeg(make.picture(1)), "0", "Fractured"), make.shot(2, make.jpeg(make.picture(2)))]

    batch = home.take_in(make.fracatlas(tmp_path / "source", shots))

    assert batch.disagreements == 1
    assert sorted(home.events()["label"]) == ["no_fracture", "unknown"]


def test_the_same_picture_under_two_names_is_one_image_with_two_voices(home, make, tmp_path):
    data = make.jpeg(make.picture(1))

    batch = home.take_in(make.fracatlas(tmp_path / "source", [make.shot(1, data, "1"), make.shot(2, data, "0")]))

    assert (batch.added, batch.duplicates, batch.label_events) == (1, 1, 2)
    assert home.events()["image_id"].nunique() == 1
    assert home.events()["reader"].nunique() == 2


def test_a_corrected_table_reaches_images_that_stand(home, make, tmp_path):
    """Labels may arrive after the images: the images stay, the events are added."""
    home.take_in(make.dicoms(tmp_path / "source", [1]))

    batch = home.take_in(make.dicoms(tmp_path / "source", [1], labels={1: "fracture"}))

    assert (batch.added, batch.label_events) == (0, 1)
    assert list(home.events()["image_id"]) == list(home.catalog()["image_id"])


def test_a_correction_is_dated_the_day_it_came(home, make, tmp_path):
    """The same images, other words: another batch, and later than what it corrects."""
    home.take_in(make.dicoms(tmp_path / "source", [1], labels={1: "no_fracture"}))

    home.take_in(make.dicoms(tmp_path / "source", [1], labels={1: "fracture"}), now=make.NOON + timedelta(days=1))

    assert list(home.events()["label"]) == ["no_fracture", "fracture"]
    assert list(home.events()["time"]) == ["2026-01-01T12:00:00+00:00", "2026-01-02T12:00:00+00:00"]


def test_the_message_counts_and_names_nobody(home, make, tmp_path):
    batch = home.take_in(make.dicoms(tmp_path / "source", [1, 2], labels={1: "fracture", 2: "unknown"}))

    assert batch.message().splitlines()[0] == f"Take in 2 radiographs ({batch.batch})"
    assert "labels: fracture 1, unknown 1" in batch.message()
    assert "PHANTOM" not in batch.message()


def test_big_images_are_refused_before_they_are_decoded(home, make, tmp_path):
    shot = make.shot(1, make.jpeg(make.picture(1, rows=1001, columns=1000)))

    batch = home.take_in(make.fracatlas(tmp_path / "source", [shot]), max_megapixels=1)

    assert batch.refused == {"too_large": 1}


@pytest.mark.slow
def test_many_files_in_processes_give_what_one_by_one_gives(new_home, make, tmp_path, monkeypatch):
    shots = [make.shot(n, make.jpeg(make.picture(n, rows=48, columns=40, smooth=2))) for n in range(210)]
    source = make.fracatlas(tmp_path / "source", shots)
    many, one = new_home("many"), new_home("one")
    many.take_in(source)

    monkeypatch.setattr("os.cpu_count", lambda: 1)
    one.take_in(source)

    assert many.catalog().equals(one.catalog())
    assert many.events().equals(one.events())


def test_a_quiet_night_is_an_empty_batch(home, tmp_path):
    """The scheduled run over an empty inbox adds nothing and fails nothing."""
    (tmp_path / "inbox").mkdir()

    batch = home.take_in(tmp_path / "inbox", may_be_empty=True)

    assert (batch.added, batch.refused, batch.label_events) == (0, {}, 0)


def test_what_is_painted_over_is_not_learned(home, tmp_path, make):
    """A name in the pixels goes; a box that the source drew there no longer says fracture, also the second time."""
    pixels = np.minimum(make.picture(1, rows=600, columns=800, smooth=30), 150)
    cv2.putText(pixels, "MUSTERFRAU ERIKA", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    shots = [make.shot(1, make.jpeg(pixels), "1", boxes=((30.0, 40.0, 60.0, 20.0),), size=(800, 600))]
    source = make.fracatlas(tmp_path / "source", shots)
    first, again = home.take_in(source), home.take_in(source)

    assert (first.added, again.added, again.label_events) == (1, 0, 0)
    assert "width" in home.catalog()["masked"][0]
    assert list(home.events()["label"]) == ["unknown"]


def test_a_site_may_refuse_text_in_pixels(home, tmp_path, make):
    pixels = np.minimum(make.picture(1, rows=600, columns=800, smooth=30), 150)
    cv2.putText(pixels, "MUSTERFRAU ERIKA", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    source = make.fracatlas(tmp_path / "source", [make.shot(1, make.jpeg(pixels))])

    assert home.take_in(source, burned_in="quarantine").refused == {"burned_in_text": 1}
