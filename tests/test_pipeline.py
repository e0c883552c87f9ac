"""The stages as DVC runs them: on phantoms, from shards to an evaluated bundle, and not twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.dataset.intake import intake
from components.params import load
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, write_archive
from flows.demo.parameters import CHANGES

REPOSITORY = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = {
    "split": {"shares": {"train": 55, "tune": 15, "calibrate": 15, "test": 15}},
    "validate": {"dataset": {"min_positives": 5, "min_negatives": 5, "max_prevalence_effect": 3.2}},
    "prepare": {"size": 80},
    "train": {name.removeprefix("train."): value for name, value in CHANGES.items() if name.startswith("train.")}
    | {"epochs": 6},
    "evaluate": {"resamples": 200},
}


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in `folder` as a stage would see it; return what it printed."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A copy of this repository's code with 140 phantom patients, built once."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("components", ".dvc"):
        ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
    for name in ("data", "models", "reports"):  # where outputs go; what is kept out of git stays behind
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("[!.]*"))
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    (root / "data/batches").mkdir()
    for name in ("data/merges.csv", "data/withdrawals.csv", "data/limits.yaml"):
        shutil.copy(REPOSITORY / name, root / "data")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section, values in SMALL.items():
        for key, value in values.items():
            inner = params[section][key]
            params[section][key] = inner | value if isinstance(inner, dict) else value
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    source = write_archive(root.parent / "phantoms", patients=140, detector=DETECTOR_A, seed=5)
    intake(
        source=source.folder,
        studies=root / "data/studies",
        labels=root / "data/labels",
        catalog=root / "data/catalog",
        quarantine=root / "quarantine",
        pseudonyms=Pseudonyms(b"p" * 32),
        params=load(root / "params.yaml").intake,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    dvc(root, "add", "--quiet", "data/studies", "data/labels", "data/catalog")
    dvc(root, "repro")
    return root


def test_the_pipeline_ends_with_a_judged_bundle(built):
    bundle = json.loads((built / "models/bundle/manifest.json").read_text())
    evaluation = json.loads((built / "reports/evaluation/evaluation.json").read_text())

    assert bundle["thresholds"]["high_sensitivity"]["source_role"] == "tune"
    assert evaluation["format"] == 1
    assert (built / "reports/evaluation/report.html").stat().st_size > 10_000


def test_a_second_run_does_nothing(built):
    """Nothing changed, so no stage runs: outputs are functions of their inputs alone."""
    before = (built / "dvc.lock").read_bytes()
    output = dvc(built, "repro")

    assert "Running stage" not in output
    assert (built / "dvc.lock").read_bytes() == before


def test_the_same_inputs_make_the_same_model(built, tmp_path):
    """Forced to run again, training and export give the bundle they gave before."""
    before = json.loads((built / "models/bundle/manifest.json").read_text())
    dvc(built, "repro", "--force", "--single-item", "--no-run-cache", "train")
    dvc(built, "repro", "--force", "--single-item", "--no-run-cache", "calibrate")
    dvc(built, "repro", "--force", "--single-item", "--no-run-cache", "export")
    after = json.loads((built / "models/bundle/manifest.json").read_text())

    assert after["model"]["weights_sha256"] == before["model"]["weights_sha256"]
