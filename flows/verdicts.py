"""What `validate` found, as an artifact of the run that asked: also, and above all, when it stopped the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact


def tell_validation(report: Path, state: Path, since: float) -> str | None:
    """Keep the validation report under `state` and attach its verdicts to the flow run.

    Args:
        report: the folder `validate` writes.
        since: seconds since the epoch; a report older than that is of another build, and not told.

    Returns:
        The text of the artifact, or None where there is no report.
    """
    results = report / "results.json"
    if not results.is_file() or results.stat().st_mtime < since:
        return None
    kept = state / "reports" / "validation"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(report, kept)
    text = table(json.loads(results.read_text(encoding="utf-8")), kept)
    create_markdown_artifact(text, key="validation", description="What the data showed before training")
    return text


def table(results: dict[str, Any], kept: Path) -> str:
    """The verdicts as markdown, what failed first."""
    order = sorted(results["verdicts"], key=lambda verdict: verdict["success"])
    lines = [
        f"# Data validation: {'passed' if results['passed'] else 'failed'}",
        "",
        f"{results['images']} images, {results['quarantined']['count']} quarantined. "
        f"[Report]({kept.as_uri()}/index.html)",
        "",
        "| expectation | severity | expected | found | met |",
        "|---|---|---|---|---|",
    ]
    for verdict in order:
        check = verdict["check"]
        cells = (f"{check['suite']}.{check['name']}", check["severity"], verdict["expected"], verdict["found"])
        lines.append(f"| {' | '.join(cells)} | {'yes' if verdict['success'] else '**no**'} |")
    return "\n".join(lines)
