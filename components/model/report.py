"""Noun: the evaluation as one HTML page for people: no link out, no script, prints well."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from components.model import charts
from components.model.evaluation import WEAK, WEAK_NOTE, Evaluation
from components.model.gallery import Gallery, Picture
from components.model.mistakes import FALSE_ALARM, MISSED, Mistake
from components.model.statistics import Estimate
from components.serving.bundle import SURE, Manifest

TEMPLATE = "report.html.j2"
COLUMNS = {
    "site": "Site", "device": "Device", "view": "View", "body_region": "Body region", "sex": "Sex",
    "age_years": "Age, years", "hour": "Hour of day", "hardware": "Hardware in the image",
}  # fmt: skip
STRENGTHS = {
    "noise": ("Noise", "of the range (sigma)"), "blur": ("Blur", "per mille of the longer side (sigma)"),
    "gamma": ("Exposure curve", "(exponent)"), "gain": ("Overexposure", "times its range"),
    "jpeg": ("JPEG", "(quality)"), "rotation": ("Rotation", "degrees"), "resolution": ("Resolution", "of each side"),
}  # fmt: skip


def render(
    found: Evaluation,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    gallery: Gallery,
    manifest: Manifest,
    errors: Sequence[Mistake],
) -> str:
    """The page as text.

    Args:
        labels, probabilities, patients: (n,) of the sealed test images.
        errors: every one of them, with what is proposed about it.
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
        strengths=STRENGTHS,
        sure=SURE,
        charts={
            "roc": charts.roc(found, labels, probabilities),
            "calibration": charts.calibration(labels, probabilities, patients),
            "histogram": charts.histogram(found, labels, probabilities),
            "decision": charts.decision_curve(found),
        },
        errors={error.row: error for error in errors},
        tags=_counted(errors),
        misses=gallery.misses(found.points.high_sensitivity.threshold),
        false_alarms=gallery.false_alarms(found.points.high_specificity.threshold),
    )


def estimate(value: Estimate | None) -> str:
    """`.912 (.874-.944)`, or a dash where there is nothing to divide by."""
    if value is None:
        return "–"  # noqa: RUF001
    dash = "−" if value.low < 0 else "–"  # noqa: RUF001 - a minus sign, or the en dash of a range
    return str(value).replace("-", dash)


def _counted(errors: Sequence[Mistake]) -> dict[str, tuple[int, dict[str, int]]]:
    """By kind of error: how many there are, and how many of them each tag is proposed for, in the taxonomy's order."""
    found = {}
    for kind, vocabulary in (("missed", MISSED), ("false alarm", FALSE_ALARM)):
        mine = [error for error in errors if error.kind == kind]
        found[kind] = (len(mine), {tag: sum(tag in error.proposed for error in mine) for tag in vocabulary})
    return found


def _data(picture: Picture) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
