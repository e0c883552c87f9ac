"""A withdrawal: once, signed, and without the patient's pseudonym."""

from __future__ import annotations

import pytest

from components.dataset.retirements import marks
from components.errors import PromotionRefused
from components.promotion.ledger import SigningKey
from components.promotion.withdraw import withdraw, withdrawn


@pytest.fixture
def say(ledger, tmp_path):
    def act(patient="p" * 20, *, reason="asked by letter", user="reviewer"):
        return withdraw(
            ledger=ledger, patient=patient, images=2, data_versions=["c" * 40], models=[1, 3], reason=reason,
            user=user, key=SigningKey.open(tmp_path / "keys", "reviewer"),
        )  # fmt: skip

    return act


def test_a_withdrawal_says_what_held_the_patient(say, ledger):
    entry = say()

    assert (entry.kind, entry.signer) == ("withdrawal", "reviewer")
    assert entry.body == {
        "patient": marks(["p" * 20])[0], "images": 2, "data_versions": ["c" * 40], "models": [1, 3],
        "user": "reviewer", "reason": "asked by letter", "meaning": "this patient's data is withdrawn from further use",
    }  # fmt: skip
    assert "pppp" not in ledger.path.read_text()
    assert withdrawn(ledger, "p" * 20) == entry
    assert withdrawn(ledger, "q" * 20) is None


def test_a_patient_is_withdrawn_once(say):
    say()
    with pytest.raises(PromotionRefused, match="withdrawn already"):
        say()
    assert say("q" * 20).seq == 1


def test_it_takes_a_reason_and_ones_own_key(say, ledger):
    with pytest.raises(PromotionRefused, match="needs a reason"):
        say(reason=" ")
    with pytest.raises(PromotionRefused, match="the key of 'reviewer' cannot sign for 'somebody'"):
        say(user="somebody")
    assert ledger.entries() == []
