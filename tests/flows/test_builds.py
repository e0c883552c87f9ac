"""A build on a machine that has nothing yet fetches what its steps look into, and no more."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.dataset.intake import intake
from components.params import load
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, draw
from components.workspace import Workspace
from flows.builds import keep_report, make

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = dataclasses.replace(DETECTOR_A, rows=160, columns=128, pitch_mm=2.0)
DATA = [Path("data/studies"), Path("data/labels"), Path("data/catalog")]


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=root, check=True)


@pytest.fixture
def home(tmp_path) -> Workspace:
    """A clone of this repository's code with a small archive's parameters."""
    root = tmp_path / "home"
    ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
    for name in ("components", ".dvc", "flows"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
    for name in ("data", "models", "reports"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("[!.]*"))
    for name in (
        "dvc.yaml",
        ".gitignore",
        "data/merges.csv",
        "data/withdrawals.csv",
        "data/retirements.csv",
        "data/limits.yaml",
    ):
        shutil.copy(REPOSITORY / name, root / name)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["prepare"]["size"] = 32
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "code")
    return Workspace(root, root / ".osteoflow", str(tmp_path / "remote"), "engineer").open()


def take_in(home: Workspace, patient: int) -> str:
    """A batch of one phantom, as the flow versions it; the name of its shard."""
    source = home.root.parent / f"batch-{patient}"
    source.mkdir()
    (source / "one.dcm").write_bytes(draw(7, patient=patient, detector=SMALL, fracture=False).dicom)
    studies, labels, catalog = (home.root / folder for folder in DATA)
    batch = intake(
        source=source, studies=studies, labels=labels, catalog=catalog, quarantine=home.state / "quarantine",
        pseudonyms=Pseudonyms(bytes(range(32))), params=load(home.root / "params.yaml").intake,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    home.commit_data(DATA, batch.message())
    return f"{batch.batch}-0000.parquet"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


@pytest.mark.slow
def test_another_machine_fetches_new_shards_alone(home, tmp_path):
    """Two batches were measured and shrunk here; elsewhere, with an empty cache, a third one is all that is fetched."""
    take_in(home, 1), take_in(home, 2)
    with home.building("HEAD") as build:
        make(build, "inspect", "prepare")
        build.lock()
        home.adopt(build)
    third = take_in(home, 3)
    git(tmp_path, "clone", "-q", str(home.root), "elsewhere")
    elsewhere = Workspace(tmp_path / "elsewhere", tmp_path / "state", home.remote, "engineer").open()

    with elsewhere.building("HEAD") as build:
        make(build, "inspect", "prepare")

        assert names(build.root / "data/studies") == [third]
        assert len(names(build.root / "data/catalog")) == 3
        assert len(names(build.root / "data/prepared")) == 3
    assert len(list((tmp_path / "state" / "cache").rglob("*"))) < len(list((tmp_path / "remote").rglob("*")))


def test_an_edited_list_of_errors_is_kept(tmp_path):
    """The same version described again brings the new report, and leaves errors.csv to the person who edited it."""
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "errors.csv").write_text("proposed")
    (evaluation / "report.html").write_text("first")
    kept = keep_report(evaluation, tmp_path / "reports" / "m-v1")
    (kept / "errors.csv").write_text("edited")
    (evaluation / "report.html").write_text("second")
    keep_report(evaluation, kept)

    assert (kept / "errors.csv").read_text() == "edited"
    assert (kept / "report.html").read_text() == "second"
