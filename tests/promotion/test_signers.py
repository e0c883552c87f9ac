"""Several signers: as many people of each role as the decision's own protocol asks for, or nothing goes live."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import PromotionRefused
from components.gate_params import Signers
from components.promotion.approve import approve, roll_out
from components.promotion.audit import Finding, promoted
from components.promotion.ledger import Entry, Ledger, SigningKey
from components.promotion.registry import Registry
from components.promotion.roles import give
from components.promotion.signers import Signed, behind
from components.promotion.way import Way
from tests.promotion.conftest import NAME, REPOSITORY
from tests.protocols import AT_ONCE


@pytest.fixture
def asked(house):
    """A version whose decision asks for two signatures, and the decision."""
    version = house.propose("one")
    return version, house.judge(version, signers=2)


def test_the_first_of_two_moves_nothing_and_the_second_does(house, asked):
    """The rollout names the approval that completed it."""
    version, _ = asked
    first = house.approve(version, approver="reviewer-a")
    assert behind(first, house.ledger.entries()).text() == "signed 1 of 2; another reviewer has to sign"
    assert house.roll_out() == []
    assert house.champions == (None, None)
    said = Way.of(house.ledger, NAME, [], lambda _: []).text()
    assert said == "There is no champion. Version 1: signed 1 of 2; another reviewer has to sign."

    second = house.approve(version, approver="reviewer-b")

    (rollout,) = house.roll_out()
    assert rollout.body["approval_hash"] == second.hash
    assert house.champions == (1, 1)
    assert house.roll_out() == []


def test_a_third_signature_changes_nothing(house, asked):
    version, _ = asked
    for reviewer in ("reviewer-a", "reviewer-b", "reviewer-c"):
        house.approve(version, approver=reviewer)

    assert len(house.roll_out()) == 1
    assert house.roll_out() == []


def test_the_same_person_twice_is_one(house, asked):
    version, _ = asked
    first = house.approve(version, approver="reviewer-a")

    assert house.approve(version, approver="reviewer-a", rationale="again").hash == first.hash
    assert house.roll_out() == []


def test_one_key_under_two_names_is_one(house, asked, tmp_path):
    """Somebody copies their key file to a second name."""
    version, decision = asked
    house.approve(version, approver="reviewer-a")
    shutil.copy(tmp_path / "keys" / "sign-reviewer-a.pem", tmp_path / "keys" / "sign-reviewer-b.pem")
    house.approve(version, approver="reviewer-b")

    assert len(Signed.of(decision, house.ledger.entries()).approvals) == 1
    assert house.roll_out() == []


def test_the_proposer_is_no_second(house, asked):
    """Refused when asking; and an entry they forge with their own key does not count."""
    version, decision = asked
    first = house.approve(version, approver="reviewer-a")
    with pytest.raises(PromotionRefused, match="'engineer' proposed it"):
        house.approve(version, approver="engineer")
    for forger in ("engineer", "Engineer"):
        house.ledger.append("approval", first.body | {"approver": forger}, key=house.key(forger))

    assert len(Signed.of(decision, house.ledger.entries()).approvals) == 1
    assert house.roll_out() == []


@pytest.mark.parametrize(
    "changes",
    [{"version": 7}, {"bundle_hash": "f" * 64}, {"name": "hip"}, {"decision_hash": "f" * 64}, {"approver": "somebody"}],
)
def test_a_signature_about_something_else_is_none(house, asked, changes):
    version, decision = asked
    first = house.approve(version, approver="reviewer-a")
    forged = {"approver": "reviewer-b"} | changes
    house.ledger.append("approval", first.body | forged, key=house.key("reviewer-b"))

    assert len(Signed.of(decision, house.ledger.entries()).approvals) == 1
    assert house.roll_out() == []


def test_signatures_about_two_decisions_do_not_add_up(house, asked):
    """Judged again: what was signed before is about another record."""
    version, _ = asked
    house.approve(version, approver="reviewer-a")
    house.judge(version, signers=2)
    house.approve(version, approver="reviewer-b")
    assert house.roll_out() == []

    house.approve(version, approver="reviewer-a")
    assert len(house.roll_out()) == 1


@pytest.mark.parametrize(
    ("protocol", "needed"),
    [
        ({}, Signers(reviewer=1)),  # before the number was part of it
        ({"look_budget": 3}, Signers(reviewer=1)),
        ({"signers": 3}, Signers(reviewer=3)),  # before roles were
        ({"signers": {"reviewer": 1}}, Signers(reviewer=1)),
        ({"signers": {"reviewer": 1, "reader": 1}}, Signers(reviewer=1, reader=1)),
        ({"signers": 0}, None),
        ({"signers": "1"}, None),
        ({"signers": True}, None),
        ({"signers": {"reviewer": 0, "reader": 1}}, None),
        ({"signers": {"reviewer": "1"}}, None),
        ({"signers": {"reviewer": 1, "engineer": 1}}, None),
        ({"signers": {"reader": 1}}, None),
        ("none", None),
    ],
)
def test_the_decisions_own_words_count(house, protocol, needed):
    """Whatever params.yaml says by now; of a record that cannot be read, no signature is enough."""
    body = {"name": NAME, "version": 1, "bundle_hash": "b" * 64, "verdict": "passed", "champion_hash": None}
    decision = house.ledger.append("decision", body | {"protocol": protocol})
    said = body | {"decision_hash": decision.hash}
    house.ledger.append("approval", said | {"approver": "reviewer"}, key=house.key("reviewer"))
    signed = Signed.of(decision, house.ledger.entries())

    assert (signed.needed, signed.completing is not None) == (needed, needed == Signers(reviewer=1))


@pytest.fixture
def people(house):
    """`people(a="reviewer", b="reader")`: the operator names them."""

    def act(**roles):
        for person, held in roles.items():
            give(ledger=house.ledger, person=person, roles=held.split(), user="operator", key=house.key("operator"))

    return act


def test_a_reader_countersigns(house, people):
    """A second reviewer does not stand in for the clinician; the reader does, whoever of them is first."""
    people(a="reviewer", b="reviewer", c="reader", engineer="engineer")
    version = house.propose("one")
    house.judge(version, signers={"reviewer": 1, "reader": 1})
    first = house.approve(version, approver="a")
    house.approve(version, approver="b")
    assert house.roll_out() == []
    assert (
        behind(first, house.ledger.entries()).text() == "signed 1 of 2; a reader has to sign with `osteoflow approve`"
    )
    last = house.approve(version, approver="c")
    (rollout,) = house.roll_out()

    assert rollout.body["approval_hash"] == last.hash


def test_who_holds_two_roles_fills_the_one_that_is_wanted(house, people):
    """One signature in either, never two; the order of signing makes no difference."""
    people(both="reader reviewer", a="reviewer", b="reader")
    for number, pair in enumerate((("both", "a"), ("a", "both"), ("both", "b"), ("b", "both"))):
        version = house.propose(f"build-{number}")
        decision = house.judge(version, signers={"reviewer": 1, "reader": 1})
        house.approve(version, approver=pair[0])
        assert Signed.of(decision, house.ledger.entries()).completing is None
        last = house.approve(version, approver=pair[1])
        assert Signed.of(decision, house.ledger.entries()).completing == last


@pytest.mark.parametrize(
    ("signers", "person"), [({"reviewer": 1}, "c"), ({"reviewer": 1, "reader": 1}, "d"), ({"reviewer": 2}, "nobody")]
)
def test_nobody_signs_in_a_role_that_is_not_asked_for(house, people, signers, person):
    """A reader where none is wanted, an engineer, and whoever has no role."""
    people(a="reviewer", c="reader", d="engineer monitor")
    version = house.propose("one")
    house.judge(version, signers=signers)

    with pytest.raises(PromotionRefused, match=f"'{person}' is none of those who sign here"):
        house.approve(version, approver=person)
    assert house.ledger.entries("approval") == []


def test_who_was_no_reviewer_when_signing_does_not_count(house, asked):
    """Once the ledger knows roles, an approval entered past the rules by somebody else is none."""
    version, decision = asked
    for person in ("reviewer-a", "reviewer-b"):
        give(ledger=house.ledger, person=person, roles=("reviewer",), user="operator", key=house.key("operator"))
    first = house.approve(version, approver="reviewer-a")
    house.ledger.append("approval", first.body | {"approver": "monitor"}, key=house.key("monitor"))
    give(ledger=house.ledger, person="monitor", roles=("reviewer",), user="operator", key=house.key("operator"))
    assert len(Signed.of(decision, house.ledger.entries()).approvals) == 1

    house.approve(version, approver="reviewer-b")
    assert len(house.roll_out()) == 1


def test_two_who_sign_at_once_are_two(house, asked, tmp_path):
    """Each in a process's own ledger; and two roll-outs at once are one."""
    version, decision = asked
    ready = threading.Barrier(4)
    failures, added = [], []

    def sign(reviewer):
        registry = Registry(house.registry.tracking_uri, artifact_root=tmp_path / "artifacts")
        ready.wait()
        approve(
            ledger=Ledger(house.ledger.path), registry=registry, name=NAME, version=version, approver=reviewer,
            rationale=f"words of {reviewer}", key=house.key(reviewer),
        )  # fmt: skip

    def release():
        ready.wait()
        registry = Registry(house.registry.tracking_uri, artifact_root=tmp_path / "artifacts")
        while not added and not failures:
            where = {"ledger": Ledger(house.ledger.path), "registry": registry, "name": NAME}
            added.extend(roll_out(**where, plan=AT_ONCE, compared=lambda _: []))

    def caught(act, *arguments):
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  (a thread's failure is the test's)
            failures.append(error)

    people = [threading.Thread(target=caught, args=(sign, f"reviewer-{which}")) for which in "ab"]
    flows = [threading.Thread(target=caught, args=(release,)) for _ in range(2)]
    for thread in (*people, *flows):
        thread.start()
    for thread in (*people, *flows):
        thread.join(timeout=120)

    assert failures == []
    assert len(Signed.of(decision, house.ledger.entries()).approvals) == 2
    assert house.kinds == ["decision", "approval", "approval", "rollout"]


