"""The prediction log: once per image and bundle, in pseudonyms, through restarts and writers side by side."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from components.errors import ConfigError, DataError, Unavailable
from components.serving.bundle import PredictionSet
from components.serving.store import PredictionLog, Truth


def test_what_was_logged_comes_back(log, said):
    assert log.add_prediction(said()) == said()
    assert log.prediction(said().id) == said()


def test_one_bundle_has_one_word_on_an_image(log, said, noon):
    """The first answer stands, whatever is logged for the same image and bundle later."""
    log.add_prediction(said(probability=0.25))
    again = log.add_prediction(said(probability=0.75, time=noon + timedelta(hours=1)))

    assert again.probability == 0.25
    assert log.count() == (1, 0)


def test_another_bundle_speaks_for_itself(log, said):
    log.add_prediction(said())
    log.add_prediction(said(bundle_hash="c" * 64))

    assert [p.bundle_hash[0] for p in log.of_image("image-1")] == ["b", "c"]


def test_newest_predictions_come_first(log, said, noon):
    for hour in range(3):
        log.add_prediction(said(image_id=f"i{hour}", time=noon + timedelta(hours=hour)))

    assert [p.image_id for p in log.predictions(since=noon + timedelta(hours=1))] == ["i2", "i1"]
    assert [p.image_id for p in log.predictions(limit=1)] == ["i2"]


def test_times_keep_their_zone(log, said, noon):
    log.add_prediction(said())

    assert log.prediction(said().id).time.isoformat() == "2026-11-23T12:00:00+00:00"


def test_a_case_has_the_reads_of_its_image(log, said, noon):
    """A read stays with the image, whichever bundle it was shown."""
    first, second = log.add_prediction(said()), log.add_prediction(said(bundle_hash="c" * 64))
    log.add_correction(first.id, reader="reader-1", label="fracture", time=noon, boxes=[{"x": 1.0}], note="distal")

    (read,) = log.case(second.id).reads
    assert (read.reader, read.label, read.boxes, read.note) == ("reader-1", "fracture", ({"x": 1.0},), "distal")


def test_the_same_read_twice_is_one(log, said, noon):
    log.add_prediction(said())
    for _ in range(2):
        log.add_correction(said().id, reader="reader-1", label="fracture", time=noon)

    assert log.count() == (1, 1)


def test_a_read_needs_its_prediction(log, noon):
    with pytest.raises(DataError, match="no prediction 'nothing'"):
        log.add_correction("nothing", reader="reader-1", label="fracture", time=noon)


def test_settled_reads_wait_no_longer(log, said, noon):
    log.add_prediction(said())
    read = log.add_correction(said().id, reader="reader-1", label="fracture", time=noon)
    truth = Truth(image_id="image-1", time=noon, label="fracture", ai_visible=True, batch="feedback-1")
    for _ in range(2):
        log.settle([truth], [read.id], batch="feedback-1")

    assert log.corrections(pending_only=True) == []
    assert log.corrections()[0].settled == "feedback-1"
    assert log.truths() == {"image-1": truth}


def test_monitoring_reads_one_row_a_prediction(log, said, noon):
    """Quality in columns, embeddings as arrays, truth where readers settled it."""
    log.add_prediction(said())
    log.add_prediction(said(image_id="image-2", time=noon + timedelta(minutes=1)))
    log.settle([Truth(image_id="image-2", time=noon, label="fracture", ai_visible=False, batch="b")], [], batch="b")

    frame = log.frame()

    assert list(frame["image_id"]) == ["image-1", "image-2"]
    assert list(frame["sharpness"]) == [12.5, 12.5]
    np.testing.assert_array_equal(frame["embedding"][0], np.float32([0.5, -0.5]))
    assert np.isnan(frame["label"][0])
    assert frame["label"][1] == 1.0
    assert list(frame["ai_visible"]) == [None, False]
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"


def test_an_empty_log_has_the_columns(log):
    assert {"time", "probability", "embedding", "label", "ai_visible"} <= set(log.frame().columns)


def test_the_log_is_its_owners_alone(log, said, tmp_path):
    log.add_prediction(said())
    files = list((tmp_path / "log").iterdir())

    assert files
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}


def test_writers_side_by_side_lose_nothing(log, said):
    """Four writers of 25 rows each: a hundred rows."""

    def write(writer: int) -> None:
        for number in range(25):
            log.add_prediction(said(image_id=f"i{writer}-{number}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert log.count() == (100, 0)


def test_a_log_without_tables_says_how_to_make_them(tmp_path):
    with pytest.raises(ConfigError, match="no tables yet"):
        PredictionLog(f"sqlite:///{tmp_path / 'new.db'}").predictions()


def test_a_log_of_before_gets_the_index_by_patient(log, said, tmp_path):
    """A patient is counted without reading every row."""
    log.add_prediction(said())
    with sqlite3.connect(tmp_path / "log" / "serving.db") as connection:
        connection.execute("drop index ix_predictions_patient_id")
    log.create()
    with sqlite3.connect(tmp_path / "log" / "serving.db") as connection:
        (plan,) = connection.execute("explain query plan select count(*) from predictions where patient_id = 'p'")

    assert "ix_predictions_patient_id" in plan[3]
    assert log.count_of_patients({said().patient_id}) == (1, 0)


def test_a_prediction_set_comes_back(log, said):
    left = PredictionSet(labels=("fracture", "no_fracture"), coverage=0.9)
    log.add_prediction(said(prediction_set=left))

    assert log.prediction(said().id).prediction_set == left
    assert log.frame()["prediction_set"][0] == {"labels": ("fracture", "no_fracture"), "coverage": 0.9}


def test_a_log_of_schema_1_is_taken_over(log, said, tmp_path):
    """Its rows are read as they were written, without a set; new ones have theirs. Opening it again changes nothing."""
    log.add_prediction(said())
    with sqlite3.connect(tmp_path / "log" / "serving.db") as connection:
        connection.execute("alter table predictions drop column prediction_set")
        connection.execute("update schema_version set version = 1")
    left = PredictionSet(labels=("fracture",), coverage=0.9)
    for _ in range(2):
        log.create()
    log.add_prediction(said(image_id="image-2", prediction_set=left))

    assert [log.of_image(image)[0].prediction_set for image in ("image-1", "image-2")] == [None, left]
    assert log.prediction(said().id) == said()


def test_two_that_open_an_old_log_at_once_both_get_it(log, said, tmp_path):
    log.add_prediction(said())
    with sqlite3.connect(tmp_path / "log" / "serving.db") as connection:
        connection.execute("alter table predictions drop column prediction_set")
        connection.execute("update schema_version set version = 1")
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(PredictionLog(f"sqlite:///{tmp_path / 'log' / 'serving.db'}").create) for _ in "1234"]:
            done.result()

    assert log.prediction(said().id) == said()


def test_another_schema_is_not_guessed_at(log, tmp_path):
    with sqlite3.connect(tmp_path / "log" / "serving.db") as connection:
        connection.execute("update schema_version set version = 99")

    with pytest.raises(ConfigError, match=r"expected schema 2, found \[2, 99\]"):
        log.create()


def test_a_database_that_does_not_answer_is_unavailable(tmp_path):
    with pytest.raises(Unavailable):
        PredictionLog(f"sqlite:///{tmp_path / 'missing' / 'folder' / 'x.db'}").predictions()


def test_a_damaged_file_is_no_empty_log(tmp_path: Path):
    (tmp_path / "x.db").write_bytes(b"this is not a database" * 100)

    with pytest.raises(DataError, match="not a database"):
        PredictionLog(f"sqlite:///{tmp_path / 'x.db'}").create()


@pytest.mark.parametrize("url", ["nonsense", "oracle9000://x"])
def test_an_url_nobody_understands(url):
    with pytest.raises(ConfigError, match="OSTEOFLOW_DATABASE_URL"):
        PredictionLog(url)
