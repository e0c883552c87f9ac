"""Headless Chromium, for what only a browser can tell: skipped by name where it is missing, unless CI requires it."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--hide-scrollbars", "--window-size=1280,860",
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile; its console is kept for `get_log("browser")`."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver) and not os.environ.get("OSTEOFLOW_REQUIRE_BROWSER"):
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield page
    finally:
        page.quit()


def photograph(page: webdriver.Chrome, file: Path) -> None:
    """What the browser shows, as a PNG of 128 colours."""
    from PIL import Image

    with Image.open(io.BytesIO(page.get_screenshot_as_png())) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
