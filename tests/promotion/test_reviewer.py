"""A reviewer at work in MLflow's own pages: reads the record, is refused with the reason in sight, approves.

`pytest tests/promotion/test_reviewer.py --screenshots=docs/images` takes the pictures of docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import photograph
from tests.promotion.guarded import NAME
from tests.promotion.hospital import FAILED

pytestmark = [pytest.mark.slow, pytest.mark.browser]
DIALOG = "[role=dialog]"
SAVE_ALIASES = "[data-component-id='mlflow.edit-aliases-modal.save-button']"


class Page:
    """One version's page, and what a reviewer can press there."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self, version: int) -> Page:
        self.browser.get("about:blank")  # an address that differs after the # alone would not load again
        self.browser.get(f"{self.address}/#/models/{NAME}/versions/{version}")
        self.find("[data-testid=add-tag-button]")
        for button in self.browser.find_elements(By.CSS_SELECTOR, "[aria-label=Close]"):
            button.click()  # the assistant's panel
        return self

    def read(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def tag(self, name: str, value: str) -> None:
        self.find("[data-testid=tags-form-input-name]").send_keys(name)
        self.find("[data-testid=tags-form-input-value]").send_keys(value)
        self.find("[data-testid=add-tag-button]").click()
        self.until(lambda page: f"{name}\n{value}" in self.read())

    def give_alias(self, alias: str) -> None:
        self.find("[data-component-id*=modelversionviewaliaseditor]").click()
        self.find(f"{DIALOG} input").send_keys(alias, Keys.ENTER)
        self.find(f"{SAVE_ALIASES}:enabled").click()

    def take_aliases_off(self) -> None:
        self.find("[data-component-id*=modelversionviewaliaseditor]").click()
        self.find(f"{DIALOG} input").send_keys(Keys.BACKSPACE)
        self.find(f"{SAVE_ALIASES}:enabled").click()

    def copy_to(self, model: str) -> None:
        """The button "Promote model"."""
        self.find("[data-component-id*=promotemodelbutton]").click()
        self.find("#selectedModel").send_keys(model, Keys.ENTER)
        self.find(f"{DIALOG} .du-bois-light-btn-primary").click()

    def says(self, text: str) -> bool:
        """Whether the page comes to say this, within seconds."""
        return bool(self.until(lambda _: text in self.read()))

    def find(self, css: str) -> Any:
        shown = self.until(lambda page: [e for e in page.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()])
        return shown[0]

    def until(self, holds: Callable[[Any], Any]) -> Any:
        return WebDriverWait(self.browser, 20, poll_frequency=0.1).until(holds)


@pytest.fixture(scope="module")
def page(hospital, browser) -> Page:
    """A browser in which a reviewer has signed in."""
    host, password = hospital.server.url.removeprefix("http://"), hospital.server.passwords["reviewer"]
    browser.get(f"http://reviewer:{password}@{host}/")  # the browser keeps the sign-in
    return Page(browser, f"http://{host}")


@pytest.fixture
def picture(request, page) -> Callable[[str], None]:
    """Photographs the page into the folder of `--screenshots`, where one is given."""
    folder: Path | None = request.config.getoption("--screenshots")
    return lambda name: photograph(page.browser, folder / f"{name}.png") if folder else None


def approvals(hospital, version: int) -> list[str | None]:
    """Who signed for a version."""
    return [entry.signer for entry in hospital.ledger.entries("approval") if entry.body["version"] == version]


def test_the_decision_record_is_on_the_page(hospital, page):
    """Who signs has the verdict, the figures beside the champion's, and the warnings before their eyes."""
    said = page.open(hospital.propose("read", **FAILED)).read()

    assert "signed in" not in said
    assert "failed (champion version 1)" in said
    assert "Sensitivity floor >= 0.75 .710 (.640-.772) failed" in said
    assert "Read before approving" in said


def test_a_version_that_failed_is_refused_in_sight(hospital, page, picture):
    """The reason stands in the dialog, the alias stays where it was, and version 1 goes on serving."""
    version = hospital.propose("failed", **FAILED)
    page.open(version).tag("rationale", "Looks good to me")
    page.give_alias("champion")

    assert page.says(f"{NAME} version {version}: the gate said 'failed'")
    picture("refusal")
    hospital.promote()
    assert approvals(hospital, version) == []
    assert (hospital.server.store.at(NAME, "champion").version, hospital.serves) == (1, "version 1")


def test_ones_own_proposal_is_refused_in_sight(hospital, page):
    version = hospital.propose("own", proposer="reviewer")
    page.open(version).tag("rationale", "Mine is the best")
    page.give_alias("champion")

    assert page.says("'reviewer' proposed it; another person has to approve it")
    assert (approvals(hospital, version), hospital.serves) == ([], "version 1")


def test_a_version_that_failed_is_not_copied_by_promote_model(hospital, page):
    """MLflow's button copies into another registered model, past every alias; the guard is asked there too."""
    hospital.server.ask("engineer", "POST", "registered-models/create", name="copies")
    page.open(hospital.propose("to-copy", **FAILED)).copy_to("copies")

    assert page.says("only a version that passed its gate can be copied")
    assert (hospital.server.store.versions("copies"), hospital.serves) == ([], "version 1")


def test_an_approval_in_the_browser_changes_what_serves(hospital, page, picture):
    """Rationale and alias, given with the mouse: signed in the reviewer's name, rolled out, served, and it stays."""
    version = hospital.propose("better")
    page.open(version).tag("rationale", "Misses fewer fractures of the hip")
    page.give_alias("champion")
    page.until(lambda _: "champion" in hospital.server.store.version(NAME, version).aliases)
    assert (approvals(hospital, version), hospital.serves) == (["reviewer"], "version 1")

    hospital.promote()
    assert hospital.serves == f"version {version}"
    page.open(version)
    picture("approval")
    page.take_aliases_off()
    assert page.says("the alias champion follows the ledger; to take a version out of use run `osteoflow rollback`")
    assert "champion" in hospital.server.store.version(NAME, version).aliases
    assert hospital.serves == f"version {version}"
