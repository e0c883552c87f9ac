"""The drift page: Evidently's pictures under our verdict, never against it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from components.monitoring.drift import Drift, drift
from tests.monitoring.windows import MONITOR, reference, window

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(verdict, folder) of a window from another detector."""
    folder = tmp_path_factory.mktemp("drift")
    table = window(seed=20, patients=60, shift={"noise": 1.2, "sharpness": -1.0}, site="site-<b>")
    return drift(
        reference=reference(folder), current=table, report=folder / "report", params=MONITOR
    ), folder / "report"


def test_evidently_agrees_with_every_verdict(page):
    """One "Data drift detected" for each numeric or mix column that drifted, "not detected" for each other one."""
    found, folder = page
    html = (folder / "drift.html").read_text()
    pattern = r"""Drift in column '(\w+)'", "label": "Data drift (detected|not detected)\."""
    said = dict(re.findall(pattern, html))

    assert said == {f.name: "detected" if f.drifted else "not detected" for f in found.tested if f.name != "embedding"}
    assert {name for name, verdict in said.items() if verdict == "detected"} == {"noise", "sharpness"}


def test_the_page_opens_with_our_sentences_and_escapes_names(page):
    found, folder = page
    html = (folder / "drift.html").read_text()

    assert f"<li>{found.reasons[0].replace('>', '&gt;')}</li>" in html
    assert "site-&lt;b&gt;" in html


def test_the_page_loads_nothing_from_elsewhere(page):
    html = (page[1] / "drift.html").read_text()

    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(https?:)?//", html) == []


def test_the_json_reads_back_as_the_verdict(page):
    found, folder = page

    assert Drift.model_validate_json((folder / "drift.json").read_text()) == found


@pytest.mark.browser
def test_the_page_draws_in_a_browser(page, tmp_path):
    """Chromium runs Evidently's script and finds our columns in the page it drew."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("needs chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
               f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--dump-dom",
               (page[1] / "drift.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert "Drift in column 'noise'" in re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
