"""Alerts: on record once for each new finding, closed when it passes, kept when fractures were missed."""

from __future__ import annotations

import pytest

from components.monitoring.alerts import open_alerts, raise_alert
from components.monitoring.drift import _judge
from components.monitoring.performance import audited
from components.promotion.ledger import Ledger
from tests.monitoring.test_performance import production
from tests.monitoring.windows import MONITOR, window


@pytest.fixture(scope="module")
def verdicts():
    """Real verdicts: nothing, noise, noise and sharpness, a new site, and too few cases."""
    known = window(seed=1, patients=300).drop(columns=["time", "device"])
    return {
        "calm": _judge(known, window(seed=30, patients=60), MONITOR, 0),
        "noise": _judge(known, window(seed=31, patients=60, shift={"noise": 1.0}), MONITOR, 0),
        "noise again": _judge(known, window(seed=32, patients=60, shift={"noise": 1.2}), MONITOR, 0),
        "both": _judge(known, window(seed=33, patients=60, shift={"noise": 1.0, "sharpness": -1.0}), MONITOR, 0),
        "site": _judge(known, window(seed=34, patients=60, site="site-b"), MONITOR, 0),
        "few": _judge(known, window(seed=35, patients=10), MONITOR, 0),
    }


@pytest.fixture(scope="module")
def missing_fractures():
    """The audit of a model that finds seven of ten fractures."""
    return audited(cases=production(5, 800, sensitivity=0.7, read_flagged=1.0, read_other=1.0), params=MONITOR)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "state" / "ledger.jsonl")


def report(ledger, drift, performance=None, **more):
    return raise_alert(ledger, drift=drift, performance=performance, bundle="b" * 64, **more)


def test_a_drift_is_one_entry_with_its_reasons(ledger, verdicts):
    entry = report(ledger, verdicts["noise"])

    assert (entry.kind, entry.body["severity"], entry.body["findings"]) == ("alert", "warning", ["drift:noise"])
    assert entry.body["reasons"][0].startswith("`noise` rose: median ")
    assert ledger.verify() == 1


def test_the_same_situation_tomorrow_is_no_second_alert(ledger, verdicts):
    report(ledger, verdicts["noise"])

    assert report(ledger, verdicts["noise again"]) is None
    assert len(ledger.entries("alert")) == 1


def test_something_new_on_top_is_a_new_alert(ledger, verdicts):
    report(ledger, verdicts["noise"])

    entry = report(ledger, verdicts["both"])

    assert entry.body["findings"] == ["drift:noise", "drift:sharpness"]
    assert [e.seq for e in open_alerts(ledger)] == [entry.seq]


def test_what_has_passed_is_closed_and_alerts_when_it_returns(ledger, verdicts):
    report(ledger, verdicts["noise"])

    assert report(ledger, verdicts["calm"]) is None
    assert open_alerts(ledger) == []
    assert report(ledger, verdicts["noise"]) is not None
    assert [e.body["severity"] for e in ledger.entries()] == ["warning", "clear", "warning"]


def test_too_few_cases_close_nothing(ledger, verdicts):
    report(ledger, verdicts["noise"])
    report(ledger, verdicts["few"])

    assert len(open_alerts(ledger)) == 1


def test_calm_leaves_no_trace(ledger, verdicts):
    assert report(ledger, verdicts["calm"]) is None
    assert not ledger.path.exists() or ledger.entries() == []


def test_a_new_site_that_looks_the_same_is_a_notice(ledger, verdicts):
    entry = report(ledger, verdicts["site"])

    assert (entry.body["severity"], entry.body["findings"]) == ("notice", ["site:site-b"])


def test_missed_fractures_are_critical_and_stay_until_the_champion_changes(ledger, verdicts, missing_fractures):
    entry = report(ledger, verdicts["calm"], missing_fractures)
    report(ledger, verdicts["calm"])

    assert entry.body["severity"] == "critical"
    assert "audited sensitivity is below 0.9" in entry.body["reasons"][0]
    assert [e.seq for e in open_alerts(ledger)] == [entry.seq]

    ledger.append("rollout", {"name": "osteoflow-fracture", "version": "2"})

    assert open_alerts(ledger) == []


def test_a_rollback_from_a_canary_leaves_what_stands_against_the_champion(ledger, verdicts, missing_fractures):
    """The entry names the champion that answered all along."""
    champion = {"name": "osteoflow-fracture", "version": 1, "bundle_hash": "b" * 64}
    ledger.append("rollout", champion)
    entry = report(ledger, verdicts["calm"], missing_fractures)

    ledger.append("rollback", champion)
    assert [e.seq for e in open_alerts(ledger)] == [entry.seq]
    ledger.append("rollout", champion | {"bundle_hash": "c" * 64})
    assert open_alerts(ledger) == []


def test_an_insufficient_window_does_not_hide_missed_fractures(ledger, verdicts, missing_fractures):
    assert report(ledger, verdicts["few"], missing_fractures).body["findings"] == ["performance:sensitivity"]


def test_the_report_is_named_within_the_state_folder(ledger, verdicts, tmp_path):
    """No path of this machine in a record."""
    state = tmp_path / "state"

    entry = report(ledger, verdicts["noise"], report=state / "monitoring" / "2026-03-05", state=state)

    assert entry.body["report"] == "monitoring/2026-03-05"
