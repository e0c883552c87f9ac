"""The stages as DVC runs them: on phantoms, from shards to an evaluated bundle, and not twice; and the same again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.dataset.intake import intake
from components.errors import ConfigError, DataError
from components.params import load
from components.promotion.evidence import pointers
from components.promotion.ledger import Ledger
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, write_archive
from components.settings import Settings
from components.workspace import Workspace
from flows import clients
from flows.demo.parameters import CHANGES
from flows.reproduce import reproduce
from tests.promotion.conftest import empty_store as empty_store

REPOSITORY = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = {
    "split": {"shares": {"train": 55, "tune": 15, "calibrate": 15, "test": 15}},
    "validate": {"dataset": {"min_positives": 5, "min_negatives": 5, "max_prevalence_effect": 3.2}},
    "prepare": {"size": 80},
    "train": {name.removeprefix("train."): value for name, value in CHANGES.items() if name.startswith("train.")}
    | {"epochs": 6, "region_weight": 0.1, "count_weight": 0.1},
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
    (root / "data/batches/.gitkeep").touch()
    for name in ("data/merges.csv", "data/withdrawals.csv", "data/retirements.csv", "data/limits.yaml"):
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
    region, number = evaluation["heads"]["regions"], evaluation["heads"]["counts"]
    assert [one["name"] for one in region["each"]] == bundle["regions"]["names"] == ["arm", "leg"]
    assert region["accuracy"]["n"] + region["untold"] == number["error"]["n"] == evaluation["images"]


def test_a_second_run_does_nothing(built):
    """Nothing changed, so no stage runs: outputs are functions of their inputs alone."""
    before = (built / "dvc.lock").read_bytes()
    output = dvc(built, "repro")

    assert "Running stage" not in output
    assert (built / "dvc.lock").read_bytes() == before


class Released:
    """The built pipeline as a workspace with a remote, where commits can become versions on record."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.remote = root, root.parent / "remote"
        self.settings = Settings(
            workspace=root, state_dir=root.parent / "state", key_dir=root.parent / "keys", dvc_remote=str(self.remote)
        )
        shutil.copytree(root / ".dvc" / "cache", self.settings.state / "cache")
        self.ledger = Ledger(self.settings.ledger_path, key_dir=self.settings.key_dir)
        self.version = 0
        Workspace(root, self.settings.state, str(self.remote), "engineer").open()
        dvc(root, "push", "--quiet")
        shutil.copy(store, self.settings.state / "mlflow.db")
        with clients.registry(self.settings).client() as client:
            client.create_registered_model("osteoflow-fracture")
            client.create_model_version("osteoflow-fracture", source="file:///x")

    def release(self, **changes: str) -> int:
        """Commit what stands, and put it on record as the next version."""
        for command in (
            ["add", "-A"],
            ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "build"],
        ):
            subprocess.run(["git", *command], cwd=self.root, check=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=self.root, check=True, capture_output=True, text=True)
        data = pointers({name: (self.root / name).read_bytes() for name in ("data/studies.dvc", "data/labels.dvc")})
        self.version += 1
        body = {"name": "osteoflow-fracture", "version": self.version, "git_commit": head.stdout.strip()}
        body |= {"lock_sha256": self.sha256("uv.lock"), "data_sha256": hashlib.sha256(data).hexdigest()}
        body |= {"bundle_hash": self.sha256("models/bundle/manifest.json")} | changes
        self.ledger.append("decision", body)
        return self.version

    def sha256(self, path: str) -> str:
        return hashlib.sha256((self.root / path).read_bytes()).hexdigest()

    def reproduce(self, version: int):
        return reproduce(self.settings, version, tolerance=0.02)

    def stored(self, folder: str) -> Path:
        """A file of `folder` as the remote keeps it."""
        md5 = next(out["md5"] for out in self.locked() if out["path"] == folder)
        listing = json.loads((self.remote / "files" / "md5" / md5[:2] / md5[2:]).read_text())
        return self.remote / "files" / "md5" / listing[0]["md5"][:2] / listing[0]["md5"][2:]

    def locked(self) -> list[dict]:
        lock = yaml.safe_load((self.root / "dvc.lock").read_text())
        return [out for stage in lock["stages"].values() for out in stage["outs"]]


@pytest.fixture(scope="module")
def released(built, empty_store) -> Released:
    """The pipeline of `built`, which is version 1."""
    for name in ("uv.lock", ".gitignore"):
        shutil.copy(REPOSITORY / name, built)
    made = Released(built, empty_store)
    made.release()
    return made