@settings(max_examples=200, deadline=None)
@given(
    needed=st.integers(1, 3),
    said=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "engineer"]),  # the signer
            st.sampled_from(["key-1", "key-2", "key-3", "key-4"]),
            st.sampled_from(["this", "other"]),  # which decision
            st.booleans(),  # signed
        ),
        max_size=7,
    ),
)
def test_no_list_of_approvals_makes_more_than_distinct_people(needed, said):
    """Property: complete only where as many names, and as many keys, other than the proposer's signed this decision."""
    body = {"name": NAME, "version": 1, "bundle_hash": "b" * 64}
    count = itertools.count()

    def entry(kind, body, signer=None, key=None):
        seq = next(count)
        return Entry.model_construct(
            seq=seq, kind=kind, body=body, signer=signer, public_key=key, signature="s" if signer else None,
            hash=f"{seq:064x}", time="", previous="",
        )  # fmt: skip

    decision = entry("decision", body | {"proposer": "engineer", "protocol": {"signers": needed}})
    entries, valid = [decision], []
    for signer, key, which, is_signed in said:
        about = decision.hash if which == "this" else "f" * 64
        name = signer if is_signed else None
        entries.append(entry("approval", body | {"decision_hash": about}, name, key if is_signed else None))
        if which == "this" and is_signed and signer != "engineer":
            valid.append((signer, key))
    signed = Signed.of(decision, entries)

    assert len(signed.approvals) <= min(len({n for n, _ in valid}), len({k for _, k in valid}))
    assert (signed.completing is not None) == (len(signed.approvals) >= needed)
    if len({n for n, _ in valid}) == len(set(valid)) == len({k for _, k in valid}):  # nobody shares a key or a name
        assert len(signed.approvals) == len(set(valid))


