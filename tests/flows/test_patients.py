"""Where a patient's images are: two data versions, one model that learned from them, one that did not."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from components.dataset.store import write_catalog, write_images, write_labels
from components.errors import DataError
from components.promotion.registry import PREFIX
from components.settings import Settings
from flows import clients
from flows.patients import pseudonym, trace, withdraw
from tests.flows.test_versions import image, said
from tests.promotion.conftest import NAME
from tests.promotion.conftest import empty_store as empty_store

REPOSITORY = Path(__file__).resolve().parents[2]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def site(tmp_path, empty_store) -> tuple[Settings, list[str]]:
    """Three data versions (image `one` comes with the second), and versions 1 and 2; the second learned from it."""
    settings = Settings(workspace=tmp_path / "clone", key_dir=tmp_path / "keys", user="reviewer")
    root, commits = settings.workspace, []
    (root / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for batch, name in (("000001-aa", "zero"), ("000002-bb", "one"), ("000003-cc", "two")):
        write_images(root / "data/studies", [image(name)], batch=batch, shard_bytes=10**6)
        write_labels(root / "data/labels", [said(name, "fracture")], batch=batch)
        write_catalog(root / "data/studies", root / "data/catalog")
        files = sorted((root / "data/catalog").iterdir())
        listing = json.dumps([{"md5": md5(f.read_bytes()), "relpath": f.name} for f in files]).encode()
        place = settings.state / "cache/files/md5" / md5(listing)[:2] / f"{md5(listing)[2:]}.dir"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(listing)
        (root / "data/catalog.dvc").write_text(f"outs:\n- md5: {md5(listing)}.dir\n  nfiles: {len(files)}\n")
        for command in (["add", "data/catalog.dvc"], ["commit", "-qm", batch]):
            subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=root, check=True)
        commits.append(clients.workspace(settings).head())
    shutil.copy(empty_store, settings.state / "mlflow.db")
    with clients.registry(settings).client() as client:
        client.create_registered_model(NAME)
        for bundle_hash, learned in (("1" * 64, "patient-zero"), ("2" * 64, "patient-one")):
            folder = settings.state / "bundles" / bundle_hash
            folder.mkdir(parents=True)
            pd.DataFrame({"patient_id": [learned]}).to_parquet(folder / "training_images.parquet")
            client.create_model_version(NAME, source="file:///x", tags={f"{PREFIX}bundle_hash": bundle_hash})
    return settings, commits


def test_a_patient_leads_to_data_versions_and_models_and_can_be_withdrawn(site):
    """Every later data version holds the image too; the withdrawal is in the trace from then on."""
    settings, commits = site
    found = trace(settings, "patient-one")

    assert (found.images, found.labels, found.predictions, found.withdrawal) == (1, 1, 0, None)
    assert found.data_versions == [commits[2], commits[1]]
    assert found.learned_by == [2]
    assert withdraw(settings, "patient-one", "asked by letter").withdrawal == 0
    assert trace(settings, "patient-one").withdrawal == 0
    assert "It removes nothing" in trace(settings, "patient-one").text()
    assert clients.ledger(settings).entries()[0].body["models"] == [2]


def test_a_patient_nobody_knows_is_said_without_their_id(site):
    settings, _ = site
    with pytest.raises(DataError, match="neither the archive nor the prediction log knows") as caught:
        trace(settings, pseudonym(settings, "Doe^John", ""))

    assert "Doe" not in str(caught.value)
