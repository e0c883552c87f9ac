"""What a data set must show before anything learns from it: three suites as code, judged by Great Expectations."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.dataset import data_docs
from components.dataset.limits import SiteLimits
from components.params import DatasetExpectations, ImageExpectations

Suite = Literal["images", "dataset", "splits"]
Table = Literal["images", "whole", "roles", "strata", "metadata", "shortcuts"]
Severity = Literal["critical", "warning"]

STRANGENESS = "strangeness"


class Check(BaseModel):
    """One expectation: every value of `column` lies in [low, high]; with neither bound, every value is true.

    Attributes:
        table: of the facts it is about (dataset/facts.py).
        site: of single images, the site whose rows it is about; "" is every site that has no limits of its own.
        severity: critical quarantines an image or stops the set; a warning is told, and stops nothing.
        remedy: what a person does when it fails.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: Suite
    name: str
    table: Table
    column: str
    low: float | None = None
    high: float | None = None
    site: str | None = None
    severity: Severity = "critical"
    remedy: str

    @property
    def expected(self) -> str:
        bounds = [f"at least {self.low:g}"] if self.low is not None else []
        bounds += [f"at most {self.high:g}"] if self.high is not None else []
        return " and ".join(bounds) or "true"


class Verdict(BaseModel):
    """A check and what was found. failing: the keys of the rows that fail it (image_id, role, stratum), in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: Check
    success: bool
    found: str
    failing: tuple[str, ...]


def image_checks(limits: ImageExpectations, sites: Mapping[str, SiteLimits]) -> list[Check]:
    """Row level: an image that fails a critical one is quarantined, with the check's name as the reason.

    Args:
        sites: limits that replace those of the same name for one site's rows.
    """
    checks = _image_checks(limits)
    if not sites:
        return checks
    asked: list[Check] = []
    for check in checks:
        if check.name not in SiteLimits.model_fields:
            asked.append(check)
            continue
        asked.append(check.model_copy(update={"site": ""}))
        for site, own in sorted(sites.items()):
            bound = "low" if check.low is not None else "high"
            learned = getattr(own, check.name)
            remedy = "look at the images; a new detector learns anew (`osteoflow data limits --again`)"
            value = getattr(check, bound) if learned is None else learned
            asked.append(check.model_copy(update={"site": site, bound: value, "remedy": remedy}))
    return asked + [_strangeness(site) for site, own in sorted(sites.items()) if own.usual]


def _strangeness(site: str) -> Check:
    """What one site's images look like says nothing of another's, so nobody else is asked.

    Told, and no more: a body part that the site had not sent before is strange, too.
    """
    return Check(
        suite="images",
        name=STRANGENESS,
        table="images",
        column=STRANGENESS,
        high=1.0,
        site=site,
        severity="warning",
        remedy="look at the images: photographs do not belong here; a body part that is new here does",
    )


def _image_checks(limits: ImageExpectations) -> list[Check]:
    look = "look at the images; let the site learn its own limits (`osteoflow data limits`)"
    tag = "the photometric tag contradicts the pixels; ask the sender"
    settle = "the same picture has opposite labels; let a clinician settle it"
    strange = "photographs, scanned pages and other pictures that are no radiographs do not belong here"
    depth = "the file claims more bits than it holds; ask the sender for the original"
    dose = "the exposure missed its target; tell the site, whose device knows the target"
    warn = limits.warn
    rows: list[tuple[str, str, float | None, float | None, Severity, str]] = [
        ("measured", "measured", None, None, "critical", "run `inspect`"),
        ("min_side_px", "side_px", limits.min_side_px, None, "critical", look),
        ("min_aspect", "aspect", limits.min_aspect, None, "critical", look),
        ("max_saturation", "saturation", None, limits.max_saturation, "critical", look),
        ("min_grey_levels", "grey_levels", limits.min_grey_levels, None, "critical", look),
        ("min_field_fraction", "field_fraction", limits.min_field_fraction, None, "critical", look),
        ("min_sharpness", "sharpness", limits.min_sharpness, None, "critical", look),
        ("max_noise", "noise", None, limits.max_noise, "critical", look),
        ("max_clutter", "clutter", None, limits.max_clutter, "critical", strange),
        ("polarity_ok", "polarity_ok", None, None, "critical", tag),
        ("label_conflict", "label_agrees", None, None, "critical", settle),
        ("cnr", "cnr", warn.min_cnr, None, "warning", look),
        ("motion", "motion", None, warn.max_motion, "warning", look),
        ("clutter", "clutter", None, warn.max_clutter, "warning", strange),
        ("deep_levels", "deep_levels", warn.min_deep_levels, None, "warning", depth),
        ("deviation_index", "deviation_index", -warn.deviation, warn.deviation, "warning", dose),
        ("far_deviation_index", "deviation_index", -warn.far_deviation, warn.far_deviation, "warning", dose),
    ]
    return [
        Check(
            suite="images",
            name=name,
            table="images",
            column=column,
            low=least,
            high=most,
            severity=severity,
            remedy=todo,
        )
        for name, column, least, most, severity, todo in rows
    ]


def dataset_checks(limits: DatasetExpectations) -> list[Check]:
    """The whole set, over accepted and labelled images."""
    more = "take in more labelled studies (`osteoflow intake`)"
    role = f"{more}, or review split.shares on a new archive"
    chosen = "check how the studies were chosen, or validate.dataset"
    state = "ask the sender for it: what is not stated cannot be balanced, nor watched for drift"
    voices = "collect readings that were given before the AI's answer was shown"
    low, high = limits.prevalence
    rows: list[tuple[str, Table, str, float | None, float | None, Severity, str]] = [
        ("min_positives", "whole", "positives", limits.min_positives, None, "critical", more),
        ("min_negatives", "whole", "negatives", limits.min_negatives, None, "critical", more),
        ("prevalence", "whole", "prevalence", low, high, "critical", chosen),
        ("max_quarantined", "whole", "quarantined", None, limits.max_quarantined, "critical", "see the reasons below"),
        ("positives_by_role", "roles", "positives", 1, None, "critical", role),
        ("negatives_by_role", "roles", "negatives", 1, None, "critical", role),
        ("label_provenance", "whole", "unattributed", None, 0, "critical", "a label nobody gave: report it"),
        ("ai_visible_labels", "whole", "ai_visible", None, limits.max_ai_visible, "warning", voices),
        ("balance_by_stratum", "strata", "prevalence", low, high, "warning", chosen),
        ("missing_metadata", "metadata", "missing", None, limits.max_missing, "warning", state),
    ]
    return [
        Check(
            suite="dataset", name=name, table=table, column=column, low=least, high=most, severity=severity, remedy=todo
        )
        for name, table, column, least, most, severity, todo in rows
    ]


def split_checks(limits: DatasetExpectations) -> list[Check]:
    """The line between roles: no leak, roles that are comparable, and a label that takes the picture to tell."""
    grouping = "no patient ids: metrics may be flattered; get real ids from the sender"
    drift = "take in more studies, or raise validate.dataset.max_prevalence_effect"
    told = "this tells the label without the picture: balance it, and read the slices of the evaluation"
    rows: list[tuple[str, Table, str, float, Severity, str]] = [
        ("patient_overlap", "whole", "patient_overlap", 0, "critical", "a defect of `split`, report it"),
        ("near_duplicate_overlap", "whole", "near_duplicate_overlap", 0, "critical", "a defect of `split`, report it"),
        ("prevalence_effect", "whole", "prevalence_effect", limits.max_prevalence_effect, "critical", drift),
        ("weak_grouping", "whole", "weak_grouping", 0, "warning", grouping),
        ("shortcut_auc", "shortcuts", "auc", limits.max_shortcut_auc, "warning", told),
    ]
    return [
        Check(suite="splits", name=name, table=table, column=column, high=most, severity=severity, remedy=todo)
        for name, table, column, most, severity, todo in rows
    ]


def version(checks: list[Check]) -> str:
    """The suite as 12 hex digits: other checks, thresholds or severities give others."""
    document = json.dumps([check.model_dump() for check in checks], sort_keys=True)
    return sha256(document.encode()).hexdigest()[:12]


def judge(checks: list[Check], tables: dict[str, pd.DataFrame], *, docs: Path | None = None) -> list[Verdict]:
    """Judge every check on its table; the first column of a table is its key. Nothing leaves the machine.

    Args:
        docs: a folder that Great Expectations' Data Docs are written to, where they are wanted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports deprecate each other
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier
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
    context = gx.get_context(mode="ephemeral", project_config=config)
    if docs:
        context.add_data_docs_site("docs", data_docs.site(docs))
    source = context.data_sources.add_pandas("tables")
    verdicts = {}
    places = list(dict.fromkeys((check.table, check.site) for check in sorted(checks, key=lambda one: one.table)))
    for number, (table, site) in enumerate(places):
        mine = [check for check in checks if (check.table, check.site) == (table, site)]
        rows = tables[table] if site is None else _of_site(tables[table], site, [one for _, one in places])
        # A page's address is made of this name, and what sites are called is up to their senders.
        name = table if site is None else f"{table}-{number}"
        key = str(rows.columns[0])
        expectations = [_expectation(gx.expectations, check, place) for place, check in enumerate(mine)]
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        with pd.option_context("mode.copy_on_write", True):  # it takes the whole table up anew several times a check
            outcome = definition.run(
                batch_parameters={"dataframe": rows},
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key]},
                run_id=RunIdentifier("validate", data_docs.MOMENT),
            )
        for result in outcome.results:
            check = mine[result.expectation_config.meta["check"]]
            verdicts[id(check)] = _verdict(check, rows, key, result)
    if docs:
        context.build_data_docs(site_names=["docs"])
        data_docs.settle(docs)
    return [verdicts[id(check)] for check in checks]


