"""Somebody who can write the ledger's file and make a key: their words count nowhere, and are named."""

from __future__ import annotations

import pytest

from components.errors import ConfigError, PromotionRefused
from components.promotion.approve import approve, reconcile, roll_out, rollback
from components.promotion.audit import of_stranger
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.registry_rules import Rules
from components.promotion.roles import Roll, give
from components.promotion.testset import Standing
from components.promotion.way import Way
from components.promotion.words import counts
from tests.promotion.conftest import NAME
from tests.protocols import AT_ONCE


@pytest.fixture
def site(house, tmp_path):
    """The site's own view of the ledger, which `house.ledger` writes as anybody with the file can."""
    return Ledger(house.ledger.path, key_dir=tmp_path / "keys")


@pytest.fixture
def mine(tmp_path):
    """`mine(name)`: a key that this site has not."""
    return lambda name: SigningKey.open(tmp_path / "elsewhere", name)


def promoted(house, site):
    """What the flow `promote` does: the steps it takes, what it tells, and where the alias is then."""
    where = {"ledger": site, "registry": house.registry, "name": NAME}
    taken = roll_out(**where, plan=AT_ONCE, compared=lambda _: [])
    reconcile(**where)
    carrier = house.registry.at(NAME, "champion")
    return taken, Way.of(site, NAME, taken, lambda _: []).text(), carrier and carrier.version


def test_promote_passes_over_a_strangers_approval_and_names_it(house, site, mine):
    """Perfect in form; neither ledger nor alias moves, until the key is in the key folder."""
    live, version = house.live("one"), house.propose("two")
    house.judge(version)
    forged = house.approve(version, approver="reviewer-b", key=mine("reviewer-b"))
    before = len(site.whole())
    taken, told, alias = promoted(house, site)
    assert (taken, alias, len(site.whole())) == ([], live, before)
    assert told == (
        f"Version 1 is champion. Passed over: ledger entry {forged.seq} (approval): 'reviewer-b' signed with a key "
        "that the key folder does not have of that name (sign-NAME.pub); it counts for nothing."
    )

    (site._key_dir / "sign-reviewer-b.pub").write_text(mine("reviewer-b").public_key)
    taken, _, alias = promoted(house, site)
    assert ([step.kind for step in taken], alias) == (["rollout"], version)


def test_a_strangers_signature_is_not_the_second(house, site, mine):
    version = house.propose("one")
    house.judge(version, signers=2)
    house.approve(version)
    house.approve(version, approver="reviewer-b", key=mine("reviewer-b"))

    assert promoted(house, site)[0] == []


def test_a_key_that_comes_while_its_version_is_in_a_stage_holds_nothing_up(house, site, mine):
    """The first of three becomes one of the two that were wanted; the stage, which began with the third, goes on."""
    house.live("one")
    version = house.propose("two")
    house.judge(version, signers=2)
    for person in ("reviewer-a", "reviewer-b", "reviewer-c"):
        house.approve(version, approver=person, key=mine(person) if person == "reviewer-a" else None)
    where = {"ledger": site, "registry": house.registry, "name": NAME, "compared": lambda _: []}
    (stage,) = roll_out(**where, plan=AT_ONCE.model_copy(update={"shadow_cases": 1}))
    (site._key_dir / "sign-reviewer-a.pub").write_text(mine("reviewer-a").public_key)
    house.judge(version, verdict="failed")

    (back,) = roll_out(**where, plan=AT_ONCE)
    assert (back.kind, back.body["stage_hash"]) == ("return", stage.hash)


def test_a_strangers_rollback_moves_no_alias(house, site, mine):
    """The service falls silent for it (test_attacks); the ledger, the alias and the gate's champion stay."""
    house.live("one")
    live = house.live("two")
    body = {"name": NAME, "version": 1, "bundle_hash": house.registry.version(NAME, 1).bundle_hash}
    house.ledger.append("rollback", body | {"user": "b", "reason": "back"}, key=mine("b"))

    assert promoted(house, site)[2] == live
    assert site.champion(NAME).body["version"] == live


def test_nobody_has_a_role_from_a_stranger(house, site, mine, tmp_path):
    """Guard, approval and clinic ask the same roll; whoever was named by a known key keeps what that said."""
    give(ledger=site, person="engineer-b", roles=("engineer",), user="operator", key=house.key("operator"))
    said = {"ledger": house.ledger, "roles": ("reviewer", "reader"), "user": "operator-b", "key": mine("operator-b")}
    for person in ("engineer-b", "nobody"):
        give(person=person, **said)
    version = house.propose("one")
    house.judge(version)
    roll = Rules(ledger=site, registry=house.registry, key_dir=tmp_path / "keys").roll()

    assert (roll.of("engineer-b"), roll.of("nobody"), roll.holders("reader")) == ({"engineer"}, frozenset(), [])
    with pytest.raises(PromotionRefused, match="'engineer-b' is none of those who sign here"):
        approve(
            ledger=site, registry=house.registry, name=NAME, version=version, approver="engineer-b", rationale="mine",
            key=house.key("engineer-b"),
        )  # fmt: skip


