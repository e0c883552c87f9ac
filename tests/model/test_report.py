"""The report: everything a reader needs in one file, and nothing that reaches out of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from components.model.evaluation import CountFigures, Heads, RegionFigures, RegionRecall
from components.model.gallery import Gallery, draw
from components.model.mistakes import Mistake, Neighbour
from components.model.report import estimate, render
from components.model.statistics import Estimate
from components.radiograph.labels import Box
from components.serving.bundle import Bundle, Prediction, Regions
from tests.model.figures import IMAGES, evaluation

HEADS = Heads(
    regions=RegionFigures(
        accuracy=Estimate(0.95, 0.9, 0.98, 190),
        sure=Estimate(0.98, 0.94, 0.99, 150),
        contradicted=Estimate(0.016, 0.005, 0.046, 190),
        untold=10,
        each=(
            RegionRecall(name="hand <i>", recall=Estimate(0.96, 0.9, 0.99, 90)),
            RegionRecall(name="leg", recall=None),
        ),
    ),
    counts=CountFigures(error=Estimate(0.4, 0.3, 0.5, 160), on_fractures=None, of_none=0.36, uncounted=40),
)


@pytest.fixture(scope="module")
def page(tiny_bundle: Path) -> str:
    """A report with misses, false alarms, an insufficient slice and a site whose name would break HTML."""
    regions = Regions(names=("hand", "leg"), accuracy=None, sure=None, heeded=False, reasons=("too few images",))
    manifest = Bundle.open(tiny_bundle).manifest.model_copy(update={"regions": regions})
    found, labels, p, patients = evaluation(manifest)
    found = found.model_copy(update={"heads": HEADS})
    random = np.random.default_rng(0)
    gallery = Gallery(labels)
    for row in range(IMAGES):
        heat = np.zeros((40, 30), np.float32)
        heat[5, 5] = 1
        seen = Prediction(float(p[row]), 0.0, heat, np.zeros(1), "review")
        gallery.offer(row, random.integers(0, 255, (40, 30)).astype(np.uint8), seen, [])
    near = Neighbour(image_id="i7", likeness=0.91, label=1.0, probability=0.8)
    missed = [
        Mistake(row, f"t{row}", "missed", float(p[row]), ("subtle",), (near,))
        for row in np.flatnonzero((labels == 1) & (p < 0.3)).tolist()
    ]
    return render(found, labels, p, patients, gallery, manifest, missed)


def test_nothing_is_fetched(page):
    """No script, no link, no source outside the page: it can be archived and mailed as it is."""
    found = re.findall(r"""(?:src|href|xlink:href|data-src)\s*=\s*["']([^"']*)""", page)

    assert {value.split(":")[0] if not value.startswith("#") else "#" for value in found} <= {"data", "#"}
    assert not re.search(r"<script|@import|<link|url\((?!#)", page)


def test_it_is_well_formed(page):
    """Every tag that opens closes, in order."""
    void, stack = {"meta", "img", "br"}, []

    class Walk(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in void:
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Walk().feed(page)

    assert stack == []


def test_names_from_the_data_are_text(page):
    """A site's name cannot become markup."""
    assert "north &lt;b&gt;" in page
    assert "north <b>" not in page


def test_region_and_number_have_their_denominators(page):
    """And it is said that a contradiction holds no case back, and why."""
    text = re.sub(r"<[^>]+>", "", page)

    assert "Body region named right.950 (.900–.980) of 190" in text  # noqa: RUF001
    assert "of hand &lt;i&gt;.960" in text
    assert "A contradiction holds no case back: too few images." in text
    assert ".400 (.300–.500) of 160; always saying none: 0.360" in text  # noqa: RUF001


def test_ids_are_unique(page):
    """Four drawings in one page do not borrow each other's parts."""
    ids = re.findall(r'\bid="([^"]+)"', page)

    assert len(ids) == len(set(ids))


def test_drawings_take_the_pages_colour(page):
    """So that they can be read on dark, light and paper."""
    assert "#010203" not in page
    assert page.count("<svg") == 4
    assert "currentColor" in page


def test_what_it_must_say(page):
    """Intended use, versions, denominators, and what is not known."""
    for text in (
        "Decision support for research; not a medical device.",
        "ab" * 32,
        "67 fractures, at the high-sensitivity point",
        "133 non-fractures, at the high-specificity point",
        "7 label unknown",
        '<td colspan="4">insufficient</td>',
        "no fracture has boxes",
        "random weights",
        "to hold the true label for 90% of either class",
        "Sensitivity (recall)",
        "Precision, which is the PPV at this test set's own prevalence",
        "100 studies, 100 of several images; 67 show a fracture, 67 of them on some of their images only.",
        "Judged on a part of their images, as the rest was left out: 3.",
    ):
        assert text in page, text


def test_the_worst_are_shown_worst_first():
    """Eight of each at most: fractures from the lowest probability, non-fractures from the highest."""
    labels = np.repeat([1.0, 0.0], 20)
    p = np.concatenate([np.linspace(0.01, 0.9, 20), np.linspace(0.01, 0.9, 20)])
    gallery = Gallery(labels)
    for row in np.random.default_rng(0).permutation(40):
        seen = Prediction(float(p[row]), 0.0, np.zeros((8, 8), np.float32), np.zeros(1), "review")
        gallery.offer(int(row), np.zeros((8, 8), np.uint8), seen, [])

    assert [picture.row for picture in gallery.misses(0.2)] == [0, 1, 2, 3, 4]
    assert [picture.row for picture in gallery.false_alarms(0.1)] == [39, 38, 37, 36, 35, 34, 33, 32]


def test_a_drawing_shows_heat_and_box():
    """Orange where the evidence is, blue where the reader's box is, grey elsewhere."""
    import cv2

    heat = np.zeros((360, 360), np.float32)
    heat[40:80, 40:80] = 1
    jpeg = draw(np.full((360, 360), 128, np.uint8), heat, [Box(x=200, y=200, width=100, height=100)])
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)

    assert image[60, 60, 2] > image[60, 60, 0] + 60
    assert image[250, 200, 0] > image[250, 200, 2] + 40
    assert np.ptp(image[300, 60]) < 10


def test_an_estimate_without_a_denominator_is_a_dash():
    assert estimate(None) == "–"  # noqa: RUF001
    assert estimate(Estimate(0.9, 0.8, 0.95, 10)) == ".900 (.800–.950)"  # noqa: RUF001
