"""Approving: nothing becomes champion without a passed decision and a named person, and the ledger always wins."""

from __future__ import annotations

import pytest

from components.errors import ConfigError, PromotionRefused

NAME = "osteoflow-fracture"


def test_an_approval_is_signed_and_bound_to_the_decision(house):
    """Who, why, what it means, which bundle, which decision: all under one valid signature."""
    version = house.propose("one")
    decision = house.judge(version)

    entry = house.approve(version, rationale="  fewer misses ")

    assert entry.body == {
        "name": NAME,
        "version": 1,
        "bundle_hash": house.registry.version(NAME, 1).bundle_hash,
        "decision_hash": decision.hash,
        "approver": "reviewer",
        "rationale": "fewer misses",
        "meaning": "approved for clinical decision support use as champion",
    }
    assert (entry.signer, house.ledger.verify()) == ("reviewer", 2)


def test_what_was_not_judged_is_refused(house):
    """No decision, no approval."""
    version = house.propose("one")

    with pytest.raises(PromotionRefused, match="version 1: the gate has not judged it"):
        house.approve(version)


def test_what_failed_is_refused(house):
    """The last word of the gate counts, also after an earlier pass."""
    version = house.propose("one")
    house.judge(version)
    house.judge(version, verdict="failed")

    with pytest.raises(PromotionRefused, match=r"the gate said 'failed' \(ledger entry 1\), not 'passed'"):
        house.approve(version)


def test_the_decision_about_another_version_does_not_count(house):
    """A pass belongs to one version."""
    house.judge(house.propose("one"))
    second = house.propose("two")

    with pytest.raises(PromotionRefused, match="version 2: the gate has not judged it"):
        house.approve(second)


def test_another_bundle_than_the_judged_one_is_refused(house, tmp_path):
    """Who swaps the artifact after the gate gets no signature for it."""
    version = house.propose("one")
    house.judge(version)
    (manifest,) = (tmp_path / "artifacts").rglob("manifest.json")
    manifest.write_text('{"parts": {}}')

    with pytest.raises(PromotionRefused, match="the registry holds bundle 21df7bdb0379, the gate judged 34a45580983d"):
        house.approve(version)


def test_nobody_approves_their_own(house):
    """Approver and proposer are two people."""
    version = house.propose("one", proposer="reviewer")
    house.judge(version)

    with pytest.raises(PromotionRefused, match="'reviewer' proposed it; another person has to approve it"):
        house.approve(version)


def test_an_approval_needs_words(house):
    """Blank is no rationale."""
    version = house.propose("one")
    house.judge(version)

    with pytest.raises(PromotionRefused, match="needs a rationale"):
        house.approve(version, rationale="  \n")


def test_nobody_signs_for_somebody_else(house):
    """The key's name is the approver's."""
    version = house.propose("one")
    house.judge(version)

    with pytest.raises(PromotionRefused, match="the key of 'engineer' cannot sign for 'reviewer'"):
        house.approve(version, key=house.key("engineer"))


def test_an_unknown_version_is_no_refusal(house):
    """A typing error is told from a rule."""
    with pytest.raises(ConfigError, match="there is no version 4; registered: none"):
        house.approve(4)


def test_saying_it_twice_adds_one_entry(house):
    """The same person about the same decision: the first entry again."""
    version = house.propose("one")
    house.judge(version)

    assert house.approve(version).hash == house.approve(version, rationale="again").hash
    assert house.kinds == ["decision", "approval"]


def test_rolling_out_happens_exactly_once(house, tmp_path):
    """One rollout entry, the bundle fetched by its hash, the alias moved; a second call does nothing."""
    version = house.propose("one")
    house.judge(version)
    approval = house.approve(version)

    (entry,) = house.roll_out()

    assert house.roll_out() == []
    assert entry.body["approval_hash"] == approval.hash
    assert (tmp_path / "bundles" / entry.body["bundle_hash"] / "manifest.json").is_file()
    assert house.kinds == ["decision", "approval", "rollout"]
    assert house.registry.version(NAME, 1).aliases == ("champion",)


