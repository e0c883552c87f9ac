"""The roll-out as a hospital lives it: real bundles, service, registry and ledger, and the flow that looks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import yaml

from components.promotion.approve import approve
from components.radiograph.phantom import DETECTOR_A, draw
from components.serving.__main__ import configure
from components.serving.bundle import Bundle
from components.serving.manifest import MANIFEST, Manifest
from components.serving.service import Service
from components.settings import load_settings
from flows import clients
from flows.promote import promote
from tests.promotion.builds import make
from tests.promotion.conftest import NAME

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


class Hospital:
    """A workspace whose stages are short, a service over it, and people who approve."""

    def __init__(self, root: Path, bundle: Path) -> None:
        self.settings = load_settings(root)
        self.bundle, self.seeds = bundle, count()
        self.ledger, self.registry = clients.ledger(self.settings), clients.registry(self.settings)
        self.service = Service(configure(self.settings))

    def approve(self, version: int, threshold: float | None = None) -> None:
        """Register, judge and approve another release of the network, at other thresholds where one is given."""
        made = make(self.settings.state, str(version))
        folder = shutil.copytree(self.bundle, self.settings.state / "releases" / str(version))
        manifest = Manifest.decode((folder / MANIFEST).read_bytes(), where="release")
        changes = {"heat_map": manifest.heat_map.model_copy(update={"reasons": (f"release {version}",)})}
        if threshold is not None:
            point = manifest.thresholds.high_sensitivity.model_copy(update={"threshold": threshold})
            points = {"high_sensitivity": point, "high_specificity": point}
            changes["thresholds"] = manifest.thresholds.model_copy(update=points)
        (folder / MANIFEST).write_bytes(manifest.model_copy(update=changes).encode())
        dataclasses.replace(made, bundle=folder).register(self.registry)
        champion = self.ledger.champion(NAME)
        beside = champion.body["bundle_hash"] if champion else None
        body = {"name": NAME, "version": version, "bundle_hash": Bundle.open(folder).hash, "verdict": "passed"}
        self.ledger.append("decision", body | {"champion_hash": beside})
        approve(
            ledger=self.ledger,
            registry=self.registry,
            name=NAME,
            version=version,
            approver="reviewer",
            rationale="fewer misses",
            key=clients.signing_key(self.settings, "reviewer"),
        )

    def see(self, many: int) -> list[str]:
        """The versions that answer so many new patients; returns once what is compared of them is logged too."""
        staged, answers = self.ledger.staged(NAME), []
        before = len(self.service.log.comparisons(staged.hash)) if staged else 0
        for seed in (next(self.seeds) for _ in range(many)):
            data = draw(seed, patient=seed, detector=DETECTOR_A, fracture=False).dicom
            answers.append(self.service.predict(data, self.service.champion.current()).version)
        wanted = answers.count(str(staged.body["version"])) if staged and staged.body["stage"] == "canary" else many
        for _ in range(1200 if staged else 0):  # a minute, which only a busy machine takes
            if len(self.service.log.comparisons(staged.hash)) >= before + wanted:
                break
            time.sleep(0.05)
        return answers


@pytest.fixture
def hospital(tmp_path, tiny_bundle, monkeypatch):
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["roll_out"] |= {"shadow_cases": 6, "canary_cases": 3, "canary_share": 0.5}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("OSTEOFLOW_WORKSPACE", str(tmp_path))
    monkeypatch.setattr("flows.promote.effect", lambda function: function)  # Prefect has its turn in the last lines
    return Hospital(tmp_path, tiny_bundle)


def test_approval_shadow_canary_full_and_the_next_one_back(hospital, tmp_path):
    """Each step is one entry and one sentence, and what answers is what the ledger says."""
    look = promote.fn
    hospital.approve(1)
    assert look().text() == "Version 1 answers every case now (ledger entry 2)."

    hospital.approve(2)
    began = "Version 2 goes into shadow (ledger entry 5). Version 2 is in shadow: 0 cases so far, 6 more to come."
    assert look().text() == began
    assert hospital.see(4) == ["1"] * 4
    assert look().text() == "Version 2 is in shadow: 4 cases so far, 2 more to come."
    hospital.see(2)
    assert look().text().startswith("Version 2 goes into canary (ledger entry 6).")
    answers = hospital.see(14)
    assert set(answers) == {"1", "2"}
    assert look().rolled_out == [2]
    assert hospital.see(2) == ["2", "2"]

    hospital.approve(3, threshold=0.0)  # whatever it is shown is a fracture
    look()
    assert hospital.see(30) == ["2"] * 30
    back = look()
    assert back.steps[0].startswith("Version 3 is taken back from shadow (ledger entry 11): ")
    assert "cases are a fracture to one model alone; up to 10.0% are allowed" in back.steps[0]
    assert (back.champion, back.staged, hospital.see(1)) == (2, None, ["2"])
    assert hospital.registry.at(NAME, "champion").version == 2
    hospital.ledger.verify()

    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "flows.cli", "promote", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "champion": 2,
        "rolled_out": [],
        "signing": [],
        "staged": None,
        "steps": [],
        "unheard": [],
    }
