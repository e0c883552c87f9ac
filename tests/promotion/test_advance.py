"""Roll-out by stages: one entry a step, once, whoever is at it and wherever a kill falls; and every way back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import pytest

from components.errors import LedgerCorrupt, PromotionRefused
from components.promotion import audit
from components.promotion.advance import advance
from components.promotion.ledger import Chain
from components.promotion.register import Registry
from components.promotion.switch import resume, stop
from tests.promotion.builds import make
from tests.promotion.conftest import NAME, REPOSITORY
from tests.promotion.test_stages import case
from tests.protocols import AT_ONCE

STAGES = {"shadow_cases": 2, "canary_cases": 2}


@pytest.fixture(scope="module")
def proposed(tmp_path_factory, empty_store):
    """A registry with three versions, made once: a copy of its database costs nothing."""
    folder = tmp_path_factory.mktemp("proposed")
    shutil.copy(empty_store, folder / "mlflow.db")
    registry = Registry(f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "artifacts")
    for key in ("one", "two", "three"):
        make(folder, key).register(registry)
    return folder


@pytest.fixture
def registry(tmp_path, proposed):
    shutil.copy(proposed / "mlflow.db", tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_root=proposed / "artifacts")


def approved(house, version):
    """Let the gate and a reviewer say yes."""
    house.judge(version)
    house.approve(version)


@pytest.fixture
def second(house):
    """Version 1 is champion, version 2 approved beside it."""
    approved(house, 1)
    house.roll_out()
    approved(house, 2)
    return house


def met(house, many=2, **changes):
    """Let the stage that is on meet cases."""
    house.cases[house.ledger.staged(NAME).hash] = [case(number, **changes) for number in range(many)]


def ways(house):
    """What the ledger says of steps since version 2 was approved."""
    said = [e.body["stage"] if e.kind == "stage" else e.kind for e in house.ledger.entries()[5:]]
    return [step for step in said if step not in ("decision", "approval")]


def test_the_first_champion_answers_at_once(house):
    """There is nothing to compare it with."""
    approved(house, 1)

    assert [entry.kind for entry in house.roll_out(**STAGES)] == ["rollout"]


def test_shadow_canary_full(second):
    """A step a look, each with the figures of the one before; the alias moves with the last."""
    kinds = []
    for _ in range(3):
        (entry,) = second.roll_out(**STAGES)
        assert second.roll_out(**STAGES) == []
        kinds.append((entry.kind, entry.body.get("stage"), entry.body.get("seen", {}).get("cases")))
        if entry.kind == "stage":
            assert second.champions == (1, 1)
            met(second)

    assert kinds == [("stage", "shadow", None), ("stage", "canary", 2), ("rollout", None, 2)]
    assert second.champions == (2, 2)
    assert second.ledger.staged(NAME) is None


def test_a_stage_goes_by_the_plan_it_began_under(second):
    """Whoever changes params.yaml in the middle moves no goal."""
    second.roll_out(**STAGES)
    met(second)

    (entry,) = second.roll_out(shadow_cases=1000, canary_cases=0)
    assert (entry.body["stage"], entry.body["plan"]["canary_cases"]) == ("canary", 2)


def test_a_champion_under_alert_is_no_measure(second):
    """The way of its successor begins without comparisons, on record; failures and time count. A notice is no doubt."""
    notice = second.ledger.append("alert", {"severity": "notice", "findings": ["site:b"]})
    drift = second.ledger.append("alert", {"severity": "warning", "findings": ["drift:probability"]})

    (entry,) = second.roll_out(alerts=[notice, drift], **STAGES)
    assert (entry.body["alerts"], entry.body["plan"]["max_score_shift"]) == ([drift.seq], 1.0)
    second.cases[entry.hash] = [case(number, 0.1, 0.9) for number in range(40)]
    (canary,) = second.roll_out(**STAGES)
    assert (canary.body["stage"], canary.body["alerts"], canary.body["seen"]["contradicted"]) == (
        "canary",
        [drift.seq],
        40,
    )
    met(second, candidate=None)
    assert [entry.kind for entry in second.roll_out(**STAGES)] == ["return"]


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_guard_takes_it_back_by_itself(second, stage):
    """With reason and figures; the champion was never another, and the version has to be judged and approved again."""
    second.roll_out(**STAGES)
    if stage == "canary":
        met(second)
        second.roll_out(**STAGES)
    met(second, candidate=None)

    (entry,) = second.roll_out(**STAGES)
    assert (entry.kind, entry.body["stage"], entry.signer) == ("return", stage, None)
    assert entry.body["reasons"] == ["2 of 2 cases failed; up to 2.0% are allowed"]
    assert entry.body["seen"]["errors"] == {"ValueError": 2}
    assert (second.champions, second.roll_out(**STAGES)) == ((1, 1), [])
    with pytest.raises(PromotionRefused, match=rf"taken back from {stage} \(ledger entry {entry.seq}: 2 of 2 cases"):
        second.approve(2)
    approved(second, 2)
    assert [e.body["stage"] for e in second.roll_out(**STAGES)] == ["shadow"]


def test_a_newer_approval_takes_the_place(second):
    """Judged against the same champion: the one on its way goes back, for that reason, and the newer begins."""
    second.roll_out(**STAGES)
    approved(second, 3)

    back, begun = second.roll_out(**STAGES)
    assert (back.kind, back.body["version"], back.body["seen"]) == ("return", 2, None)
    assert back.body["reasons"] == ["version 3 was approved meanwhile and takes its place"]
    assert (begun.body["version"], begun.body["stage"]) == (3, "shadow")
    assert second.ledger.staged(NAME).hash == begun.hash


def test_two_approvals_of_one_decision_are_one_way(second):
    """A second reviewer says yes too: no stage begins anew, also not after a return."""
    second.approve(2, approver="reviewer-b")
    second.roll_out(**STAGES)
    assert second.roll_out(**STAGES) == []
    met(second, candidate=None)
    second.roll_out(**STAGES)

    assert second.roll_out(**STAGES) == []
    assert ways(second) == ["shadow", "return"]


def test_an_approval_from_before_a_return_brings_nothing_back(second):
    """Judged and approved once more while it is in shadow: what the guard found since holds for both decisions."""
    second.roll_out(**STAGES)
    approved(second, 2)
    met(second, candidate=None)
    second.roll_out(**STAGES)

    assert second.roll_out(**STAGES) == []
    assert ways(second) == ["shadow", "return"]


def test_a_version_that_fails_when_judged_again_goes_no_further(second):
    """Before its way, and on it: the gate's last word counts."""
    second.judge(2, verdict="failed")
    assert second.roll_out(**STAGES) == []
    second.judge(2)
    second.roll_out(**STAGES)
    second.judge(2, verdict="failed")

    (entry,) = second.roll_out(**STAGES)
    assert (entry.kind, entry.body["reasons"]) == (
        "return",
        ["the gate has judged it again since, and it did not pass"],
    )
    assert (second.champions, second.roll_out(**STAGES)) == ((1, 1), [])