def test_nothing_is_rolled_out_without_an_approval(house):
    """A pass alone moves nothing."""
    house.judge(house.propose("one"))

    assert house.roll_out() == []
    assert house.champions == (None, None)


def test_an_unsigned_approval_is_not_rolled_out(house):
    """An entry anyone could have appended makes no champion."""
    version = house.propose("one")
    decision = house.judge(version)
    body = {"name": NAME, "version": 1, "bundle_hash": decision.body["bundle_hash"], "decision_hash": decision.hash}
    house.ledger.append("approval", body)

    assert house.roll_out() == []


def test_a_swapped_bundle_is_not_rolled_out(house, tmp_path):
    """Between approval and rollout nothing may change either."""
    version = house.propose("one")
    house.judge(version)
    house.approve(version)
    (manifest,) = (tmp_path / "artifacts").rglob("manifest.json")
    manifest.write_text('{"parts": {}}')

    with pytest.raises(PromotionRefused, match="expected bundle 34a45580983d, found 21df7bdb0379 in the registry"):
        house.roll_out()
    assert house.kinds == ["decision", "approval"]


def test_swapped_weights_under_the_approved_manifest_are_not_rolled_out(house, tmp_path):
    """The hash names the manifest, the manifest names every part; nothing of it stays where the service looks."""
    version = house.propose("one")
    house.judge(version)
    house.approve(version)
    (weights,) = (tmp_path / "artifacts").rglob("model.tflite")
    weights.write_bytes(b"other weights")

    with pytest.raises(PromotionRefused, match=r"model.tflite is 53959fa102f3, the manifest says .* does not go live"):
        house.roll_out()
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_rollback_returns_to_the_champion_before(house):
    """Signed, with the reason, and the alias follows."""
    house.live("one")
    house.live("two")

    entry = house.rollback(reason="misses hip fractures")

    assert (entry.body["version"], entry.body["replaced_version"], entry.signer) == (1, 2, "reviewer")
    assert entry.body["reason"] == "misses hip fractures"
    assert house.champions == (1, 1)


def test_a_rollback_needs_a_champion_and_a_reason(house):
    """And says which is missing."""
    with pytest.raises(PromotionRefused, match="there is no champion to roll back"):
        house.rollback()
    with pytest.raises(PromotionRefused, match="a rollback needs a reason"):
        house.rollback(reason=" ")


def test_reconcile_moves_a_strayed_alias_back(house):
    """The ledger wins, and what was wrong is said."""
    house.live("one")
    version = house.propose("two")
    house.registry.set_alias(NAME, version, "champion")

    said = house.reconcile()

    assert said == f"{NAME}: the alias champion was on version 2, the ledger names version 1; moved back"
    assert house.champions == (1, 1)
    assert house.reconcile() is None


def test_reconcile_takes_off_and_puts_on(house):
    """An alias nobody signed goes; one that was deleted comes back."""
    version = house.propose("one")
    house.registry.set_alias(NAME, version, "champion")
    assert house.reconcile() == f"{NAME}: version 1 carried the alias champion, the ledger names none; taken off"

    house.judge(version)
    house.approve(version)
    house.roll_out()
    house.registry.delete_alias(NAME, "champion")
    assert (
        house.reconcile() == f"{NAME}: the alias champion was on version none, the ledger names version 1; moved back"
    )
    assert house.champions == (1, 1)


def test_reconcile_waits_for_an_approval_under_way(house):
    """The guard lets the alias move first; the rollout follows it."""
    version = house.propose("one")
    house.judge(version)
    house.approve(version)
    house.registry.set_alias(NAME, version, "champion")

    assert house.reconcile() is None
    assert [entry.body["version"] for entry in house.roll_out()] == [1]


def test_a_kill_between_ledger_and_alias_is_repaired(house):
    """The entry came first, so the alias can be put right from it."""
    house.live("one")
    version = house.propose("two")
    house.judge(version)
    approval = house.approve(version)
    same = {key: approval.body[key] for key in ("name", "version", "bundle_hash", "decision_hash")}
    house.ledger.append("rollout", same | {"approval_hash": approval.hash})

    assert house.champions == (2, 1)
    assert house.roll_out() == []
    house.reconcile()
    assert house.champions == (2, 2)
