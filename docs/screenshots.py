"""Photograph the demo's real pages for the README: `make screenshots`, after `make demo`. Needs Chromium and driver.

Starts the demo's stack on the usual ports, visits each page as its user would, and writes docs/images/*.png.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = REPOSITORY / ".osteoflow" / "demo" / ".osteoflow"
IMAGES = REPOSITORY / "docs" / "images"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
         "--disable-component-update", "--no-first-run", "--window-size=1280,860")  # fmt: skip


def main() -> int:
    if not (STATE / "ledger.jsonl").exists():
        print("no finished demo here; run `make demo` first", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    stack = subprocess.Popen([sys.executable, "-m", "flows.cli", "up", "--demo"], cwd=REPOSITORY)
    try:
        wait(STATE / "stack.json", stack)
        photograph()
    finally:
        stack.send_signal(2)
        stack.wait(timeout=60)
    return 0


def wait(marker: Path, stack: subprocess.Popen[bytes]) -> None:
    """Until the stack says it is up."""
    deadline = time.monotonic() + 300
    while not marker.exists():
        if stack.poll() is not None or time.monotonic() > deadline:
            sys.exit("the stack did not start")
        time.sleep(0.5)


def photograph() -> None:
    """Every page of the README's table."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    users = json.loads((STATE / "mlflow-users.json").read_text())
    clinic, mlflow = "http://127.0.0.1:8080", "127.0.0.1:5000"
    try:
        shoot(driver, clinic, "worklist")
        case = next(p for p in httpx.get(f"{clinic}/api/predictions").json() if p.get("call") == "fracture")
        shoot(driver, f"{clinic}/cases/{case['id']}", "case")
        shoot(driver, f"{clinic}/alerts", "alerts")
        model = "osteoflow-fracture"
        driver.get(f"http://reviewer:{users['reviewer']}@{mlflow}/")  # the browser keeps the sign-in
        driver.get(f"http://{mlflow}/#/models/{model}/versions/2")
        time.sleep(8)
        for button in driver.find_elements(By.CSS_SELECTOR, "button[aria-label='Close']"):
            button.click()  # the assistant's panel
        shoot(driver, f"http://{mlflow}/#/models/{model}/versions/2", "mlflow", seconds=4)
        shoot(driver, "http://127.0.0.1:4200/deployments", "prefect", seconds=8)
        drift = max((STATE / "reports").glob("drift-*"))
        shoot(driver, (drift / "drift.html").as_uri(), "drift", seconds=6)
        shoot(driver, (STATE / "reports" / f"{model}-v2" / "report.html").as_uri(), "report", seconds=3)
    finally:
        driver.quit()


def shoot(driver: webdriver.Chrome, address: str, name: str, seconds: float = 2) -> None:
    """One page, once it has settled."""
    driver.get(address)
    time.sleep(seconds)
    driver.find_element(By.TAG_NAME, "body")
    driver.save_screenshot(str(IMAGES / f"{name}.png"))
    print(f"docs/images/{name}.png", f"{(IMAGES / f'{name}.png').stat().st_size // 1024} KiB")


if __name__ == "__main__":
    sys.exit(main())
