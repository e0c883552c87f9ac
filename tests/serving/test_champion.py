"""Whose word the service takes: that of people whose keys are in its key folder, at any moment."""

from __future__ import annotations

import pytest

from components.promotion.ledger import Ledger, SigningKey
from components.promotion.roles import give
from components.promotion.switch import resume, stop
from components.serving.champion import Champion, Off, Serving


@pytest.fixture
def champion(config, approved) -> Champion:
    """The service's view of a ledger that names an approved version."""
    return Champion(ledger=config.ledger, bundles=config.bundles, name=config.model, key_dir=config.key_dir)


def test_a_key_that_comes_or_goes_counts_at_once(champion, config):
    """The ledger does not move when somebody's key is put into the key folder, or taken out of it."""
    signer = Ledger(config.ledger).entries("approval")[0].signer
    here, away = config.key_dir / f"sign-{signer}.pem", config.ledger.parent / "elsewhere.pem"
    assert isinstance(champion.current(), Serving)
    here.rename(away)
    assert champion.current().reason == "unsigned"
    away.rename(here)

    assert isinstance(champion.current(), Serving)


def test_a_public_key_that_is_put_right_in_place_counts_at_once(champion, config):
    """An editor that keeps the file leaves the folder as it was."""
    signer = Ledger(config.ledger).entries("approval")[0].signer
    stated, key = config.key_dir / f"sign-{signer}.pub", SigningKey.open(config.key_dir, signer)
    assert isinstance(champion.current(), Serving)
    stated.write_text("abc")
    assert champion.current().reason == "unsigned"
    stated.write_text(key.public_key)

    assert isinstance(champion.current(), Serving)


def test_a_stop_that_a_stranger_lifted_stands_and_says_why(champion, config, tmp_path):
    """The command line knows no key folder but its own: there it looks as if nothing were to be lifted."""
    said = {"ledger": Ledger(config.ledger), "user": "stranger", "key": SigningKey.open(tmp_path / "own", "stranger")}
    stop(reason="drill", **said)
    resume(reason="over", **said)

    found = champion.current()
    assert isinstance(found, Off)
    assert found.sentence.endswith("has no key in the key folder (sign-NAME.pub), or is no reviewer.")


def moved_back(config, key) -> None:
    """A rollback entry to the version that serves, which was rolled out before."""
    ledger = Ledger(config.ledger)
    same = {fact: ledger.champion().body[fact] for fact in ("name", "version", "bundle_hash")}
    ledger.append("rollback", same | {"user": key.name, "reason": "back"}, key=key)


@pytest.mark.parametrize(("role", "found"), [("reviewer", Serving), ("engineer", Off)])
def test_once_there_are_roles_a_rollback_is_a_reviewers(champion, config, role, found):
    """The service counts for itself; before anybody was named, whoever has a key here may."""
    key, operator = (SigningKey.open(config.key_dir, name) for name in ("person", "operator"))
    moved_back(config, key)
    assert isinstance(champion.current(), Serving)
    give(ledger=Ledger(config.ledger), person="person", roles=(role,), user="operator", key=operator)
    assert isinstance(champion.current(), Serving)  # roles do not reach back
    moved_back(config, key)

    assert isinstance(champion.current(), found)


def test_a_strangers_rollback_silences_until_their_key_is_here(champion, config, tmp_path):
    """It moves nothing, and what somebody wanted to take back does not go on answering."""
    stranger = SigningKey.open(tmp_path / "own", "stranger")
    moved_back(config, stranger)
    found = champion.current()
    assert isinstance(found, Off)
    assert "was taken back by somebody whose key is not known here" in found.sentence
    (config.key_dir / "sign-stranger.pub").write_text(stranger.public_key)

    assert isinstance(champion.current(), Serving)


def test_a_reviewers_word_after_a_strangers_rollback_counts(champion, config, tmp_path):
    moved_back(config, SigningKey.open(tmp_path / "own", "stranger"))
    assert "with `osteoflow rollback --to`" in champion.current().sentence
    moved_back(config, SigningKey.open(config.key_dir, "reviewer"))

    assert isinstance(champion.current(), Serving)


def test_a_countersignature_counts_for_the_service_too(champion, config, state, tiny_bundle, publish):
    """One of two reviewers in place of a reader is not enough; the reader's signature is."""
    ledger, operator = Ledger(config.ledger), SigningKey.open(config.key_dir, "operator")
    for person, role in (("reviewer", "reviewer"), ("second", "reviewer"), ("reader-1", "reader")):
        give(ledger=ledger, person=person, roles=(role,), user="operator", key=operator)
    publish(state, tiny_bundle, version=2, signers={"reviewer": 1, "reader": 1})
    said, moved = ledger.entries("approval")[-1].body, ledger.entries("rollout")[-1].body
    for person, found in (("second", Off), ("reader-1", Serving)):
        key = SigningKey.open(config.key_dir, person)
        approval = ledger.append("approval", said | {"approver": person}, key=key)
        ledger.append("rollout", moved | {"approval_hash": approval.hash})
        assert isinstance(champion.current(), found)