def failing(verdicts: list[Verdict], name: str) -> set[str]:
    """The keys of the rows that fail the check `name`, over all sites."""
    return {key for verdict in verdicts if verdict.check.name == name for key in verdict.failing}


def reasons_of(image_ids: pd.Series, verdicts: list[Verdict]) -> pd.Series:
    """The critical checks each image fails, by name, in the order of the suite, joined by ";"; as `image_ids`."""
    reasons = pd.Series("", index=image_ids.index)
    for verdict in verdicts:
        if verdict.check.severity != "critical" or not verdict.failing:
            continue
        hit = image_ids.isin(verdict.failing)
        reasons[hit] = (reasons[hit] + ";" + verdict.check.name).str.lstrip(";")
    return reasons


def _of_site(rows: pd.DataFrame, site: str, sites: list[str | None]) -> pd.DataFrame:
    """The rows of `site`; of every site that `sites` does not name, for "". An image without a site has none."""
    return rows[rows["site"] == site] if site else rows[~rows["site"].isin([one for one in sites if one])]


def _expectation(expectations: Any, check: Check, number: int) -> Any:
    meta = {"check": number, "remedy": check.remedy}
    if check.low is None and check.high is None:
        return expectations.ExpectColumnValuesToBeInSet(
            column=check.column, value_set=[True], severity=check.severity, meta=meta
        )
    return expectations.ExpectColumnValuesToBeBetween(
        column=check.column, min_value=check.low, max_value=check.high, severity=check.severity, meta=meta
    )


def _verdict(check: Check, table: pd.DataFrame, key: str, result: Any) -> Verdict:
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"{check.suite}.{check.name}: Great Expectations could not evaluate it")
    failing = sorted(str(row[key]) for row in result.result.get("unexpected_index_list") or [])
    return Verdict(
        check=check, success=bool(result.success), found=_found(check, table, failing), failing=tuple(failing)
    )


def _found(check: Check, table: pd.DataFrame, failing: list[str]) -> str:
    """In a few words: counts of images, and the values of the rows that fail of every other table."""
    if check.table == "images":
        unknown = int(table[check.column].isna().sum())
        return f"{len(failing)} of {len(table)} images fail" + (f", {unknown} not stated" if unknown else "")
    if check.table == "whole":
        return f"{float(table[check.column].iloc[0]):.4g}"
    values = table.set_index(table.columns[0])[check.column]
    told = values if check.table == "roles" else values[values.index.isin(failing)].sort_values(ascending=False)
    listed = ", ".join(f"{name} {value:.4g}" for name, value in told.items())
    if check.table == "shortcuts" and values.isna().all():
        return "not measured: too few groups hold both labels"
    return listed or f"none of {len(values)} fails"
