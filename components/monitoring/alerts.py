"""Effect: put what monitoring found on record, once for each thing that is new, until it passes.

An alert is a ledger entry. A finding that an open alert already names is not raised again tomorrow; one that was
closed and comes back is. A new champion starts with a clean sheet.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from components.monitoring.performance import AuditedPerformance
from components.monitoring.verdict import Drift
from components.promotion.ledger import Entry, Ledger, SigningKey

Severity = Literal["notice", "warning", "critical"]
PERFORMANCE = "performance:sensitivity"
UNUSABLE = "inputs:images"


def raise_alert(
    ledger: Ledger,
    *,
    drift: Drift | None,
    performance: AuditedPerformance | None,
    bundle: str,
    report: Path | None = None,
    state: Path | None = None,
    key: SigningKey | None = None,
) -> Entry | None:
    """Append one alert when there is something that no open alert names; None otherwise.

    Drift alerts that a sufficient window no longer supports are closed by an entry of severity "clear". An alarm
    on performance stays open until the champion changes: evidence of missed fractures does not expire.

    Args:
        drift, performance: what was found; None for what was not looked at.
        bundle: hash of the bundle that was watched.
        report: the report's folder, written down relative to `state`.
        key: signs the entry when given.

    Raises:
        LedgerCorrupt: the ledger's chain is broken; nothing was added.
    """
    found = findings(drift, performance)
    with ledger.locked() as chain:
        named = {finding for _, left in _standing(ledger) for finding in left}
        settled = named - {PERFORMANCE} - set(found)
        if drift is not None and drift.status != "insufficient" and settled:
            chain.append("alert", {"severity": "clear", "bundle": bundle, "findings": sorted(settled)}, key=key)
        if not set(found) - named:
            return None
        body = {
            "situation": hashlib.sha256("\n".join([bundle, *sorted(found)]).encode()).hexdigest()[:20],
            "severity": _severity(found),
            "bundle": bundle,
            "findings": sorted(found),
            "reasons": [*(drift.reasons if drift else ()), *(performance.reasons if performance else ())],
            "report": _relative(report, state),
            "cases": drift.cases if drift else performance.cases if performance else 0,
            "since": drift.since if drift else None,
            "until": drift.until if drift else None,
        }
        return chain.append("alert", body, key=key)


def open_alerts(ledger: Ledger) -> list[Entry]:
    """The alerts that stand against the present champion, newest first; one that a later alert contains is left out."""
    seen: set[str] = set()
    alerts = []
    for entry, left in reversed(_standing(ledger)):
        if left - seen:
            alerts.append(entry)
        seen |= left
    return alerts


def _standing(ledger: Ledger) -> list[tuple[Entry, set[str]]]:
    """Alerts since the champion last changed, oldest first, each with those of its findings that were not cleared.

    A rollback that takes a version back from a canary leaves the champion, and what stands against it.
    """
    standing: list[tuple[Entry, set[str]]] = []
    champion: object = object()  # no bundle yet
    for entry in ledger.entries():
        if entry.kind in ("rollout", "rollback"):
            before, champion = champion, entry.body.get("bundle_hash")
            standing = standing if champion == before else []
        elif entry.kind == "alert" and entry.body["severity"] == "clear":
            standing = [(alert, left - set(entry.body["findings"])) for alert, left in standing]
        elif entry.kind == "alert":
            standing.append((entry, set(entry.body["findings"])))
    return [(alert, left) for alert, left in standing if left]


def findings(drift: Drift | None, performance: AuditedPerformance | None) -> tuple[str, ...]:
    """What is wrong, as stable codes without numbers: the identity of a situation."""
    codes: list[str] = []
    if drift is not None:
        codes += [f"drift:{feature.name}" for feature in drift.tested if feature.drifted]
        codes += [UNUSABLE] if drift.unusable else []
        codes += [f"site:{name}" for name in drift.new_sites] + [f"device:{name}" for name in drift.new_devices]
    if performance is not None and performance.alarm:
        codes.append(PERFORMANCE)
    return tuple(codes)


def _severity(found: tuple[str, ...]) -> Severity:
    if PERFORMANCE in found:
        return "critical"
    return "warning" if any(code == UNUSABLE or code.startswith("drift:") for code in found) else "notice"


def _relative(report: Path | None, state: Path | None) -> str | None:
    """Where the report lies in the state folder; only its name when it lies elsewhere (no path of a machine)."""
    if report is None:
        return None
    inside = state is not None and report.resolve().is_relative_to(state.resolve())
    return report.resolve().relative_to(state.resolve()).as_posix() if inside and state else report.name
