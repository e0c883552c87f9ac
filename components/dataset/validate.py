"""Step: quarantine images that cannot be learned from, and stop a data set that breaks its contract."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from components.dataset.batches import read_records
from components.dataset.expectations import (
    STRANGENESS,
    Verdict,
    dataset_checks,
    failing,
    image_checks,
    judge,
    reasons_of,
    split_checks,
    version,
)
from components.dataset.facts import STATED, balance, image_facts, set_facts
from components.dataset.findings import at_intake, findings, of_other_code
from components.dataset.limits import measured_by, read_limits
from components.dataset.page import write_page
from components.dataset.rows import extend_rows, read_rows
from components.dataset.squares import read_squares
from components.dataset.store import atomic_folder
from components.dataset.thumbnails import gallery
from components.errors import ExpectationsFailed
from components.params import Validate

SUITES = ("images", "dataset", "splits")
NEEDED = [  # of `splits`; the rest is handed on unread
    "image_id", "patient_id", "group_id", "picture_id", "near_duplicate_of", "role", "withdrawn", "grouping", "shard",
    "label", "label_provenance", "ai_visible", "rows", "columns", "bits_stored", "hardware", *STATED,
]  # fmt: skip


def validate(
    *,
    splits: Path,
    features: Path,
    prepared: Path,
    batches: Path,
    limits: Path,
    accepted: Path,
    validation: Path,
    params: Validate,
) -> None:
    """Write `accepted` (a file a shard: the rows of `splits` plus accepted, reasons) and the report `validation`.

    Rows that are not accepted keep their role, but nothing learns from them. When the set as a whole or its split
    breaks the contract, the report is written, and `accepted` is not.

    Args:
        prepared: for pictures of the images that are not accepted, or strange.
        batches: what intake refused and dropped, for the findings.
        limits: what sites have learned; it replaces the thresholds of `params` for their images.

    Raises:
        ConfigError: `limits` is damaged.
        DataError: images without features, or a damaged record of a batch.
        ExpectationsFailed: what failed, expected, found, and what to do.
    """
    table = read_rows(splits, NEEDED)
    whole = params.dataset
    learned = read_limits(limits)
    sites = learned.sites
    checks = image_checks(params.images, sites)
    with tempfile.TemporaryDirectory() as name:
        docs = Path(name)
        rows = judge(checks, {"images": image_facts(table, features, learned.usual)}, docs=docs / "images")
        table["reasons"] = reasons_of(table["image_id"], rows)
        table["accepted"] = table["reasons"] == ""
        facts = set_facts(table, min_stratum=whole.min_stratum)
        sets = judge([*dataset_checks(whole), *split_checks(whole)], facts, docs=docs / "set")
        failed = [verdict for verdict in sets if not verdict.success and verdict.check.severity == "critical"]
        told = [*at_intake(read_records(batches)), *of_other_code(sites, measured_by(features))]
        strange = table["image_id"].isin(failing(rows, STRANGENESS))
        shown = table.assign(
            reasons=(table["reasons"] + strange.map({True: f";{STRANGENESS}", False: ""})).str.strip(";")
        )
        pictures = gallery(shown[~shown["withdrawn"]], partial(read_squares, prepared))
        _report(validation, table, [*rows, *sets], facts, told, docs, pictures, passed=not failed)
    if failed:
        shutil.rmtree(accepted, ignore_errors=True)
        raise ExpectationsFailed(f"{len(failed)} of {len(sets)} expectations failed: {_told(failed)}; see {validation}")
    extend_rows(accepted, table[["reasons", "accepted"]], of=splits)


def _told(failed: list[Verdict]) -> str:
    return "; ".join(
        f"{v.check.suite}.{v.check.name} expected {v.check.expected}, found {v.found} ({v.check.remedy})"
        for v in failed
    )


def _report(
    validation: Path,
    table: pd.DataFrame,
    verdicts: list[Verdict],
    facts: dict[str, pd.DataFrame],
    told: list[dict[str, str]],
    docs: Path,
    pictures: list[dict[str, object]],
    *,
    passed: bool,
) -> None:
    """results.json for machines and index.html for people: the same facts, nothing that changes from run to run."""
    refused = table[~table["accepted"]]
    label = refused["label"].map({1.0: "fracture", 0.0: "no_fracture"}).fillna("unknown")
    document: dict[str, Any] = {
        "passed": passed,
        "warnings": sum(not v.success and v.check.severity == "warning" for v in verdicts),
        "suites": {name: version([v.check for v in verdicts if v.check.suite == name]) for name in SUITES},
        "images": len(table),
        "verdicts": [_row(v) for v in verdicts],
        "quarantined": {
            "count": len(refused),
            "by_reason": _by_reason(verdicts),
            "by_label": {name: int(count) for name, count in label.value_counts().sort_index().items()},
            "rows": refused[["image_id", "reasons"]].to_dict("records"),
        },
        "strange": sorted(failing(verdicts, STRANGENESS)),
        "shortcuts": facts["shortcuts"].astype(object).where(facts["shortcuts"].notna(), None).to_dict("records"),
        "findings": [*told, *findings(table, verdicts, facts)],
        "balance": balance(table[table["accepted"]]),
    }
    with atomic_folder(validation) as folder:
        shutil.copytree(docs, folder / "data_docs")
        write_page(folder, "validation.html.j2", document, gallery=pictures)


def _by_reason(verdicts: list[Verdict]) -> dict[str, int]:
    """Images by reason, over all sites, in the order of the suite."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.check.suite == "images" and verdict.check.severity == "critical" and verdict.failing:
            counts[verdict.check.name] = counts.get(verdict.check.name, 0) + len(verdict.failing)
    return counts


def _row(verdict: Verdict) -> dict[str, Any]:
    """A verdict without the images that fail it: those stand under `quarantined`."""
    failing = () if verdict.check.suite == "images" else verdict.failing
    return verdict.model_dump() | {"expected": verdict.check.expected, "failing": list(failing)}
