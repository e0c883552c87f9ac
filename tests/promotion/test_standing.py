"""Standing: a decision counts until the champion changes, and every champion has a signed way back to its decision."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import PromotionRefused
from components.promotion.ledger import Ledger
from tests.promotion.test_stages import case

NAME = "osteoflow-fracture"


def test_a_decision_that_another_champion_overtook_is_refused(house):
    """Two challengers judged against nothing: after the first is live, the second has to be judged again."""
    first, second = house.propose("one"), house.propose("two")
    house.judge(first)
    house.judge(second)
    house.approve(first)
    house.roll_out()

    with pytest.raises(
        PromotionRefused, match=r"judged against champion none .* it is 34a45580983d now; judge it again"
    ):
        house.approve(second)


def test_an_overtaken_approval_never_goes_live(house):
    """Approved but not rolled out when another became champion: it stays where it is, after a rollback too."""
    house.live("one")
    second, third = house.propose("two"), house.propose("three")
    house.judge(second)
    house.judge(third)
    house.approve(second)
    house.approve(third)

    assert [entry.body["version"] for entry in house.roll_out()] == [2]
    house.rollback()
    assert house.roll_out() == []
    assert house.champions == (1, 1)


def test_rollbacks_go_on_backwards(house):
    """Three champions, two rollbacks: the first serves, and there is nothing before it."""
    for key in ("one", "two", "three"):
        house.live(key)

    house.rollback()
    house.rollback()

    assert house.champions == (1, 1)
    with pytest.raises(PromotionRefused, match="there was no earlier champion; other champions so far: 2, 3"):
        house.rollback()


def test_a_rollback_can_name_its_version(house):
    """Only what was champion before can be champion without a new decision."""
    house.live("one")
    house.live("two")
    house.live("three")
    house.propose("four")

    with pytest.raises(PromotionRefused, match="there was no champion 4 before this one; other champions so far: 1, 2"):
        house.rollback(4)
    assert house.rollback(1).body["version"] == 1


def test_what_was_rolled_back_has_to_be_judged_again(house):
    """An old approval does not bring it back."""
    house.live("one")
    version = house.live("two")
    house.rollback()

    with pytest.raises(PromotionRefused, match="judge it again"):
        house.approve(version)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(
        st.sampled_from(["judge", "fail", "approve", "roll_out", "well", "ill", "rollback", "stray", "reconcile"]),
        max_size=14,
    ),
    which=st.lists(st.integers(1, 3), min_size=14, max_size=14),
)
def test_no_order_of_events_makes_an_unapproved_champion(house, tmp_path_factory, acts, which):
    """Property: whatever people and flows do, each stage and rollout follows a signed approval of a passed decision."""
    if not house.registry.versions(NAME):
        for key in ("one", "two", "three"):
            house.propose(key)
    house.ledger.path.unlink(missing_ok=True)
    for act, version in zip(acts, which, strict=False):
        try:
            if act in ("judge", "fail"):
                house.judge(version, verdict="passed" if act == "judge" else "failed")
            elif act == "approve":
                house.approve(version)
            elif act in ("well", "ill"):  # whatever is in a stage has met two cases, and the flow looks
                staged = house.ledger.staged(NAME)
                if staged:
                    house.cases[staged.hash] = [case(n, candidate=0.3 if act == "well" else None) for n in range(2)]
                house.roll_out(shadow_cases=2, canary_cases=2)
            elif act == "stray":
                house.registry.set_alias(NAME, version, "champion")
            else:
                getattr(house, act)()
        except PromotionRefused:
            pass

    entries = {entry.hash: entry for entry in Ledger(house.ledger.path).entries()}
    rollouts = [entry for entry in entries.values() if entry.kind == "rollout"]
    for rollout in [*rollouts, *(entry for entry in entries.values() if entry.kind == "stage")]:
        approval = entries[rollout.body["approval_hash"]]
        decision = entries[approval.body["decision_hash"]]
        assert (approval.kind, approval.signer) == ("approval", "reviewer")
        assert (decision.kind, decision.body["verdict"]) == ("decision", "passed")
        assert {e.body["bundle_hash"] for e in (rollout, approval, decision)} == {rollout.body["bundle_hash"]}
    assert len({rollout.body["approval_hash"] for rollout in rollouts}) == len(rollouts)
    house.roll_out()
    house.reconcile()
    assert house.champions[0] == house.champions[1]
