"""A test set's life through the flow, with DVC: a look, a refusal, a refresh, a withdrawal, and who judges then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.dataset.intake import intake
from components.dataset.retirements import marks, read_retirements
from components.errors import DataError, PromotionRefused
from components.model.evaluation import Evaluation
from components.params import load
from components.promotion.approve import approve, roll_out
from components.promotion.decision import Decision
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, write_archive
from components.settings import Settings
from flows import clients
from flows.halves import halves
from flows.patients import withdraw
from flows.retrain import retrain
from flows.testset import enter
from tests.promotion.conftest import empty_store as empty_store
from tests.protocols import AT_ONCE
from tests.sweeps import QUICK
from tests.test_pipeline import SMALL

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
FILES = ("dvc.yaml", ".gitignore", "uv.lock", "data/merges.csv", "data/withdrawals.csv", "data/retirements.csv")
# How good the model is, and what passes, is no question here; who judges is. One look spends the budget.
LENIENT = {
    "auroc_floor": 0, "sensitivity_floor": 0, "specificity_floor": 0, "min_positives": 3, "min_negatives": 3,
    "look_budget": 1,
}  # fmt: skip


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=root, check=True)


def clone(root: Path) -> None:
    """A commit of this repository's code with a tiny model's parameters."""
    ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
    for name in ("components", ".dvc", "flows"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
    for name in ("data", "models", "reports"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("[!.]*"))
    for name in (*FILES, "data/limits.yaml"):
        shutil.copy(REPOSITORY / name, root / name)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section, values in SMALL.items():
        for key, value in values.items():
            inner = params[section][key]
            params[section][key] = inner | value if isinstance(inner, dict) else value
    params["train"]["epochs"] = 2
    params["evaluate"]["robustness"] = QUICK.model_dump(mode="json")
    params["gate"] |= LENIENT | {"parity": params["gate"]["parity"] | {"demand": "warn"}}
    params["gate"]["matched"]["demand"] = "warn"
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "data/batches").mkdir(exist_ok=True)
    (root / "data/batches/.gitkeep").touch()
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "code")


@dataclass
class Story:
    """A workspace, and what was seen on the way."""

    settings: Settings
    refused: str = ""
    told: str = ""
    blocked: str = ""
    first: Decision | None = None
    last: Decision | None = None

    def take_in(self, patients: int, day: int, key: bytes) -> None:
        """A batch of phantoms, all of them numbered from 1; another key makes them other patients."""
        home, folders = clients.workspace(self.settings), [Path("data") / n for n in ("studies", "labels", "catalog")]
        source = home.root.parent / f"phantoms-{day}"
        write_archive(source, patients=patients, detector=DETECTOR_A, seed=4 + day)
        studies, labels, catalog = (home.root / folder for folder in folders)
        batch = intake(
            source=source, studies=studies, labels=labels, catalog=catalog, quarantine=home.state / "quarantine",
            pseudonyms=Pseudonyms(key * 32), params=load(home.root / "params.yaml").intake,
            now=datetime(2026, 1, day, tzinfo=UTC),
        )  # fmt: skip
        home.commit_data(folders, batch.message())

    def with_other_sets(self) -> None:
        """Another bundle of the same network: its prediction sets promise less."""
        path = self.settings.workspace / "params.yaml"
        path.write_text(path.read_text().replace("conformal_alpha: 0.1", "conformal_alpha: 0.2"))
        git(self.settings.workspace, "commit", "-qam", "wider sets")

    def accepted(self) -> pd.DataFrame:
        """As the last build has it."""
        return pd.read_parquet(self.settings.state / "builds/1/data/accepted")

    def command(self, *words: str) -> str:
        own = {"OSTEOFLOW_WORKSPACE": str(self.settings.workspace), "OSTEOFLOW_KEY_DIR": str(self.settings.key_dir)}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words], env=os.environ | own | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def story(tmp_path_factory, empty_store) -> Story:
    """A champion; another bundle, which is refused; new patients, a refresh; two patients withdrawn; a judgement."""
    folder = tmp_path_factory.mktemp("testset")
    clone(folder / "home")
    settings = Settings(workspace=folder / "home", key_dir=folder / "keys", user="engineer")
    told, ledger, registry = Story(settings), clients.ledger(settings), clients.registry(settings)
    settings.state.mkdir()
    shutil.copy(empty_store, settings.state / "mlflow.db")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flows.retrain.clients.load_settings", lambda: settings)
        # Without Prefect, which the demo has.
        patched.setattr("flows.retrain.effect", lambda function: function)
        patched.setattr("flows.retrain.tell_validation", lambda *_: None)
        told.take_in(140, 1, b"p")
        told.first = retrain.fn().decision
        name = told.first.name
        approve(
            ledger=ledger, registry=registry, name=name, version=1, approver="reviewer", rationale="the first",
            key=clients.signing_key(settings, "reviewer"),
        )  # fmt: skip
        bundles = settings.state / "bundles"
        roll_out(ledger=ledger, registry=registry, name=name, plan=AT_ONCE, compared=lambda _: [], bundles=bundles)
        told.with_other_sets()
        with pytest.raises(PromotionRefused) as refused:
            retrain.fn()
        told.refused = str(refused.value)
        told.take_in(60, 2, b"q")
        before = clients.workspace(settings).head()
        told.told = told.command("testset", "refresh", "--reason", "worn out", "--as", "reviewer")
        with pytest.raises(DataError) as blocked:
            retrain.fn(before)
        told.blocked = str(blocked.value)
        table, (refresh,) = told.accepted(), ledger.entries("refresh")
        sealed = table["patient_id"].map(lambda patient: marks([patient])[0]).isin(refresh.body["sealed"])
        for patient in (
            table.loc[sealed, "patient_id"].iloc[0],
            table.loc[table["role"] == "train", "patient_id"].iloc[0],
        ):
            withdraw(settings, patient, "asked by letter")
        told.last = retrain.fn().decision
    return told


def test_a_second_model_on_the_same_patients_is_refused(story):
    assert (story.first.verdict, story.first.look) == ("passed", 1)
    assert "have been looked at 1 times, the protocol allows 1" in story.refused


def test_a_refresh_is_signed_told_and_committed(story):
    """The ledger's entry, what the command says, and the log that builds read: the same patients."""
    (entry,) = clients.ledger(story.settings).entries("refresh")
    first = clients.ledger(story.settings).entries("look")[0]

    assert (entry.signer, entry.body["reason"], entry.body["retired"]) == (
        "reviewer",
        "worn out",
        first.body["patients"],
    )
    assert f"{len(entry.body['retired'])} test patients are retired after 1 look(s)" in story.told
    home = clients.workspace(story.settings)
    assert read_retirements(home.root / "data/retirements.csv") == frozenset(entry.body["retired"])
    assert not home.dirty("data/retirements.csv")


