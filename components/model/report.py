"""Noun: the evaluation as one HTML page for people: no link out, no script, prints well."""

from __future__ import annotations

import base64
from importlib.resources import files

import numpy as np

from components.model import charts
from components.model.evaluation import WEAK, WEAK_NOTE, Evaluation
from components.model.gallery import Gallery, Picture
from components.model.statistics import Estimate
from components.serving.bundle import Manifest

TEMPLATE = "report.html.j2"
COLUMNS = {
    "site": "Site", "device": "Device", "view": "View", "body_region": "Body region", "sex": "Sex",
    "age_years": "Age, years", "hour": "Hour of day", "hardware": "Hardware in the image",
}  # fmt: skip


def render(
    found: Evaluation,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    gallery: Gallery,
    manifest: Manifest,
) -> str:
    """The page as text.

    Args:
        labels, probabilities, patients: (n,) of the sealed test images.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"estimate": estimate, "data": _data}
    # Read through importlib, so that a wheel serves the template as a checkout does.
    template = environment.from_string((files("components.model") / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        found=found,
        weak=WEAK,
        weak_note=WEAK_NOTE,
        manifest=manifest,
        columns=COLUMNS,
        charts={
            "roc": charts.roc(found, labels, probabilities),
            "calibration": charts.calibration(labels, probabilities, patients),
            "histogram": charts.histogram(found, labels, probabilities),
            "decision": charts.decision_curve(found),
        },
        misses=gallery.misses(found.points.high_sensitivity.threshold),
        false_alarms=gallery.false_alarms(found.points.high_specificity.threshold),
    )


def estimate(value: Estimate | None) -> str:
    """`.912 (.874-.944)`, or a dash where there is nothing to divide by."""
    if value is None:
        return "–"  # noqa: RUF001
    dash = "−" if value.low < 0 else "–"  # noqa: RUF001 - a minus sign, or the en dash of a range
    return str(value).replace("-", dash)


def _data(picture: Picture) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
