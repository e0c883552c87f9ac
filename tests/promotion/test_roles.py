"""Roles: the ledger's last signed word about a person counts, and an approval asks for it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import ConfigError, PromotionRefused
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.roles import ROLES, Roll, give


@pytest.fixture
def name(ledger, tmp_path):
    """`name(person, *roles)`: the operator gives these roles."""
    key = SigningKey.open(tmp_path / "keys", "operator")
    return lambda person, *roles: give(ledger=ledger, person=person, roles=roles, user="operator", key=key)


def test_the_entry_says_who_gave_what_to_whom(ledger, name):
    entry = name("reviewer-a", "reviewer", "engineer")

    assert entry.body == {"person": "reviewer-a", "roles": ["engineer", "reviewer"], "user": "operator"}
    assert (entry.signer, ledger.verify()) == ("operator", 1)


def test_saying_what_holds_adds_nothing(ledger, name):
    assert name("reviewer-a", "reviewer").hash == name("reviewer-a", "reviewer").hash
    assert len(ledger.entries()) == 1


def test_an_unsigned_word_gives_no_role(ledger):
    """Whoever can write the file still has to sign."""
    ledger.append("role", {"person": "engineer", "roles": ["reviewer"], "user": "operator"})

    assert Roll(ledger.entries()).of("engineer") == frozenset()


@pytest.mark.parametrize(
    ("person", "roles", "error", "reason"),
    [
        ("reviewer-b", ("chief",), ConfigError, "chief: no such role; there are engineer, reviewer"),
        ("b/../c", ("reader",), ConfigError, "is no user name"),
        ("Reviewer-A", ("reviewer",), ConfigError, "reviewer-a is known already; two names that differ by case"),
        ("flows", ("service", "reviewer"), PromotionRefused, "holds the role service alone"),
    ],
)
def test_what_is_no_role_of_a_person_is_refused(ledger, name, person, roles, error, reason):
    name("reviewer-a", "reviewer")

    with pytest.raises(error, match=reason):
        name(person, *roles)
    assert len(ledger.entries()) == 1


def test_nobody_signs_a_role_in_another_name(ledger, tmp_path):
    with pytest.raises(PromotionRefused, match="the key of 'engineer' cannot sign for 'operator'"):
        give(
            ledger=ledger, person="engineer", roles=("reviewer",), user="operator",
            key=SigningKey.open(tmp_path / "keys", "engineer"),
        )  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(
        st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from([r for r in ROLES if r != "service"]))), max_size=8
    )
)
def test_the_last_word_about_each_person_counts(ledger, name, said):
    """Property: the roll is what a plain dictionary would hold, read at once or entry by entry."""
    ledger.path.unlink(missing_ok=True)
    wanted = {}
    for person, roles in said:
        name(person, *roles)
        wanted[person] = frozenset(roles)
    entries = Ledger(ledger.path).entries()
    slowly = Roll()
    for entry in entries:
        slowly.read(entry)

    assert {p: Roll(entries).of(p) for p in Roll(entries).people()} == wanted
    assert {p: slowly.of(p) for p in slowly.people()} == wanted


def test_once_anybody_has_a_role_only_a_reviewer_approves(house, name):
    """An engineer is refused; so is a reviewer who was removed, whose key and earlier entries are still there."""
    version = house.propose("one", proposer="engineer-b")
    house.judge(version)
    name("engineer", "engineer")
    name("reviewer", "reviewer")
    with pytest.raises(PromotionRefused, match=r"'engineer' is none of those who sign here \(1 reviewer\)"):
        house.approve(version, approver="engineer")
    assert house.approve(version).signer == "reviewer"
    house.roll_out()

    second = house.propose("two")
    house.judge(second)
    name("reviewer")
    with pytest.raises(PromotionRefused, match="'reviewer' is none of those"):
        house.approve(second)
    assert house.roll_out() == []
    assert house.champions == (1, 1)


def test_a_signature_outlives_the_role_it_was_given_in(house, name):
    """Signed as a reviewer, removed before the roll-out: the approval stands, as on paper."""
    name("reviewer", "reviewer")
    version = house.propose("one")
    house.judge(version)
    house.approve(version)
    name("reviewer")

    assert [entry.body["version"] for entry in house.roll_out()] == [1]