def test_a_revision_that_does_not_know_the_refresh_is_not_built(story):
    assert "whom a refresh has retired and names 0" in story.blocked


def test_after_it_the_new_patients_judge_alone_and_fill_the_report(story):
    """By a budget of their own; report and record are of the same images."""
    (entry,) = clients.ledger(story.settings).entries("refresh")
    report = Evaluation.read(story.settings.state / f"reports/{story.last.name}-v{story.last.version}")

    assert (story.last.look, story.last.look_budget) == (1, 1)
    assert story.last.retired == story.first.images
    assert (report.images, report.patients, report.test_sha256) == (
        story.last.images,
        story.last.patients,
        story.last.test_sha256,
    )
    assert set(clients.ledger(story.settings).entries("look")[-1].body["patients"]) < set(entry.body["sealed"])


def test_a_withdrawn_patient_judges_neither_model(story):
    """One had taught the champion, one had been sealed; the record counts both, and the page does."""
    (entry,) = clients.ledger(story.settings).entries("refresh")

    assert story.last.withdrawn == 2
    assert story.last.patients == len(entry.body["sealed"]) - 1
    assert story.last.champion.auroc.n == story.last.challenger.auroc.n == story.last.images
    assert "2 patients withdrawn before" in story.last.markdown()


def test_a_refresh_that_was_killed_is_completed_by_the_doctor(story):
    """Killed between the ledger's entry and the commit: the log is as it was, and no build is made."""
    home = clients.workspace(story.settings)
    path = home.root / "data/retirements.csv"
    path.write_text("patient_sha256\n")
    git(home.root, "commit", "-qam", "as if killed")
    [half] = [half for half in halves(story.settings) if "retirements" in half.what]
    half.mend()

    assert read_retirements(path) == frozenset(clients.ledger(story.settings).entries("refresh")[0].body["retired"])
    assert [half for half in halves(story.settings) if "retirements" in half.what] == []
    head = home.head()
    enter(story.settings)
    assert home.head() == head