def test_a_version_is_built_again_to_the_same_weights(released, caplog):
    """From remote and commit alone, in a clone that is gone afterwards; the training runs, and nothing is left."""
    before = (sorted(released.remote.rglob("*")), (released.root / "dvc.lock").read_bytes())
    with caplog.at_level(logging.INFO, "osteoflow.workspace"):
        found = released.reproduce(1)

    assert (found.verdict, found.first) == ("identical", None), found.text()
    assert [part.what for part in found.parts][-4:] == ["weights", "calibration", "bundle", "figures"]
    assert any(line.startswith("epoch 1/") for line in caplog.messages)
    assert (sorted(released.remote.rglob("*")), (released.root / "dvc.lock").read_bytes()) == before
    assert not (released.settings.state / "reproduction").exists()
    kept = json.loads((released.settings.state / "reports/reproduction-osteoflow-fracture-v1.json").read_text())
    assert kept["parts"][-4]["found"] == kept["parts"][-4]["recorded"]
    [entry] = released.ledger.entries("reproduction")
    assert (entry.body["verdict"], entry.body["found_hash"]) == ("identical", entry.body["bundle_hash"])
    with clients.registry(released.settings).client() as client:
        tags = client.get_model_version("osteoflow-fracture", "1").tags
    assert tags["osteoflow.reproduction"] == f"identical, {entry.time[:10]}, ledger entry {entry.seq}"


def test_parameters_that_the_lock_does_not_know_differ(released):
    """A seed that was changed after the build: found before anything is trained."""
    file = released.root / "params.yaml"
    before = file.read_text()
    file.write_text(yaml.safe_dump(yaml.safe_load(before) | {"train": yaml.safe_load(before)["train"] | {"seed": 1}}))
    try:
        found = released.reproduce(released.release())
    finally:
        file.write_text(before)

    assert (found.verdict, found.first, found.figures) == ("differs", "parameters", ())
    assert "train: train.seed" in found.text() or "train: train" in found.text()


def test_an_altered_array_in_the_remote_differs(released):
    """DVC takes a remote's word for what a file holds; here every byte is read."""
    file = released.stored("data/prepared")
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        found = released.reproduce(1)
    finally:
        file.write_bytes(whole)

    assert (found.verdict, found.first, found.figures) == ("differs", "data/prepared", ())


def test_another_data_set_than_the_record_names_differs(released):
    found = released.reproduce(released.release(data_sha256="0" * 64))

    assert (found.verdict, found.first) == ("differs", "data pointers")


def test_a_version_whose_data_are_in_a_bucket_is_compared(released, bucket):
    """All that an S3 remote is asked: what it holds, each output's bytes, lists of folders, single shards."""
    store = {"dvc_remote": f"{bucket.url}/dvc", "s3_endpoint_url": bucket.store.endpoint}
    settings = released.settings.model_copy(update=store | {"s3_checksums": "when_required"})
    version = released.release(data_sha256="0" * 64)
    clients.workspace(settings)
    try:
        dvc(released.root, "push", "--quiet")
        found = reproduce(settings, version, tolerance=0.02)
    finally:
        clients.workspace(released.settings)

    assert [part.what for part in found.parts if not part.same] == ["data pointers"], found.text()
    assert {"data/prepared", "sealed test images", "bundle in the remote"} <= {part.what for part in found.parts}


def test_what_cannot_be_built_again_is_refused_with_the_reason(released):
    """No record, no commit, other packages, data that the remote lost: each is named, and nothing is trained."""
    with pytest.raises(ConfigError, match=r"no record of a version 99; on record: 1"):
        released.reproduce(99)
    with pytest.raises(ConfigError, match=r"its commit 0{12} is not in "):
        released.reproduce(released.release(git_commit="0" * 40))
    md5 = next(out["md5"] for out in released.locked() if out["path"] == "data/prepared")
    listing = released.remote / "files" / "md5" / md5[:2] / md5[2:]
    aside = listing.rename(released.remote / "aside")
    try:
        with pytest.raises(DataError, match=r"1 of the 13 outputs and data .* are not in .*: data/prepared; run"):
            released.reproduce(1)
    finally:
        aside.rename(listing)
    lock = (released.root / "uv.lock").read_text()
    other = lock.replace('name = "keras"\nversion = "', 'name = "keras"\nversion = "1.')
    (released.root / "uv.lock").write_text(other)
    try:
        with pytest.raises(ConfigError, match=r"not the one of its lock: keras \S+ \(lock: 1\.\S+\); check"):
            released.reproduce(released.release())
    finally:
        (released.root / "uv.lock").write_text(lock)
