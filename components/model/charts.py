"""Noun: the report's curves as inline SVG in the page's own text colour, so that they suit light, dark and paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from components.model.evaluation import Evaluation
from components.model.reliability import calibration_bins
from components.model.statistics import rate

BLUE, ORANGE, GREY = "#3a7ca5", "#d9822b", "#8a8f98"  # told apart with any colour vision, and by line style in print
INK = "#010203"  # stands for the page's text colour until the SVG is done


def roc(found: Evaluation, labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Sensitivity over 1 - specificity, with both frozen operating points."""

    def paint(axes: Any) -> None:
        order = np.argsort(-probabilities, kind="stable")
        last = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
        true = np.append(0, np.cumsum(labels[order])[last]) / labels.sum()
        false = np.append(0, np.cumsum(1 - labels[order])[last]) / (1 - labels).sum()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        axes.plot(false, true, color=BLUE, linewidth=1.8)
        for point, marker, name in (
            (found.points.high_sensitivity, "o", "high sensitivity"),
            (found.points.high_specificity, "s", "high specificity"),
        ):
            x, y = 1 - point.specificity.value, point.sensitivity.value
            spread = [[y - point.sensitivity.low], [point.sensitivity.high - y]]
            across = [[point.specificity.high - 1 + x], [1 - x - point.specificity.low]]
            axes.errorbar(x, y, spread, np.abs(across), fmt=marker, color=ORANGE, markersize=6, linewidth=1, label=name)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.legend(loc="lower right")

    return _svg("roc", paint)


def calibration(labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> str:
    """Share of fractures over mean probability, in ten groups of equal size."""

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfect")
        order = np.argsort(probabilities, kind="stable")
        groups = np.array_split(order, min(10, len(order)))
        for (x, y, _), group in zip(calibration_bins(labels, probabilities), groups, strict=True):
            interval = rate(labels[group] == 1, patients[group])
            if interval:
                axes.plot([x, x], [interval.low, interval.high], color=BLUE, linewidth=1)
            axes.plot(x, y, "o", color=BLUE, markersize=5)
        axes.set(xlabel="predicted probability", ylabel="share of fractures", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))

    return _svg("calibration", paint)


def histogram(found: Evaluation, labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Who scores what: non-fractures solid, fractures outlined, thresholds as lines."""

    def paint(axes: Any) -> None:
        bins = np.linspace(0, 1, 31)
        axes.hist(probabilities[labels == 0], bins, color=GREY, alpha=0.55, label="no fracture")
        axes.hist(probabilities[labels == 1], bins, histtype="step", color=ORANGE, linewidth=1.6, label="fracture")
        for point, style in ((found.points.high_sensitivity, "--"), (found.points.high_specificity, "-.")):
            axes.axvline(point.threshold, color=INK, linewidth=0.9, linestyle=style)
        axes.set(xlabel="predicted probability", ylabel="images", xlim=(0, 1))
        axes.legend(loc="best")

    return _svg("histogram", paint)


def decision_curve(found: Evaluation) -> str:
    """Net benefit of acting on the model, on everyone, on no one."""

    def paint(axes: Any) -> None:
        at = [row.threshold for row in found.benefit]
        model = [row.model for row in found.benefit]
        axes.axhline(0, color=INK, linewidth=0.8, label="treat none")
        axes.plot(at, [row.treat_all for row in found.benefit], "--", color=GREY, label="treat all")
        axes.plot(at, model, color=BLUE, linewidth=1.8, label="model")
        lowest = min([0.0, *model])
        axes.set(xlabel="threshold probability", ylabel="net benefit", xlim=(0, 0.4))
        axes.set_ylim(lowest - 0.05, max([0.1, *model]) * 1.15)
        axes.legend(loc="best")

    return _svg("decision", paint)


def _svg(name: str, paint: Callable[[Any], None]) -> str:
    """Draw without global state; the same data give the same bytes."""
    from io import StringIO

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "legend.frameon": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.2, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        paint(axes)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Title": name})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Names inside an SVG are names in the whole page: each chart keeps its own.
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)([^")]+)', rf"\1{name}-\2", text)
    text = re.sub(r"font: ?([^;\"]*?)'?sans-serif'?[^;\"]*", r"font: \1inherit", text)
    return text.replace(INK, "currentColor").replace(" xmlns:xlink=", " data-xlink=").replace("xlink:href", "href")