def test_rollback_in_canary_takes_the_candidate_back(second):
    """What has begun to answer last goes first, quickly, and no log is asked; the next rollback is the champion's."""
    second.roll_out(**STAGES)
    met(second)
    second.roll_out(**STAGES)
    started = time.monotonic()

    entry = second.rollback(reason="misses hip fractures")

    assert time.monotonic() - started < 10
    assert (entry.body["version"], entry.body["replaced_version"], entry.signer) == (1, 2, "reviewer")
    assert (second.champions, second.roll_out(**STAGES), second.ledger.staged(NAME)) == ((1, 1), [], None)
    with pytest.raises(PromotionRefused, match="there was no earlier champion"):
        second.rollback()


def test_rollback_in_shadow_is_about_the_champion(second):
    """The candidate answers nobody: it goes only by the champion's name."""
    second.roll_out(**STAGES)
    with pytest.raises(PromotionRefused, match="there was no earlier champion"):
        second.rollback()

    assert second.rollback(1).body["replaced_version"] == 2
    assert second.roll_out(**STAGES) == []


def test_the_alias_stays_with_the_champion_while_another_is_on_its_way(second):
    """The guard on the registry moved it with the approval; from the first stage on it is moved back."""
    second.registry.set_alias(NAME, 2, "champion")
    assert second.reconcile() is None
    second.roll_out(**STAGES)

    assert second.reconcile().endswith("was on version 2, the ledger names version 1; moved back")
    assert second.champions == (1, 1)


