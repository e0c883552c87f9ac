"""Whose word the service takes: that of people whose keys are in its key folder, at any moment."""

from __future__ import annotations

import pytest

from components.promotion.ledger import Ledger, SigningKey
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


def test_a_stop_that_a_stranger_lifted_stands_and_says_why(champion, config, tmp_path):
    """The command line knows no key folder but its own: there it looks as if nothing were to be lifted."""
    said = {"ledger": Ledger(config.ledger), "user": "stranger", "key": SigningKey.open(tmp_path / "own", "stranger")}
    stop(reason="drill", **said)
    resume(reason="over", **said)

    found = champion.current()
    assert isinstance(found, Off)
    assert found.sentence.endswith("Whoever lifted that has no key in the key folder (sign-NAME.pub).")
