"""The drift report as one HTML file: our verdict and sentences on top, Evidently's distributions below.

Evidently draws; it does not decide. Each column carries the distance and verdict of monitoring/drift through a
statistical test of our own, and Evidently's rule for the whole data set (half of the columns) is not asked for.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd

from components import params
from components.monitoring.verdict import EMBEDDING, MIXES, Drift, Feature

TEST = "osteoflow_distance"
TITLE = "Osteoflow: production beside the model's reference"
STYLE = (
    "font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:1100px;margin:24px auto;padding:0 16px;background:#fff"
)
HEADLINES = {
    "insufficient": ("Not enough cases", "#57606a"),
    "stable": ("No drift", "#1a7f37"),
    "drifted": ("Drift", "#b42318"),
}


def render(found: Drift, known: pd.DataFrame, cases: pd.DataFrame, params: params.Monitor) -> str:
    """The page, complete in itself (it loads nothing).

    Args:
        found: the verdict.
        known, cases: reference and window.
        params: shown beside the verdict.
    """
    summary = _summary(found, params)
    columns = [feature for feature in _drifted_first(found) if feature.name != EMBEDDING]
    if not columns:
        head = f'<head><meta charset="utf-8"><title>{TITLE}</title></head>'
        return f'<!doctype html><html lang="en">{head}<body>{summary}</body></html>\n'
    page = _evidently(columns, known, cases)
    head, body, rest = page.partition("<body>")
    return head.replace("<head>", f"<head><title>{TITLE}</title>", 1) + body + summary + rest


def _evidently(columns: list[Feature], known: pd.DataFrame, cases: pd.DataFrame) -> str:
    """Evidently's page on these columns, each with our distance and verdict."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently 0.7 uses deprecated names of numpy, pydantic and plotly
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        _register({feature.name: feature for feature in columns})
        numbers = [feature.name for feature in columns if feature.name not in MIXES]
        names = [feature.name for feature in columns if feature.name in MIXES]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=names)
        sides = []
        for table in (cases, known):
            shown = table[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
            shown[names] = table[names].astype(str)
            sides.append(Dataset.from_pandas(shown, data_definition=definition))
        drawn = Report([ValueDrift(column=feature.name, method=TEST) for feature in columns]).run(*sides)
        return str(drawn.get_html_str(as_iframe=False))


def _register(verdicts: dict[str, Feature]) -> None:
    """Teach Evidently a test that answers with our verdict on the column it is asked about."""
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def judge(reference: pd.Series, _current: pd.Series, _kind: ColumnType, _threshold: float) -> tuple[float, bool]:
        feature = verdicts[str(reference.name)]
        return feature.statistic, feature.drifted

    answer: Callable[..., Any] = judge
    test = StatTest(
        name=TEST,
        display_name="distance within body region and view, with false-discovery control",
        allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
        default_threshold=0.0,
    )
    register_stattest(test, answer)


def _summary(found: Drift, params: params.Monitor) -> str:
    headline, colour = HEADLINES[found.status]
    period = f" from {found.since[:10]} to {found.until[:10]}" if found.since and found.until else ""
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in found.reasons) or "<li>nothing moved</li>"
    untested = "".join(f"<li>not tested: {html.escape(reason)}</li>" for reason in found.untested)
    columns = _table(
        ("column", "distance", "p", "median, reference", "median, window", "cases", "verdict"),
        [(f.name, f"{f.statistic:.3f}", f"{f.p:.2g}", _number(f.reference), _number(f.current), str(f.cases),
          "drifted" if f.drifted else "significant, small" if f.q_rejected else "") for f in _drifted_first(found)],
    )  # fmt: skip
    sites = _table(
        ("site", "cases", "in the reference", "furthest image quality", "KS"),
        [(s.site, str(s.cases), str(s.reference_cases), s.furthest or "", _number(s.distance)) for s in found.sites],
    )
    return f"""
<section style="{STYLE}">
<h1 style="color:{colour};margin:0">{headline}</h1>
<p>{found.cases} cases of {found.patients} patients{period}, beside {found.reference_cases} reference cases.</p>
<ul>{reasons}{untested}</ul>
{columns if found.tested else ""}
<p>A column drifted when its shift is significant (Benjamini-Hochberg, q = {params.q:g}) and its distance at least
{params.effect_floor:g}. Distances are Kolmogorov-Smirnov within body region and view; for <code>embedding</code>
2&nbsp;AUC&nbsp;-&nbsp;1 of a classifier that tells the window from the reference; for <code>body_region</code> and
<code>view</code> the share of cases that changed category. Patients, not images, count towards p.</p>
{sites}
</section>
"""


def _drifted_first(found: Drift) -> list[Feature]:
    return sorted(found.tested, key=lambda feature: not feature.drifted)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cell = "padding:4px 12px 4px 0;border-bottom:1px solid #d0d7de;text-align:left"
    titles = "".join(f'<th style="{cell}">{html.escape(title)}</th>' for title in head)
    lines = "".join(
        "<tr>" + "".join(f'<td style="{cell}">{html.escape(value)}</td>' for value in row) + "</tr>" for row in rows
    )
    return f'<table style="border-collapse:collapse;margin:12px 0"><tr>{titles}</tr>{lines}</table>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
