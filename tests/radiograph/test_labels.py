"""Labels are three-valued, and said once."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from components.errors import UnknownLabel
from components.radiograph.labels import Box, LabelEvent, to_value

SAID = {"image_id": "i1", "time": "2026-01-01T00:00:00Z", "label": "fracture", "reader": "reader-1"}


@pytest.mark.parametrize(("label", "value"), [("fracture", 1.0), ("no_fracture", 0.0), ("unknown", None)])
def test_unknown_is_not_zero(label, value):
    assert to_value(label) == value


@pytest.mark.parametrize("label", ["", "FRACTURE", "maybe", "1", "nan"])
def test_other_words_are_refused(label):
    with pytest.raises(UnknownLabel, match="is not one of"):
        to_value(label)


def test_an_event_outside_the_vocabulary_is_refused():
    with pytest.raises(UnknownLabel):
        LabelEvent.new(**{**SAID, "label": "broken"}, provenance="archive")


def test_an_archive_says_a_thing_once():
    """Reading the same archive in again, later, makes the same event."""
    first = LabelEvent.new(**SAID, provenance="archive")
    again = LabelEvent.new(**{**SAID, "time": "2027-01-01T00:00:00Z"}, provenance="archive")

    assert first.event_id == again.event_id


def test_a_clinician_may_say_it_again():
    first = LabelEvent.new(**SAID, provenance="clinician")
    again = LabelEvent.new(**{**SAID, "time": "2027-01-01T00:00:00Z"}, provenance="clinician")

    assert first.event_id != again.event_id


@pytest.mark.parametrize(
    "other", [{"label": "no_fracture"}, {"image_id": "i2"}, {"reader": "reader-2"}, {"ai_visible": True}]
)
def test_what_is_said_differently_is_another_event(other):
    assert (
        LabelEvent.new(**SAID, provenance="archive").event_id
        != LabelEvent.new(**{**SAID, **other}, provenance="archive").event_id
    )


@pytest.mark.parametrize("size", [0, -1])
def test_a_box_has_an_inside(size):
    with pytest.raises(ValidationError):
        Box(x=0, y=0, width=size, height=4)
