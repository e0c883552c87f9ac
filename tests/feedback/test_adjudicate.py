"""From reads to label events: once, whole, and honest about who had seen the AI output."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.dataset.store import label_events
from components.feedback.adjudicate import Adjudication, adjudicate, learned_since
from components.params import Feedback
from components.promotion.ledger import Ledger
from components.serving.store import LoggedPrediction, PredictionLog

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RULES = Feedback(readers=2, audit_share=0.05, retrain_after=50)


@pytest.fixture
def log(tmp_path) -> PredictionLog:
    made = PredictionLog(f"sqlite:///{tmp_path / 'serving.db'}")
    made.create()
    return made


@pytest.fixture
def read(log) -> Callable[..., None]:
    """`read("image-1", "reader-1:fracture", "judge*:no_fracture", "reader-2:fracture blind")`: reads, in this order."""
    minute = iter(range(10_000))

    def make(image_id: str, *spoken: str, **extra) -> None:
        id = log.add_prediction(prediction(image_id)).id
        for text in spoken:
            reader, _, rest = text.partition(":")
            label, _, blind = rest.partition(" ")
            log.add_correction(
                id,
                reader=reader.rstrip("*"),
                label=label,
                time=NOON + timedelta(minutes=next(minute)),
                blinded=blind == "blind",
                adjudicator=reader.endswith("*"),
                **extra,
            )

    return make


@pytest.fixture
def settle(log, tmp_path) -> Callable[[], Adjudication]:
    return lambda: adjudicate(log=log, labels=tmp_path / "labels", params=RULES, now=NOON + timedelta(days=1))


@pytest.fixture
def number() -> Iterator[int]:
    return itertools.count()


def prediction(image_id: str) -> LoggedPrediction:
    return LoggedPrediction(
        id=LoggedPrediction.key(image_id, "b"), time=NOON, image_id=image_id, patient_id="p", study_id="s", site="a",
        device="d", view="frontal", body_region="wrist", bundle_hash="b", version="1", probability=0.1, logit=-2.0,
        call="no_fracture", audit=False, inclusion_probability=0.05, quality={}, embedding=(),
    )  # fmt: skip


def events(tmp_path):
    return label_events(tmp_path / "labels").to_dict("records")


def test_two_readers_who_agree_make_one_event(read, settle, tmp_path, log):
    read("image-1", "reader-1:fracture", "reader-2:fracture", boxes=[{"x": 1, "y": 2, "width": 3, "height": 4}])
    outcome = settle()

    assert (outcome.settled, outcome.overturned, outcome.events) == (1, 1, 1)
    (event,) = events(tmp_path)
    assert (event["image_id"], event["label"], event["reader"]) == ("image-1", "fracture", "reader-1+reader-2")
    assert (event["provenance"], bool(event["ai_visible"])) == ("adjudicated", True)
    assert log.corrections(pending_only=True) == []


def test_one_reader_is_waited_for(read, settle, tmp_path):
    read("image-1", "reader-1:fracture")

    assert settle() == Adjudication(settled=0, overturned=0, disagreements=0, waiting=1, events=0, batch=None)
    assert not (tmp_path / "labels").exists()


def test_disagreement_waits_for_an_adjudicator(read, settle, tmp_path):
    read("image-1", "reader-1:fracture", "reader-2:no_fracture")
    assert (settle().disagreements, settle().settled) == (1, 0)

    read("image-1", "reader-3*:no_fracture")
    assert settle().settled == 1
    assert [event["label"] for event in events(tmp_path)] == ["no_fracture"]


def test_unknown_never_settles(read, settle):
    read("image-1", "reader-1:unknown", "reader-2:unknown", "reader-3:unknown")

    assert (settle().settled, settle().waiting) == (0, 1)


def test_blind_reads_make_a_blind_truth(read, settle, tmp_path):
    read("image-1", "reader-1:fracture blind", "reader-2:fracture blind")
    settle()

    assert [bool(event["ai_visible"]) for event in events(tmp_path)] == [False]


def test_one_seeing_reader_makes_it_visible(read, settle, tmp_path):
    read("image-1", "reader-1:fracture blind", "reader-2:fracture")
    settle()

    assert [bool(event["ai_visible"]) for event in events(tmp_path)] == [True]


def test_a_later_seeing_reader_does_not_undo_a_blind_truth(read, settle, tmp_path):
    """Two people agreed blind; a third who saw the AI output contradicts: the truth stands and a judge is asked for."""
    read("image-1", "reader-1:fracture blind", "reader-2:fracture blind")
    settle()
    read("image-1", "reader-3:no_fracture")
    outcome = settle()

    assert (outcome.settled, outcome.disagreements) == (0, 1)
    assert [event["label"] for event in events(tmp_path)] == ["fracture"]


def test_an_adjudicator_can_undo_a_blind_truth(read, settle, tmp_path):
    read("image-1", "reader-1:fracture blind", "reader-2:fracture blind")
    settle()
    read("image-1", "reader-3*:no_fracture")
    settle()

    assert [(event["label"], bool(event["ai_visible"])) for event in events(tmp_path)][-1] == ("no_fracture", True)


def test_settling_again_adds_nothing(read, settle, tmp_path):
    read("image-1", "reader-1:fracture", "reader-2:fracture")
    first = settle()

    assert settle() == Adjudication(settled=0, overturned=0, disagreements=0, waiting=0, events=0, batch=None)
    assert first.batch is not None
    assert len(events(tmp_path)) == 1


def test_a_confirmation_adds_no_event(read, settle, log, tmp_path):
    read("image-1", "reader-1:fracture", "reader-2:fracture")
    batch = settle().batch
    read("image-1", "reader-3:fracture")

    assert settle().settled == 0
    assert {correction.settled for correction in log.corrections()} == {batch}
    assert len(events(tmp_path)) == 1


class Killed(BaseException):
    """Stands for a kill signal."""


def test_a_run_killed_before_its_mark_leaves_nothing_twice(read, settle, log, tmp_path, monkeypatch):
    """The shard is on disk, the reads are not marked: the next run marks them and adds no event."""

    def die(*_args, **_kwargs):
        raise Killed

    read("image-1", "reader-1:fracture", "reader-2:fracture")
    with monkeypatch.context() as patch:
        patch.setattr(PredictionLog, "settle", die)
        with pytest.raises(Killed):
            settle()
    read("image-1", "reader-3:fracture")
    read("image-2", "reader-1:no_fracture", "reader-2:no_fracture")
    outcome = settle()

    assert (outcome.settled, outcome.events) == (2, 1)
    assert sorted(event["image_id"] for event in events(tmp_path)) == ["image-1", "image-2"]
    assert log.corrections(pending_only=True) == []


def test_monitoring_sees_the_truth(read, settle, log):
    read("image-1", "reader-1:fracture blind", "reader-2:fracture blind")
    settle()

    assert log.frame()[["image_id", "label", "ai_visible"]].values.tolist() == [["image-1", 1.0, False]]


def test_boxes_belong_to_fractures(read, settle, tmp_path):
    """A box drawn by somebody who was outvoted does not survive in a negative truth."""
    read("image-1", "reader-1:no_fracture", "reader-2:no_fracture", boxes=[{"x": 1, "y": 2, "width": 3, "height": 4}])
    settle()
    (event,) = events(tmp_path)

    assert json.loads(event["boxes"]) == []


WORDS = st.builds("reader-{}{}:{}{}".format, st.sampled_from("123"), st.sampled_from(["", "", "*"]),
                  st.sampled_from(["fracture", "no_fracture", "unknown"]), st.sampled_from(["", " blind"]))  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(WORDS, max_size=4), then=st.lists(WORDS, max_size=3))
def test_every_case_is_in_one_place(read, settle, log, number, first, then):
    """Whatever is read, and however often it is settled: a read is settled or waits, and settling again is idle."""
    image_id = f"image-{next(number)}"
    for spoken in (first, then):
        read(image_id, *spoken)
        settle()
    again = settle()

    assert (again.settled, again.events) == (0, 0)
    mine = [read.settled for read in log.corrections(image_ids=[image_id])]
    assert len(mine) == len(first) + len(then)
    assert not any(mine) or log.truths([image_id])


def outcome(batch: str | None, settled: int) -> Adjudication:
    return Adjudication(settled=settled, overturned=0, disagreements=0, waiting=0, events=settled, batch=batch)


def test_what_was_learned_counts_until_the_next_judgement(tmp_path):
    """Each batch counts once; a judged challenger starts the count again."""
    ledger = Ledger(tmp_path / "ledger.jsonl")

    assert learned_since(ledger, outcome("feedback-1", 3), "c1") == 3
    assert learned_since(ledger, outcome("feedback-1", 3), None) == 3
    assert learned_since(ledger, outcome(None, 0), None) == 3
    assert learned_since(ledger, outcome("feedback-2", 2), "c2") == 5
    ledger.append("decision", {"verdict": "failed"})
    assert learned_since(ledger, outcome(None, 0), None) == 0


def test_the_message_counts():
    assert outcome("feedback-1", 3).message() == (
        "Settle 3 corrected cases (0 against the model); 0 disagree, 0 wait for a reader"
    )