def test_the_audit_names_a_rollout_before_the_last_signature(house, asked):
    """Whoever appends a rollout by hand is found, also when the missing signature comes afterwards."""
    version, _ = asked
    approval = house.approve(version, approver="reviewer-a")
    same = {key: approval.body[key] for key in ("name", "version", "bundle_hash", "decision_hash")}
    house.ledger.append("rollout", same | {"approval_hash": approval.hash})
    body = approval.body | {"approver": "reviewer-b"}
    house.ledger.append("approval", body, key=house.key("reviewer-b"))

    (bad,) = promoted(house.ledger.entries(), NAME)
    assert isinstance(bad, Finding)
    assert bad.detail == "ledger entry 2 (rollout): signed 1 of 2; another reviewer has to sign"


@pytest.mark.slow
def test_the_command_says_who_is_missing(house, asked, tmp_path):
    """`osteoflow approve`: the first of two is told so and nothing moves, the second rolls out."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    environment = os.environ | {
        "OSTEOFLOW_WORKSPACE": str(tmp_path), "OSTEOFLOW_STATE_DIR": str(tmp_path),
        "OSTEOFLOW_KEY_DIR": str(tmp_path / "keys"), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip

    def run(*options):
        command = [sys.executable, "-m", "flows.cli", "approve", "1", "--rationale", "margins hold", *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    said = run("--as", "reviewer-a")
    assert "(ledger entry 1, signed). Not live: signed 1 of 2; another reviewer has to sign." in said
    answer = json.loads(run("--as", "reviewer-b", "--json"))

    assert (answer["rolled_out"], answer["signed"], answer["lacking"]) == ([1], 2, {})
    assert answer["signers"] == {"reviewer": 2, "reader": 0}
    assert SigningKey.open(tmp_path / "keys", "reviewer-b").name == house.ledger.entries("approval")[-1].signer
