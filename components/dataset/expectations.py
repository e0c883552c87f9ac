"""What a data set must show before anything learns from it: three suites as code, judged by Great Expectations."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.params import DatasetExpectations, ImageExpectations

Suite = Literal["images", "dataset", "splits"]


class Check(BaseModel):
    """One expectation: every value of `column` lies in [low, high]; with neither bound, every value is true.

    Attributes:
        table: of the facts it is about: images, whole, roles.
        remedy: what a person does when it fails.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: Suite
    name: str
    table: Literal["images", "whole", "roles"]
    column: str
    low: float | None = None
    high: float | None = None
    remedy: str

    @property
    def expected(self) -> str:
        bounds = [f"at least {self.low:g}"] if self.low is not None else []
        bounds += [f"at most {self.high:g}"] if self.high is not None else []
        return " and ".join(bounds) or "true"


class Verdict(BaseModel):
    """A check and what was found. failing: the keys of the rows that fail it (image_id, role), in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: Check
    success: bool
    found: str
    failing: tuple[str, ...]


def image_checks(limits: ImageExpectations) -> list[Check]:
    """Row level: an image that fails one is quarantined, with the check's name as the reason."""

    look = "look at the images; recalibrate validate.images to the site (docs/data.md)"
    tag = "the photometric tag contradicts the pixels; ask the sender"
    settle = "the same picture has opposite labels; let a clinician settle it"
    rows: list[tuple[str, str, float | None, float | None, str]] = [
        ("measured", "measured", None, None, "run `inspect`"),
        ("min_side_px", "side_px", limits.min_side_px, None, look),
        ("max_saturation", "saturation", None, limits.max_saturation, look),
        ("min_grey_levels", "grey_levels", limits.min_grey_levels, None, look),
        ("min_field_fraction", "field_fraction", limits.min_field_fraction, None, look),
        ("min_sharpness", "sharpness", limits.min_sharpness, None, look),
        ("polarity_ok", "polarity_ok", None, None, tag),
        ("label_conflict", "label_agrees", None, None, settle),
    ]
    return [
        Check(suite="images", name=name, table="images", column=column, low=least, high=most, remedy=remedy)
        for name, column, least, most, remedy in rows
    ]


def dataset_checks(limits: DatasetExpectations) -> list[Check]:
    """The whole set, over accepted and labelled images."""
    more = "take in more labelled studies (`osteoflow intake`)"
    low, high = limits.prevalence
    rows: list[tuple[str, Literal["whole", "roles"], str, float | None, float | None, str]] = [
        ("min_positives", "whole", "positives", limits.min_positives, None, more),
        ("min_negatives", "whole", "negatives", limits.min_negatives, None, more),
        ("prevalence", "whole", "prevalence", low, high, "check how the studies were chosen, or validate.dataset"),
        ("max_quarantined", "whole", "quarantined", None, limits.max_quarantined, "see the reasons in the report"),
        ("positives_by_role", "roles", "positives", 1, None, f"{more}, or review split.shares on a new archive"),
        ("negatives_by_role", "roles", "negatives", 1, None, f"{more}, or review split.shares on a new archive"),
    ]
    return [
        Check(suite="dataset", name=name, table=table, column=column, low=least, high=most, remedy=remedy)
        for name, table, column, least, most, remedy in rows
    ]


def split_checks(limits: DatasetExpectations) -> list[Check]:
    """The line between roles: no leak, and roles that are comparable."""
    gap = limits.max_prevalence_gap
    rows: list[tuple[str, float, str]] = [
        ("patient_overlap", 0, "a patient stands in two roles: a defect of `split`, report it"),
        ("near_duplicate_overlap", 0, "near-duplicates stand in two roles: a defect of `split`, report it"),
        ("prevalence_gap", gap, "take in more studies, or raise validate.dataset.max_prevalence_gap"),
    ]
    return [
        Check(suite="splits", name=name, table="whole", column=name, high=most, remedy=remedy)
        for name, most, remedy in rows
    ]


def judge(checks: list[Check], tables: dict[str, pd.DataFrame]) -> list[Verdict]:
    """Judge every check on its table; the first column of a table is its key. In memory, and nothing leaves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports deprecate each other
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    source = gx.get_context(mode="ephemeral", project_config=config).data_sources.add_pandas("tables")
    verdicts = {}
    for name in sorted({check.table for check in checks}):
        mine = [check for check in checks if check.table == name]
        key = str(tables[name].columns[0])
        suite = gx.ExpectationSuite(
            name=name, expectations=[_expectation(gx.expectations, c, n) for n, c in enumerate(mine)]
        )
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        outcome = batch.get_batch({"dataframe": tables[name]}).validate(
            suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key]}
        )
        for result in outcome.results:
            check = mine[result.expectation_config.meta["check"]]
            verdicts[id(check)] = _verdict(check, tables[name], key, result)
    return [verdicts[id(check)] for check in checks]


def _expectation(expectations: Any, check: Check, number: int) -> Any:
    meta = {"check": number, "remedy": check.remedy}
    if check.low is None and check.high is None:
        return expectations.ExpectColumnValuesToBeInSet(column=check.column, value_set=[True], meta=meta)
    return expectations.ExpectColumnValuesToBeBetween(
        column=check.column, min_value=check.low, max_value=check.high, meta=meta
    )


def _verdict(check: Check, table: pd.DataFrame, key: str, result: Any) -> Verdict:
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"{check.suite}.{check.name}: Great Expectations could not evaluate it")
    failing = sorted(str(row[key]) for row in result.result.get("unexpected_index_list") or [])
    if check.table == "whole":
        found = f"{float(table[check.column].iloc[0]):.4g}"
    elif check.table == "roles":
        found = ", ".join(f"{role} {int(n)}" for role, n in zip(table[key], table[check.column], strict=True))
    else:
        found = f"{len(failing)} of {len(table)} images fail"
    return Verdict(check=check, success=bool(result.success), found=found, failing=tuple(failing))