def test_no_stage_ends_while_output_is_off(second):
    """Neither well nor badly: a person has the word."""
    second.roll_out(**STAGES)
    met(second)
    stop(ledger=second.ledger, reason="drill", user="reviewer", key=second.key("reviewer"))
    assert second.roll_out(**STAGES) == []
    resume(ledger=second.ledger, reason="drill", user="reviewer", key=second.key("reviewer"))

    assert [entry.body["stage"] for entry in second.roll_out(**STAGES)] == ["canary"]


def test_a_damaged_ledger_moves_nothing(second):
    second.roll_out(**STAGES)
    met(second)
    second.ledger.path.write_text(second.ledger.path.read_text().replace("shadow", "canary"))

    with pytest.raises(LedgerCorrupt):
        second.roll_out(**STAGES)


def test_a_step_that_another_took_meanwhile_is_not_taken_again(second):
    """A second flow, or a rollback, between reading the cases and writing: the first one stands."""
    second.roll_out(**STAGES)
    met(second)
    (approval,) = (e for e in second.ledger.entries("approval") if e.body["version"] == 2)
    cases = second.cases[second.ledger.staged(NAME).hash]
    plan = AT_ONCE.model_copy(update=STAGES)

    def faster(stage):
        second.rollback(1)
        return cases

    assert advance(second.ledger, approval, plan, faster) == []
    assert ways(second) == ["shadow", "rollback"]


WAYS = {
    "shadow": ["shadow"],
    "canary": ["shadow", "canary"],
    "full": ["shadow", "canary", "rollout"],
    "back": ["shadow", "return"],
    "replaced": ["shadow", "return", "shadow"],
}


def before(house, what):
    """Bring version 2 to where the step `what` comes next."""
    if what == "shadow":
        return
    house.roll_out(**STAGES)
    if what == "full":
        met(house)
        house.roll_out(**STAGES)
    if what == "replaced":
        approved(house, 3)
    else:
        met(house, candidate=None if what == "back" else 0.3)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("what", WAYS)
def test_a_step_cut_off_around_its_entry_is_taken_once(second, monkeypatch, what, moment):
    """Whatever ends the flow there, the next look leaves the ledger as one look would have; so does the one after."""
    before(second, what)
    append = Chain.append

    def cut(self, kind, body, **more):
        if moment == "after":
            append(self, kind, body, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "append", cut)
        with pytest.raises(KeyboardInterrupt):
            second.roll_out(**STAGES)
    for _ in range(2):
        second.roll_out(**STAGES)
        second.reconcile()

    assert ways(second) == WAYS[what]
    assert second.champions == ((2, 2) if what == "full" else (1, 1))


KILLED = """
import os, signal, sys
from pathlib import Path
from components.params import load
from components.promotion.advance import advance
from components.promotion.ledger import Chain, Ledger

ledger = Ledger(Path(sys.argv[1]))
plan = load(Path("params.yaml")).roll_out.model_copy(update={"shadow_cases": 2, "canary_cases": 2})
append = Chain.append
def deadly(self, kind, body, **more):
    append(self, kind, body, **more)
    os.kill(os.getpid(), signal.SIGKILL)
Chain.append = deadly
advance(ledger, ledger.entries("approval")[-1], plan, lambda stage: [])
"""


def test_a_kill_between_a_return_and_the_stage_that_follows_it(second):
    """SIGKILL, with the ledger locked: the version that was replaced is out, the newer begins with the next look."""
    before(second, "replaced")
    command = [sys.executable, "-c", KILLED, str(second.ledger.path)]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)

    assert (done.returncode, ways(second)) == (-signal.SIGKILL, ["shadow", "return"])
    assert [(e.kind, e.body["version"]) for e in second.roll_out(**STAGES)] == [("stage", 3)]


def test_the_audit_follows_a_stage_too(second):
    """A version that only ever was in shadow has a way up; a stage that nobody signed for has none."""
    second.roll_out(**STAGES)
    staged = second.ledger.staged(NAME)
    second.ledger.append("stage", staged.body | {"version": 9, "approval_hash": "9" * 64})

    seen = list(audit.promoted(second.ledger.entries(), NAME))
    assert [(way.version) for way in seen if isinstance(way, audit.Promoted)] == [1, 2]
    assert [f.what for f in seen if isinstance(f, audit.Finding)] == ["version 9: way up"]
