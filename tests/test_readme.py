"""The README is a promise: every command in it is run here, in the demo's workspace, with the result it says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from components.dataset import store

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def commands() -> list[str]:
    """Every command in a shell block or in running text, without its comment."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).splitlines()
    inline = re.findall(r"`((?:osteoflow|make) [^`]+)`", README)
    return sorted({" ".join(line.split("#")[0].split()) for line in [*blocks, *inline] if line.strip()})


# What a reader's command becomes in the demo's workspace, the exit code, and words of its answer.
RUNS = {
    "osteoflow audit": ("audit", 0, "the chain of hashes and every signature verify"),
    "osteoflow audit export VERSION --to FOLDER": ("audit export 2 --to {evidence}/2", 0, "osteoflow audit verify"),
    "osteoflow audit verify": ("audit verify", 0, "all hold."),
    "osteoflow audit verify --offline FOLDER": ("audit verify --offline {evidence}/1", 0, "all hold."),
    "osteoflow data diff A B": ("data diff HEAD~1 HEAD", 0, "images"),
    "osteoflow data log": ("data log", 0, "no_fracture"),
    "osteoflow data merge-patients": ("data merge-patients {merges}", 0, "1 merge(s) recorded"),
    "osteoflow data quarantine": ("data quarantine", 0, "Nothing was ever refused."),
    "osteoflow deidentify FILES --out FOLDER": ("deidentify {file} --out {out}", 0, ".dcm"),
    "osteoflow doctor": ("doctor", 0, "off in every dependency"),
    "osteoflow explain IMAGE": ("explain {file} --out {out}", 0, "written: "),
    "osteoflow feedback": ("feedback", 0, "Settle 0 corrected cases"),
    "osteoflow intake PATH": ("intake {site_a}", 0, "Nothing new: the data version stands."),
    "osteoflow models": ("models", 0, "champion"),
    "osteoflow monitor": ("monitor", 0, "cases of"),
    "osteoflow predict FILE --out FOLDER": ("predict {file} --out {out}", 0, "probability"),
    "osteoflow promote": ("promote", 0, "Version 2 is champion."),
    "osteoflow reproduce VERSION": ("reproduce 99", 1, "no record of a version 99; on record: 1, 2"),
    "osteoflow retrain": ("retrain", 0, "Version 2"),
    "osteoflow retrain --rev REV": ("retrain --rev HEAD", 0, "Version 2"),
    "osteoflow trace image ID": ("trace image {image}", 0, "learned by version(s)"),
    "osteoflow trace patient ID": ("trace patient {patient}", 0, "learned by"),
    "osteoflow trace prediction ID": ("trace prediction {prediction}", 0, "learned from"),
    'osteoflow testset refresh --as reviewer --reason "Why, in your words"': (
        "testset refresh --as reviewer --reason drill", 1, "of test patients that nobody has looked at",
    ),
    'osteoflow approve VERSION --as reviewer --rationale "Why, in your words"': (
        "approve 2 --as reviewer --rationale again", 1, "it is champion already",
    ),
    'osteoflow rollback --as reviewer --reason "Why, in your words"': (
        "rollback --as reviewer --reason drill", 0, "Version 1 is champion again",
    ),
    'osteoflow stop --as reviewer --reason "Why, in your words"': (
        "stop --as reviewer --reason drill", 0, "AI output is off everywhere",
    ),
    'osteoflow resume --as reviewer --reason "Why, in your words"': (
        "resume --as reviewer --reason drill", 0, "AI output is back",
    ),
}  # fmt: skip
# Run by other tests: the demo fixture, the stack's test, and whoever reads this.
ELSEWHERE = {
    "make demo",
    "make test",
    "make up",
    "osteoflow up",
    "osteoflow users add NAME --role reviewer",
    "osteoflow users list",
    "osteoflow users password NAME",
    "osteoflow users remove NAME",
    "osteoflow users role NAME --role monitor",
    "osteoflow intake s3://bucket/prefix",
    'osteoflow intake "dicomweb+https://host/dicom-web?StudyDate=20260101-20260131"',
}


def test_every_command_of_the_readme_is_run():
    assert set(commands()) == set(RUNS) | ELSEWHERE


@pytest.fixture(scope="module")
def words(demo, tmp_path_factory) -> dict[str, str]:
    """What stands for PATH, FILE and ID in the demo's workspace."""
    log = osteoflow(demo, "audit", "--json")
    assert json.loads(log.stdout)["verified"] > 0
    pictures = sorted((demo.state / "serving" / "images").glob("*.overlay.png"))
    prediction = pictures[0].name.split(".")[0]
    traced = json.loads(osteoflow(demo, "trace", "prediction", prediction, "--json").stdout)
    merges = tmp_path_factory.mktemp("merges") / "merges.csv"
    merges.write_text("patient_id,same_as\nnobody,somebody\n")
    evidence = tmp_path_factory.mktemp("evidence")
    assert osteoflow(demo, "audit", "export", "1", "--to", str(evidence / "1")).returncode == 0
    return {
        "evidence": str(evidence),
        "merges": str(merges),
        "site_a": str(demo.state / "phantoms" / "site-a"),
        "file": str(sorted((demo.state / "phantoms" / "site-b").glob("*.dcm"))[0]),
        "out": str(tmp_path_factory.mktemp("results")),
        "prediction": prediction,
        "image": traced["prediction"]["image_id"],
        "patient": str(store.read_catalog(demo.workspace / "data/catalog")["patient_id"].iloc[0]),
    }


def osteoflow(demo, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = demo.environment | {"OSTEOFLOW_KEY_DIR": str(demo.workspace.parent / "demo-keys")}
    return subprocess.run(
        ["osteoflow", *arguments], cwd=demo.workspace, env=environment, capture_output=True, text=True, check=False
    )


# What changes the workspace for those after it comes last, in this order.
LAST = ("merge-patients", "rollback", "stop", "resume")


def turn(command: str) -> tuple[int, str]:
    """When a command is run."""
    return next((n for n, verb in enumerate(LAST, start=1) if f" {verb}" in command), 0), command


@pytest.mark.parametrize("command", sorted(RUNS, key=turn))
def test_a_command_does_what_the_readme_says(demo, words, command):
    line, code, answer = RUNS[command]
    done = osteoflow(demo, *line.format(**words).split())

    assert (done.returncode, answer in done.stdout + done.stderr) == (code, True), (done.stdout + done.stderr)[-2000:]
    assert "Traceback" not in done.stderr


def test_every_link_of_the_readme_leads_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]

    assert [target for target in targets if not (REPOSITORY / target).exists()] == []
