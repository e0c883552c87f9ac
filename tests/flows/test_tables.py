"""Lists on a terminal: a figure never stands without how good its evidence is."""

from __future__ import annotations

from components.promotion.ledger import Entry
from components.promotion.registry import Version
from flows.tables import ledger_table, version_table


def version(number: int, evidence: str | None) -> Version:
    return Version(
        name="m", version=number, run_id="r", bundle_hash=None, verdict="passed", proposer="engineer", git_commit=None,
        data_sha256=None, evidence=evidence, build_key=None, rationale=None, ledger_head=None, aliases=(),
        metrics={"auroc": 0.9}, description="", created="2026-01-01T00:00:00",
    )  # fmt: skip


def test_models_show_the_evidence_beside_the_figure():
    table = version_table("m", [version(2, "weak grouping"), version(1, "patient grouping")])
    rows = [line for line in table.splitlines() if ".900" in line]

    assert ["weak grouping" in row for row in rows] == [True, False]
    assert ["patient grouping" in row for row in rows] == [False, True]


def test_the_ledger_marks_a_decision_on_weak_grouping():
    """And says nothing where patients are named."""
    bodies = [{"version": n, "verdict": "passed", "evidence": f"{kind} grouping"} for n, kind in
              ((1, "weak"), (2, "patient"))]  # fmt: skip
    entries = [
        Entry.model_construct(
            seq=n, previous="", hash="", time="2026-01-01T00:00:00", kind="decision", signer=None, body=body
        )
        for n, body in enumerate(bodies)
    ]

    assert ledger_table(2, entries).count("weak grouping") == 1
    assert "version 1; passed; weak grouping" in ledger_table(2, entries)


def test_the_ledger_counts_who_was_retired_or_withdrawn():
    """Counts and reasons, no marks of patients."""
    bodies = {
        "refresh": {"retired": ["m1", "m2"], "images": 40, "reason": "worn"},
        "withdrawal": {"patient": "m1", "images": 2, "models": [1, 3], "reason": "asked by letter"},
    }
    entries = [
        Entry.model_construct(seq=n, previous="", hash="", time="2026-01-01T00:00:00", kind=kind, signer="x", body=body)
        for n, (kind, body) in enumerate(bodies.items())
    ]
    table = " ".join(ledger_table(2, entries).replace("│", " ").split())

    assert "2 test patients retired, 40 sealed" in table
    assert "images decide now; worn" in table
    assert "a patient of 2 images, 2 model" in table
    assert "m1" not in table
