"""Step: quarantine images that cannot be learned from, and stop a data set that breaks its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.dataset.expectations import Verdict, dataset_checks, image_checks, judge, split_checks
from components.dataset.store import atomic_folder, atomic_path
from components.errors import DataError, ExpectationsFailed
from components.params import Validate
from components.radiograph.quality import FEATURES

ROLES = ("train", "tune", "calibrate", "test")
AGES = [0, 18, 40, 65, 200]  # years; left edges of the bands of the report
BANDS = ["0-17", "18-39", "40-64", "65+"]
FACTS = ["image_id", "polarity_ok", *FEATURES]


def validate(*, splits: Path, features: Path, accepted: Path, validation: Path, params: Validate) -> None:
    """Write `accepted` (the rows of `splits` plus accepted, reasons) and the report `validation`.

    Rows that are not accepted keep their role, but nothing learns from them. When the set as a whole or its split
    breaks the contract, the report is written, and `accepted` is not.

    Raises:
        DataError: images without features.
        ExpectationsFailed: what failed, expected, found, and what to do.
    """
    table = pd.read_parquet(splits)
    images = _image_facts(table, features)
    rows = judge(image_checks(params.images), {"images": images})
    reasons = dict.fromkeys(table["image_id"], "")
    for verdict in rows:
        for image_id in verdict.failing:
            reasons[image_id] = f"{reasons[image_id]};{verdict.check.name}".lstrip(";")
    table["reasons"] = table["image_id"].map(reasons)
    table["accepted"] = table["reasons"] == ""
    whole, roles = _set_facts(table)
    sets = judge([*dataset_checks(params.dataset), *split_checks(params.dataset)], {"whole": whole, "roles": roles})
    failed = [verdict for verdict in sets if not verdict.success]
    _report(validation, table, [*rows, *sets], passed=not failed)
    if failed:
        accepted.unlink(missing_ok=True)
        raise ExpectationsFailed(f"{len(failed)} of {len(sets)} expectations failed: {_told(failed)}; see {validation}")
    with atomic_path(accepted) as draft:
        table.to_parquet(draft, index=False)


def _image_facts(table: pd.DataFrame, features: Path) -> pd.DataFrame:
    """One row an image, by image_id: what `image_checks` are about."""
    parts = [pd.read_parquet(path, columns=FACTS) for path in sorted(features.glob("*.parquet"))]
    known = pd.concat(parts).set_index("image_id") if parts else pd.DataFrame(index=pd.Index([]))
    if missing := int((~table["image_id"].isin(known.index)).sum()):
        raise DataError(f"{features}: {missing} of {len(table)} images lack features; run `inspect`")
    known = known.loc[table["image_id"]].reset_index()
    needed = known[[name for name in FEATURES if name in ("saturation", "grey_levels", "field_fraction", "sharpness")]]
    facts = known[["image_id", "polarity_ok", *needed.columns]].copy()
    facts["measured"] = np.isfinite(needed.to_numpy(dtype=float)).all(axis=1)
    facts["side_px"] = table[["rows", "columns"]].min(axis=1).to_numpy()
    facts["label_agrees"] = ~table["image_id"].isin(_contradicted(table)).to_numpy()
    return facts


def _contradicted(table: pd.DataFrame) -> set[str]:
    """Every image of a picture that was filed under opposite labels, unlabelled ones with it."""
    said = table[table["label"].notna()].groupby("picture_id")["label"].nunique()
    return set(table.loc[table["picture_id"].isin(said[said > 1].index), "image_id"])


def _set_facts(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row about the whole set, and one row a role; positives and negatives are accepted and labelled."""
    used = table[table["accepted"] & table["label"].notna() & table["role"].isin(ROLES)]
    placed = table[table["role"].isin(ROLES)]
    counts = [(role, *_classes(used[used["role"] == role])) for role in ROLES]
    roles = pd.DataFrame(counts, columns=["role", "positives", "negatives"])
    shares = [positives / (positives + negatives) for _, positives, negatives in counts if positives + negatives]
    positives, negatives = _classes(used)
    role_of = placed.set_index("image_id")["role"]
    twins = placed[placed["near_duplicate_of"].isin(role_of.index)]
    torn = int((twins["role"].to_numpy() != role_of.loc[twins["near_duplicate_of"]].to_numpy()).sum())
    fact = {
        "set": "all",
        "positives": positives,
        "negatives": negatives,
        "prevalence": positives / max(1, positives + negatives),
        "quarantined": 1 - float(table["accepted"].mean()) if len(table) else 0.0,
        "patient_overlap": int((placed.groupby("patient_id")["role"].nunique() > 1).sum()),
        "near_duplicate_overlap": torn + int((placed.groupby("group_id")["role"].nunique() > 1).sum()),
        "prevalence_gap": max(shares, default=0.0) - min(shares, default=0.0),
    }
    return pd.DataFrame([fact]), roles


def _classes(rows: pd.DataFrame) -> tuple[int, int]:
    return int((rows["label"] == 1).sum()), int((rows["label"] == 0).sum())


def _told(failed: list[Verdict]) -> str:
    return "; ".join(
        f"{v.check.suite}.{v.check.name} expected {v.check.expected}, found {v.found} ({v.check.remedy})"
        for v in failed
    )


def _report(validation: Path, table: pd.DataFrame, verdicts: list[Verdict], *, passed: bool) -> None:
    """results.json for machines and index.html for people: the same facts, nothing that changes from run to run."""
    refused = table[~table["accepted"]]
    label = refused["label"].map({1.0: "fracture", 0.0: "no_fracture"}).fillna("unknown")
    document: dict[str, Any] = {
        "passed": passed,
        "images": len(table),
        "verdicts": [v.model_dump(exclude={"failing"}) | {"expected": v.check.expected} for v in verdicts],
        "quarantined": {
            "count": len(refused),
            "by_reason": {v.check.name: len(v.failing) for v in verdicts if v.check.suite == "images" and v.failing},
            "by_label": {name: int(count) for name, count in label.value_counts().sort_index().items()},
            "rows": [
                {"image_id": i, "reasons": r} for i, r in zip(refused["image_id"], refused["reasons"], strict=True)
            ],
        },
        "balance": _balance(table),
    }
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("validation.html.j2")
    with atomic_folder(validation) as folder:
        (folder / "results.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (folder / "index.html").write_text(page.render(document), encoding="utf-8")


def _balance(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Images, positives, negatives, unknown by role, site, region, view, sex, age, hardware; accepted rows only."""
    rows = table[table["accepted"]].copy()
    rows["age"] = pd.cut(rows["age_years"].astype(float), AGES, right=False, labels=BANDS).astype(object)
    found = {}
    for column in ("role", "site", "body_region", "view", "sex", "age", "hardware"):
        values = rows[column].where(rows[column].notna(), "not stated").astype(str)
        parts = []
        for value, part in rows.groupby(values):
            positives, negatives = _classes(part)
            parts.append({"value": value, "images": len(part), "positives": positives, "negatives": negatives})
        found[column] = parts
    return found
