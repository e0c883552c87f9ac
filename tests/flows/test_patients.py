"""Where a patient's images are, and that a withdrawal keeps them out of later builds, killed wherever it may be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from components.dataset.merges import record_merges
from components.dataset.store import write_catalog, write_images, write_labels
from components.dataset.withdrawals import read_withdrawals
from components.errors import DataError, PromotionRefused
from components.promotion.registry import PREFIX
from components.promotion.withdraw import withdraw as record
from components.serving.store import Comparison, LoggedPrediction
from components.settings import Settings
from flows import clients, versions
from flows.builds import heed_withdrawals
from flows.halves import halves
from flows.patients import exclude, pseudonym, trace, withdraw
from tests.flows.test_versions import image, said
from tests.promotion.conftest import NAME
from tests.promotion.conftest import empty_store as empty_store

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENTS = {name: f"{n:020x}" for n, name in enumerate(("zero", "one", "two"))}
ONE, TWO = PATIENTS["one"], PATIENTS["two"]
KEPT = (".dvc/config", "params.yaml", "dvc.yaml", "data/merges.csv", "data/withdrawals.csv", "data/retirements.csv")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def site(tmp_path, empty_store) -> tuple[Settings, list[str]]:
    return made(tmp_path, empty_store)


def made(folder: Path, empty_store: Path) -> tuple[Settings, list[str]]:
    """Three data versions (image `one` comes with the second), and versions 1 and 2; the second learned from it."""
    settings = Settings(workspace=folder / "clone", key_dir=folder / "keys", user="reviewer")
    root, commits = settings.workspace, []
    (root / ".dvc").mkdir(parents=True)
    (root / "data").mkdir()
    for name in KEPT:
        shutil.copy(REPOSITORY / name, root / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for batch, name in (("000001-aa", "zero"), ("000002-bb", "one"), ("000003-cc", "two")):
        shown = image(name)
        shown = replace(shown, meta=shown.meta.model_copy(update={"patient_id": PATIENTS[name]}))
        write_images(root / "data/studies", [shown], batch=batch, shard_bytes=10**6)
        write_labels(root / "data/labels", [said(name, "fracture")], batch=batch)
        write_catalog(root / "data/studies", root / "data/catalog")
        files = sorted((root / "data/catalog").iterdir())
        listing = json.dumps([{"md5": md5(f.read_bytes()), "relpath": f.name} for f in files]).encode()
        place = settings.state / "cache/files/md5" / md5(listing)[:2] / f"{md5(listing)[2:]}.dir"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(listing)
        (root / "data/catalog.dvc").write_text(f"outs:\n- md5: {md5(listing)}.dir\n  nfiles: {len(files)}\n")
        for command in (["add", "data/catalog.dvc", *KEPT], ["commit", "-qm", batch]):
            subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=root, check=True)
        commits.append(clients.workspace(settings).head())
    shutil.copy(empty_store, settings.state / "mlflow.db")
    with clients.registry(settings).client() as client:
        client.create_registered_model(NAME)
        for bundle_hash, learned in (("1" * 64, PATIENTS["zero"]), ("2" * 64, ONE)):
            place = settings.state / "bundles" / bundle_hash
            place.mkdir(parents=True)
            table = pd.DataFrame({"image_id": ["one"], "patient_id": [learned]})
            table.to_parquet(place / "training_images.parquet")
            client.create_model_version(NAME, source="file:///x", tags={f"{PREFIX}bundle_hash": bundle_hash})
    return settings, commits


def history(settings: Settings) -> str:
    """The last commit: its words, and what it changed."""
    command = ["git", "log", "-1", "--stat", "--format=%B"]
    return subprocess.run(command, cwd=settings.workspace, capture_output=True, text=True, check=True).stdout


def killed(settings: Settings, monkeypatch) -> None:
    """A withdrawal that ends between the ledger's entry and the log in git."""
    with monkeypatch.context() as patched:
        patched.setattr("flows.patients._exclude", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            withdraw(settings, ONE, "asked by letter")
    assert len(clients.ledger(settings).entries("withdrawal")) == 1


def excluded(settings: Settings) -> list[str]:
    """Whom the next build leaves out: the log, as it is committed."""
    assert not clients.workspace(settings).dirty("data/withdrawals.csv")
    return read_withdrawals(settings.workspace / "data/withdrawals.csv")


def test_a_patient_leads_to_data_versions_and_models_and_can_be_withdrawn(site):
    """Every later data version holds the image too; the withdrawal is in the trace from then on."""
    settings, commits = site
    found = trace(settings, ONE)

    assert (found.images, found.labels, found.predictions, found.withdrawal) == (1, 1, 0, None)
    assert found.data_versions == [commits[2], commits[1]]
    assert found.learned_by == [2]
    assert withdraw(settings, ONE, "asked by letter").withdrawal == 0
    assert "later builds leave these images out, and those to come. It removes nothing" in trace(settings, ONE).text()
    assert clients.ledger(settings).entries()[0].body["models"] == [2]


def test_the_trace_counts_silent_comparisons_and_says_what_still_counts_the_patient(site):
    """What a model said beside the one that answered names the patient, too."""
    settings, _ = site
    log, facts = clients.prediction_log(settings), {"image_id": "one", "patient_id": ONE, "time": datetime.now(UTC)}
    log.add_prediction(
        LoggedPrediction(
            id="a" * 20, study_id="s", site="north", device="x", view="ap", body_region="wrist", bundle_hash="1" * 64,
            version="1", probability=0.5, logit=0.0, call="review", audit=False, inclusion_probability=0.1, quality={},
            embedding=(0.0,), **facts,
        )
    )  # fmt: skip
    for stage in ("5" * 64, "6" * 64):
        log.add_comparison(
            Comparison(
                stage=stage, champion_hash="1" * 64, candidate_hash="2" * 64, answered=False, champion_probability=0.5,
                champion_call="review", probability=0.9, call="fracture", milliseconds=5.0, error=None, **facts,
            )
        )  # fmt: skip
    found = trace(settings, ONE)
    assert (found.predictions, found.comparisons) == (1, 2)
    assert "1 predictions, 2 silent comparisons" in found.text()
    assert trace(settings, TWO).comparisons == 0

    assert "still counted predictions: in drift while they are in its window" in withdraw(settings, ONE, "asked").text()


def test_a_withdrawal_is_committed_under_the_pseudonym(site):
    settings, _ = site
    withdraw(settings, ONE, "asked by letter")

    assert excluded(settings) == [ONE]
    assert history(settings).startswith("Withdraw 1 patient(s)\n\n1 images, which no later build uses\n")
    assert "data/withdrawals.csv | 1 +" in history(settings)


def test_a_second_withdrawal_is_refused_and_changes_nothing(site):
    settings, _ = site
    withdraw(settings, ONE, "asked by letter")
    before = clients.workspace(settings).head()

    with pytest.raises(PromotionRefused, match=r"withdrawn already \(ledger entry 0\)"):
        withdraw(settings, ONE, "asked again")
    assert clients.workspace(settings).head() == before


def test_a_person_is_traced_and_withdrawn_under_all_their_pseudonyms(site):
    """Counts hold both; a withdrawal of the other one later is a second of the same person."""
    settings, commits = site
    record_merges(settings.workspace / "data/merges.csv", [(ONE, TWO)], after=3)
    found = withdraw(settings, TWO, "asked by letter")

    assert (found.images, found.others, found.learned_by) == (2, [ONE], [2])
    assert found.data_versions == [commits[2], commits[1]]
    with pytest.raises(PromotionRefused, match="withdrawn already"):
        withdraw(settings, ONE, "asked again")


@pytest.mark.parametrize("way", ["again", "doctor"])
def test_a_withdrawal_that_was_killed_is_completed(site, monkeypatch, way):
    """By the same command, or by the doctor, who finds the pseudonym among the archive's patients."""
    settings, _ = site
    killed(settings, monkeypatch)
    [half] = [half for half in halves(settings) if "withdrawal" in half.what]
    assert "1 withdrawal(s) on record are not committed there, and no build is made" in half.what
    if way == "again":
        assert withdraw(settings, ONE, "").withdrawal == 0
    else:
        assert exclude(settings) == 0

    assert excluded(settings) == [ONE]
    assert len(clients.ledger(settings).entries("withdrawal")) == 1
    assert [half for half in halves(settings) if "withdrawal" in half.what] == []


def test_a_row_that_was_written_and_not_committed_is_committed(site, monkeypatch):
    """Killed one step later."""
    settings, _ = site
    killed(settings, monkeypatch)
    (settings.workspace / "data/withdrawals.csv").write_text(f"patient_id\n{ONE}\n")
    assert not trace(settings, ONE).excluded
    assert exclude(settings) == 0

    assert excluded(settings) == [ONE]


def test_a_revision_that_does_not_know_a_withdrawal_is_not_built(site):
    """An older one, or another branch: it would use the patient's images."""
    settings, commits = site
    home, ledger = clients.workspace(settings), clients.ledger(settings)
    withdraw(settings, ONE, "asked by letter")
    with home.building("HEAD") as build:
        heed_withdrawals(build, ledger)

    with home.building(commits[2]) as build, pytest.raises(DataError, match="does not know of 1 withdrawn patient"):
        heed_withdrawals(build, ledger)


def test_the_log_and_the_difference_count_withdrawals(site):
    settings, _ = site
    home, params = clients.workspace(settings), clients.params(settings)
    withdraw(settings, ONE, "asked by letter")
    [newest] = versions.history(home, params, limit=1).versions

    assert (newest.what, newest.shards) == ("Withdraw 1 patient(s)", 0)
    assert len(versions.history(home, params, limit=9).versions) == 1  # not the commit that brought the empty log


def test_a_withdrawal_from_elsewhere_of_a_patient_nobody_here_knows_is_completed(site):
    """As the doctor advises: the record holds a hash alone, so a person has to say who it is."""
    settings, _ = site
    stranger = "f" * 20
    facts = {"images": 1, "data_versions": [], "models": [], "reason": "asked by letter", "user": settings.user}
    key = clients.signing_key(settings, settings.user)
    record(ledger=clients.ledger(settings), patient=stranger, key=key, **facts)
    assert exclude(settings) == 1

    assert withdraw(settings, stranger, "").excluded
    assert excluded(settings) == [stranger]


def test_a_patient_nobody_knows_is_said_without_their_id(site):
    settings, _ = site
    with pytest.raises(DataError, match="neither the archive nor the prediction log knows") as caught:
        trace(settings, pseudonym(settings, "Doe^John", ""))

    assert "Doe" not in str(caught.value)


def test_the_command_says_what_becomes_of_the_patient(site):
    """Without MLflow and pydicom, whose imports take longer than the answer."""
    settings, _ = site
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli", "trace", "patient", ONE]
    command += ["--withdraw", "--reason", "asked by letter"]
    own = {"OSTEOFLOW_WORKSPACE": str(settings.workspace), "OSTEOFLOW_KEY_DIR": str(settings.key_dir)}
    environment = os.environ | own | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, "--as", "reviewer"], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "withdrawn     ledger entry 0: later builds leave these images out, and those to come." in done.stdout
    assert excluded(settings) == [ONE]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sqlalchemy" in loaded
    assert not {"mlflow", "pydicom"} & loaded


def test_a_log_that_retires_whom_no_refresh_did_is_put_right(site):
    """Also where the ledger retires nobody, as when the key of a refresh is gone."""
    settings, _ = site
    path = settings.workspace / "data/retirements.csv"
    path.write_text(f"patient_sha256\n{'0' * 16}\n")
    clients.workspace(settings).commit_file(Path("data/retirements.csv"), "by hand")
    [half] = [half for half in halves(settings) if "retirements" in half.what]
    half.mend()

    assert path.read_text() == "patient_sha256\n"
    assert [half for half in halves(settings) if "retirements" in half.what] == []