def test_a_stranger_neither_resumes_nor_unseals(house, site, mine):
    """A stop and a withdrawal are anybody's: they hold back. What lifts them, or retires test patients, is not."""
    for kind, body in (
        ("stop", {"reason": "drill"}),
        ("withdrawal", {"patient": "0" * 16}),
        ("resume", {"reason": "over"}),
        ("refresh", {"name": NAME, "retired": ["0" * 16]}),
    ):
        house.ledger.append(kind, body, key=mine("stranger"))

    assert [entry.kind for entry in site.stops()] == ["stop"]
    assert [entry.kind for entry in site.entries()] == ["stop", "withdrawal"]
    assert Standing.of(site, NAME).retired == frozenset()


def test_an_unsigned_word_is_a_strangers(house, site):
    house.ledger.append("role", {"person": "b", "roles": ["reviewer"], "user": "operator"})

    assert [of_stranger(word) for word in site.strangers()] == [
        "ledger entry 0 (role): nobody signed it; it counts for nothing"
    ]
    assert site.entries()[0].signer is None
    assert (Roll(site.entries()).of("b"), bool(Roll(site.entries()))) == (frozenset(), True)


def test_without_the_key_of_who_gave_the_roles_nobody_has_one(house, site, tmp_path):
    """Closed rather than open: before anybody was named, everybody may sign, and that time does not come back."""
    give(ledger=site, person="reviewer", roles=("reviewer",), user="operator", key=house.key("operator"))
    version = house.propose("one")
    house.judge(version)
    house.approve(version)
    (tmp_path / "keys" / "sign-operator.pem").rename(tmp_path / "away.pem")

    assert promoted(house, site)[0] == []
    (tmp_path / "away.pem").rename(tmp_path / "keys" / "sign-operator.pem")
    assert [step.kind for step in promoted(house, site)[0]] == ["rollout"]


def test_who_lost_a_role_with_somebodys_key_signs_again(house, site, tmp_path):
    """What was signed before counts no more, and does not stand in the way of a signature that does."""
    for name in ("operator", "other"):
        house.key(name)
    give(ledger=site, person="reviewer", roles=("reviewer",), user="operator", key=house.key("operator"))
    version = house.propose("one")
    house.judge(version)
    said = {"ledger": site, "registry": house.registry, "name": NAME, "version": version, "approver": "reviewer"}
    said |= {"rationale": "fewer misses", "key": house.key("reviewer")}
    first = approve(**said)
    assert approve(**said) == first
    (tmp_path / "keys" / "sign-operator.pem").unlink()
    give(ledger=site, person="reviewer", roles=("reviewer",), user="other", key=house.key("other"))
    again = approve(**said)

    assert again.seq > first.seq
    assert promoted(house, site)[0][0].body["approval_hash"] == again.hash


def test_a_reviewer_returns_to_the_champion_that_a_stranger_silenced(house, site, mine):
    """By its number: whoever forged the rollback does not take a site's only model away."""
    live = house.live("one")
    back = {"ledger": site, "registry": house.registry, "name": NAME, "to_version": live, "reason": "forged"}
    back |= {"user": "reviewer", "key": house.key("reviewer")}
    with pytest.raises(PromotionRefused, match="there was no champion 1 before this one"):
        rollback(**back)
    body = {"name": NAME, "version": live, "bundle_hash": house.registry.version(NAME, live).bundle_hash}
    house.ledger.append("rollback", body | {"user": "b", "reason": "back"}, key=mine("b"))
    entry = rollback(**back)

    assert (entry.body["version"], entry.body["replaced_version"]) == (live, live)
    assert site.champion(NAME) == entry


def test_who_would_not_be_heard_writes_nothing(house, site, tmp_path):
    """The key folder states another public key for this name than the private one beside it has."""
    (tmp_path / "keys").mkdir(mode=0o700, exist_ok=True)
    key = house.key("reviewer")
    (tmp_path / "keys" / "sign-reviewer.pub").write_text("ab" * 32)

    with pytest.raises(ConfigError, match="the key folder states another key of 'reviewer'"):
        site.append("resume", {"reason": "over"}, key=key)
    assert site.append("stop", {"reason": "drill"}, key=key).seq == 0


def test_once_there_are_roles_only_a_reviewer_rolls_back(house, site, tmp_path):
    """Who is none is told of the switch that everybody may press."""
    house.live("one")
    house.live("two")
    for person, role in (("reviewer", "reviewer"), ("engineer", "engineer")):
        give(ledger=site, person=person, roles=(role,), user="operator", key=house.key("operator"))

    with pytest.raises(PromotionRefused, match=r"'engineer' is no reviewer.*`osteoflow stop`.*open to everybody"):
        house.rollback(user="engineer")
    assert house.champions == (2, 2)
    house.rollback(user="reviewer")
    assert house.champions == (1, 1)


@pytest.mark.parametrize(("signer", "heard"), [("a", True), ("b", False), (None, False)])
def test_whose_word_an_entry_is(house, signer, heard):
    """By name and key together; a name that nobody has a key of is nobody."""
    entry = house.ledger.append("approval", {}, key=house.key(signer) if signer else None)

    assert counts(entry, {"a": house.key("a").public_key}.get) is heard
    assert counts(entry.model_copy(update={"kind": "stop"}), {}.get)
    assert counts(entry, None)
