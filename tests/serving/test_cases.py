"""When readers agree, when they need an adjudicator, and how long an audit case stays blind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.serving.cases import Case, Correction, agreement, confidence

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


def reads(*spoken: str) -> list[Correction]:
    """`reads("1:fracture", "2:no_fracture", "judge*:fracture", "1:fracture blind")`, in this order."""
    made = []
    for number, text in enumerate(spoken):
        reader, _, rest = text.partition(":")
        label, _, blind = rest.partition(" ")
        made.append(
            Correction(
                id=str(number),
                prediction_id="p",
                image_id="i",
                time=START + timedelta(minutes=number),
                reader=reader.rstrip("*"),
                adjudicator=reader.endswith("*"),
                label=label,
                blinded=blind == "blind",
            )
        )
    return made


@pytest.mark.parametrize(
    ("spoken", "label", "disagree"),
    [
        (["1:fracture"], None, False),
        (["1:fracture", "2:fracture"], "fracture", False),
        (["1:fracture", "1:fracture"], None, False),
        (["Reader-1:fracture", " reader-1 :fracture"], None, False),
        (["1:fracture", "2:no_fracture"], None, True),
        (["1:fracture", "2:no_fracture", "3:fracture"], None, True),
        (["1:fracture", "2:no_fracture", "3*:no_fracture"], "no_fracture", False),
        (["1:fracture", "2:no_fracture", "1*:fracture"], None, True),
        (["1:fracture", "2:no_fracture", "3*:fracture", "4*:no_fracture"], None, True),
        (["1:fracture", "2:no_fracture", "2:fracture"], "fracture", False),
        (["1:fracture", "2:unknown"], None, False),
        (["1:unknown", "2:unknown", "3:unknown"], None, False),
        (["1:fracture", "2:unknown", "3:fracture"], "fracture", False),
        (["1*:fracture"], None, False),
    ],
)
def test_the_reading_protocol(spoken, label, disagree):
    """Two people settle; a third person decides a disagreement as adjudicator; nobody judges their own."""
    found = agreement(reads(*spoken), readers=2)

    assert (found.label, found.disagree) == (label, disagree)


WORDS = st.builds(
    "{}{}:{}".format,
    st.sampled_from("1234"),
    st.sampled_from(["", "", "*"]),
    st.sampled_from(["fracture", "no_fracture", "unknown"]),
)


@given(st.lists(WORDS, max_size=8), st.integers(1, 3))
def test_a_settled_label_is_somebodys_word(spoken, readers):
    """A label stands only with reads that say it, by enough people unless an adjudicator decided; never "unknown"."""
    found = agreement(reads(*spoken), readers)

    assert found.label in (None, "fracture", "no_fracture")
    assert not (found.label and found.disagree)
    if found.label:
        assert {read.label for read in found.reads} == {found.label}
        people = {read.reader for read in found.reads}
        assert len(people) >= readers or any(read.adjudicator for read in found.reads)


@given(st.lists(WORDS, max_size=8))
def test_the_order_of_rows_does_not_matter(spoken):
    """Time orders reads, not the database."""
    told = reads(*spoken)

    assert agreement(told, 2) == agreement(reversed(told), 2)


@pytest.mark.parametrize(
    ("spoken", "hidden"),
    [
        ([], True),
        (["1:fracture blind"], True),
        (["1:fracture blind", "2:fracture blind"], False),
        (["1:fracture blind", "1:fracture blind"], True),
        (["1:fracture", "2:fracture"], True),
        (["1:fracture blind", "2:no_fracture blind"], True),
        (["1:fracture blind", "2:no_fracture blind", "3*:unknown blind"], False),
        (["1:unknown blind", "2:unknown blind"], False),
        (["1:fracture blind", "2:unknown blind"], True),
    ],
)
def test_an_audit_case_is_blind_until_its_blind_reads_have_ended(said, spoken, hidden):
    case = Case(prediction=said(audit=True), reads=tuple(reads(*spoken)))

    assert case.withheld(2) is hidden


def test_other_cases_are_never_withheld(said):
    assert not Case(prediction=said(audit=False), reads=()).withheld(2)


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.001, "fewer than 1 in 100"),
        (0.04, "about 4 in 100"),
        (0.7, "about 7 in 10 "),
        (0.94, "about 94 in 100"),
        (0.999, "more than 99 in 100"),
    ],
)
def test_a_probability_in_words(probability, words):
    assert confidence(probability).startswith(words)
