"""The command line as a script sees it: exit codes, one line of reason, JSON, and no library loaded for help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.promotion.ledger import Ledger, SigningKey
from components.promotion.roles import give
from flows.predict import FileResult

REPOSITORY = Path(__file__).resolve().parents[2]
VERBS = (
    "demo",
    "up",
    "intake",
    "retrain",
    "models",
    "approve",
    "promote",
    "rollback",
    "stop",
    "resume",
    "predict",
    "explain",
    "monitor",
    "feedback",
    "audit",
    "testset",
    "trace",
    "users",
    "doctor",
)
HEAVY = "{'prefect', 'mlflow', 'tensorflow', 'pandas', 'pydantic'}"


def osteoflow(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OSTEOFLOW_WORKSPACE": str(folder),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository as just cloned, without its code: parameters, stages, DVC's folder, and one commit."""
    for name in ("params.yaml", "dvc.yaml", "uv.lock"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(
        REPOSITORY / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache")
    )
    (tmp_path / ".gitignore").write_text("*\n")
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_help_names_every_verb(tmp_path):
    done = osteoflow(tmp_path, "--help")

    assert done.returncode == 0
    assert [verb for verb in VERBS if f" {verb} " not in done.stdout] == []


def test_help_loads_no_heavy_library():
    """What makes `--help` answer at once."""
    script = f"import sys, flows.cli; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_wrong_usage_is_exit_code_two(tmp_path):
    assert osteoflow(tmp_path, "approve").returncode == 2


def test_an_unknown_parameter_is_one_line(clone):
    """A misspelt key stops everything, is named, and leaves no traceback."""
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("  epochs: ", "  epoch: "))
    done = osteoflow(clone, "models")

    assert done.returncode == 1
    assert "train.epoch: Extra inputs are not permitted" in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_a_clone_it_says_so(tmp_path):
    done = osteoflow(tmp_path, "models")

    assert done.returncode == 1
    assert "params.yaml: not found; run this inside an Osteoflow repository" in done.stderr


def test_no_model_is_said_kindly(clone):
    done = osteoflow(clone, "models")

    assert (done.returncode, done.stdout.strip()) == (
        0, "osteoflow-fracture: no version registered yet; run `osteoflow retrain`.",
    )  # fmt: skip


def test_predict_says_why_a_person_decides():
    """Beside the call; the file's name is nowhere."""
    said = FileResult(number=2, image_id="ab", probability=0.91, call="review", why="other_region", version="3")

    assert said.text() == (
        "file 2: review (it shows another body region than its file states), probability 0.910 "
        "(about 91 in 100 such images show a fracture), version 3, image ab"
    )


def test_predict_without_a_champion_is_refused(clone):
    (clone / "x.dcm").write_bytes(b"not a picture")
    done = osteoflow(clone, "predict", "x.dcm")

    assert done.returncode == 1
    assert "PromotionRefused: No model is approved" in done.stderr


def test_a_stop_and_a_resumption_are_signed_entries(clone):
    """In the ledger with name and reason; between them the champion is silent, which `predict` says."""
    (clone / "x.dcm").write_bytes(b"not a picture")
    stopped = osteoflow(clone, "stop", "--as", "reviewer", "--reason", "misses hips")
    refused = osteoflow(clone, "predict", "x.dcm")
    resumed = osteoflow(clone, "resume", "--as", "engineer", "--reason", "fixed")
    entries = json.loads(osteoflow(clone, "audit", "--json").stdout)["entries"]

    assert stopped.stdout.startswith("AI output is off everywhere (ledger entry 0, signed by reviewer).")
    assert (refused.returncode, "AI output was switched off: misses hips." in refused.stderr) == (1, True)
    assert resumed.stdout == "AI output is back (ledger entry 1, signed by engineer); 1 stop(s) lifted.\n"
    assert [(e["kind"], e["signer"], e["body"]["reason"]) for e in entries] == [
        ("stop", "reviewer", "misses hips"), ("resume", "engineer", "fixed"),
    ]  # fmt: skip


def test_explain_without_a_model_says_how_to_get_one(clone):
    done = osteoflow(clone, "explain", "image")

    assert done.returncode == 1
    assert done.stderr.startswith("DataError: models/trained and models/bundle: this revision has no trained model")
    assert "run `osteoflow retrain`" in done.stderr


def test_an_empty_ledger_verifies(clone):
    said = json.loads(osteoflow(clone, "audit", "--json").stdout)

    assert said == {"entries": [], "unheard": [], "verified": 0}


def test_a_readable_key_is_a_finding(clone):
    """The doctor finds a pseudonym key that others can read, says what to do, and exits with 1."""
    keys = clone / ".config" / "osteoflow"
    keys.mkdir(parents=True)
    (keys / "pseudonym.key").write_bytes(b"k" * 32)
    (keys / "pseudonym.key").chmod(0o644)
    done = osteoflow(clone, "doctor")

    assert done.returncode == 1
    assert "FIX  keys" in done.stdout
    assert "chmod 600" in done.stdout


def test_doctor_and_audit_name_strangers_and_doctor_who_is_missing(clone):
    """A role from a key that is not here; and a protocol that asks for a reader, where none is named."""
    ledger = Ledger(clone / ".osteoflow" / "ledger.jsonl")
    operator = SigningKey.open(clone / ".config" / "osteoflow", "operator")
    stranger = SigningKey.open(clone / "elsewhere", "stranger")
    give(ledger=ledger, person="reviewer", roles=("reviewer",), user=operator.name, key=operator)
    give(ledger=ledger, person="reader", roles=("reader",), user=stranger.name, key=stranger)
    params = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(params.replace("{reviewer: 1, reader: 0}", "{reviewer: 1, reader: 1}"))
    checked, listed = osteoflow(clone, "doctor"), osteoflow(clone, "audit")

    said = "ledger entry 1 (role): 'stranger' signed with a key that the key folder does not have of that name"
    assert said in checked.stdout
    assert said in listed.stdout
    assert "gate.signers asks for 1 reviewer and 1 reader, and too few are named: reader (1 more)" in checked.stdout


def test_a_torn_ledger_is_refused(clone):
    (clone / ".osteoflow").mkdir()
    (clone / ".osteoflow" / "ledger.jsonl").write_text('{"seq": 0}\n')
    done = osteoflow(clone, "audit")

    assert done.returncode == 1
    assert done.stderr.startswith("LedgerCorrupt: ")
