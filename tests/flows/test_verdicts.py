"""What validation found is attached to the run, with what failed first."""

from __future__ import annotations

from pathlib import Path

from flows.verdicts import table

CHECK = {"suite": "dataset", "severity": "critical"}
RESULTS = {
    "passed": False,
    "images": 40,
    "quarantined": {"count": 3},
    "verdicts": [
        {"check": CHECK | {"name": "prevalence"}, "expected": "at most 1", "found": "0.3", "success": True},
        {"check": CHECK | {"name": "min_positives"}, "expected": "at least 8", "found": "2", "success": False},
    ],
}


def test_what_failed_stands_first():
    lines = table(RESULTS, Path("/state/reports/validation")).splitlines()

    assert lines[0] == "# Data validation: failed"
    assert lines[2] == "40 images, 3 quarantined. [Report](file:///state/reports/validation/index.html)"
    assert lines[6] == "| dataset.min_positives | critical | at least 8 | 2 | **no** |"
    assert lines[7] == "| dataset.prevalence | critical | at most 1 | 0.3 | yes |"
