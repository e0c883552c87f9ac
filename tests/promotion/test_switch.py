"""The stop switch: one signed word takes AI output off, and nothing but another signed word gives it back."""

from __future__ import annotations

import pytest

from components.errors import PromotionRefused
from components.promotion.ledger import SigningKey
from components.promotion.roles import give
from components.promotion.switch import resume, stop


@pytest.fixture
def press(ledger, tmp_path):
    """`press("stop")`, `press("resume", user="engineer")`."""

    def act(what, *, reason="misses hips", user="reviewer", key=None):
        signing = SigningKey.open(tmp_path / "keys", key or user)
        return {"stop": stop, "resume": resume}[what](ledger=ledger, reason=reason, user=user, key=signing)

    return act


def test_a_stop_is_signed_with_name_reason_and_meaning(press, ledger):
    entry = press("stop")

    assert (entry.kind, entry.signer, entry.body["user"], entry.body["reason"]) == (
        "stop", "reviewer", "reviewer", "misses hips",
    )  # fmt: skip
    assert entry.body["meaning"] == "AI output is switched off everywhere"
    assert ledger.stops() == [entry]


def test_nothing_but_a_resumption_lifts_a_stop(press, house):
    """A new champion and the way back to an old one leave it standing."""
    house.live("one")
    press("stop")
    house.live("two")
    house.rollback()

    assert [entry.kind for entry in house.ledger.stops()] == ["stop"]


def test_a_resumption_lifts_every_stop_and_names_them(press, ledger):
    stops = [press("stop", reason=reason) for reason in ("misses hips", "wrong side marked")]
    entry = press("resume", reason="fixed", user="engineer")

    assert entry.body["lifts"] == [stop.hash for stop in stops]
    assert (entry.kind, entry.signer) == ("resume", "engineer")
    assert ledger.stops() == []


def test_an_unsigned_resumption_lifts_nothing(ledger):
    """Whoever can write the file still has to sign; an unsigned stop counts, for it does no harm."""
    ledger.append("stop", {"reason": "misses hips"})
    ledger.append("resume", {"reason": "never mind"})

    assert [entry.seq for entry in ledger.stops()] == [0]


def test_once_there_are_roles_only_a_reviewer_resumes(press, ledger, tmp_path):
    """Anybody stops; who is no reviewer is refused, and a resumption that they sign all the same lifts nothing."""
    for person, role in (("reviewer", "reviewer"), ("engineer", "engineer")):
        key = SigningKey.open(tmp_path / "keys", "operator")
        give(ledger=ledger, person=person, roles=(role,), user="operator", key=key)
    stopped = press("stop", user="engineer")
    with pytest.raises(PromotionRefused, match="'engineer' is no reviewer, who alone says that a model answers again"):
        press("resume", user="engineer")
    ledger.append("resume", {"reason": "over"}, key=SigningKey.open(tmp_path / "keys", "engineer"))

    assert ledger.stops() == [stopped]
    press("resume")
    assert ledger.stops() == []


def test_there_is_nothing_to_resume_when_nothing_is_stopped(press, ledger):
    with pytest.raises(PromotionRefused, match="there is nothing to resume"):
        press("resume")
    assert ledger.entries() == []


@pytest.mark.parametrize("what", ["stop", "resume"])
def test_it_takes_a_reason_and_ones_own_key(press, ledger, what):
    with pytest.raises(PromotionRefused, match="needs a reason, in your own words"):
        press(what, reason="  ")
    with pytest.raises(PromotionRefused, match="the key of 'engineer' cannot sign for 'reviewer'"):
        press(what, key="engineer")
    assert ledger.entries() == []
