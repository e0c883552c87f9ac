"""The whole loop, once, as a newcomer runs it: a clone, an empty home, `osteoflow demo`, and what it leaves behind."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from pydicom import dcmread

from components.promotion.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def figure(text: str) -> float:
    """The value of an estimate printed as `.912 (.874-.944)`."""
    match = re.match(r"(\d?\.\d+)", text)
    assert match, text
    return float(match[1])


def test_the_new_site_is_served_better_after_the_loop(demo):
    """On sealed production patients the second champion ranks fractures better than the first."""
    rows = json.loads((demo.state / "reports" / "demo.json").read_text())["rows"]
    before, after = next(said for what, said in rows.items() if what.endswith("AUROC") and what.startswith("site B"))

    assert figure(after) > figure(before) + 0.03


def test_every_decision_is_on_record_in_order(demo):
    """Two champions, each looked at, decided, approved and rolled out; drift in between raised one alert."""
    ledger = Ledger(demo.state / "ledger.jsonl")
    ledger.verify()

    assert [entry.kind for entry in ledger.entries()[:10]] == [
        "look", "decision", "approval", "rollout", "alert", "feedback", "look", "decision", "approval", "rollout",
    ]  # fmt: skip


def test_nobody_approves_their_own(demo):
    approvals = Ledger(demo.state / "ledger.jsonl").entries("approval")
    decisions = Ledger(demo.state / "ledger.jsonl").entries("decision")

    assert [entry.signer for entry in approvals] == ["reviewer", "reviewer"]
    assert [entry.body["proposer"] for entry in decisions] == ["engineer", "engineer"]


def test_the_clone_it_started_from_is_untouched(demo):
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=demo.clone, capture_output=True, text=True, check=True
    )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=demo.clone, capture_output=True, text=True, check=True)

    assert status.stdout == ""
    assert head.stdout.strip() == demo.head


def test_the_data_versions_say_what_came_in(demo):
    log = subprocess.run(["git", "log", "--format=%s"], cwd=demo.workspace, capture_output=True, text=True, check=True)

    assert [line.split(" (")[0] for line in log.stdout.splitlines() if line.startswith("Take in")] == [
        "Take in 300 radiographs",
        "Take in 520 radiographs",
    ]


def test_no_identity_leaves_the_hospital_folder(demo):
    """Patient ids of the phantoms are in the files that came, and nowhere else below the workspace."""
    senders = {dcmread(path, stop_before_pixels=True).PatientID for path in demo.state.glob("phantoms/*/*.dcm")}
    pattern = re.compile(b"|".join(re.escape(name.encode()) for name in sorted(senders)))
    outside = [
        path
        for path in demo.workspace.rglob("*")
        if path.is_file() and not {"phantoms", "tests", "components"} & set(path.relative_to(demo.workspace).parts)
    ]

    assert len(senders) == 410
    assert [str(path) for path in outside if pattern.search(path.read_bytes())] == []


def test_nothing_leaves_this_machine(demo):
    """Every connection of the demo and all its children went to loopback; the recorder itself is proven to record."""
    addresses = set(demo.connections.read_text().split())

    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1", "localhost", "unix"}
