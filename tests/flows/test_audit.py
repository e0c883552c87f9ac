"""The audit of a workspace: a version promoted by the real functions, and every place where somebody could alter it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from components.promotion.approve import approve, roll_out
from components.promotion.audit import Findings
from components.promotion.evidence import artifact, pointers
from components.promotion.ledger import canonical
from components.promotion.register import Build
from components.promotion.registry import PREFIX
from components.settings import Settings
from flows import clients
from flows.audit import export, verify
from tests.promotion.builds import make
from tests.promotion.conftest import NAME
from tests.promotion.conftest import record as record
from tests.protocols import AT_ONCE

REPOSITORY = Path(__file__).resolve().parents[2]
SHARD, LABELS = b"pixels", b"labels"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def kept(state: Path, name: str, content: bytes) -> None:
    """Put bytes into DVC's cache under their MD5 as DVC writes it."""
    place = state / "cache" / "files" / "md5" / name[:2] / name[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


@pytest.fixture(scope="module")
def promoted(tmp_path_factory, record) -> Settings:
    """A workspace whose version 1 was registered, judged, approved and rolled out."""
    root = tmp_path_factory.mktemp("workspace")
    settings = Settings(workspace=root, key_dir=root / "keys", user="auditor")
    for name in ("params.yaml", "dvc.yaml", "uv.lock", ".gitignore"):
        shutil.copy(REPOSITORY / name, root)
    (root / ".dvc").mkdir()
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    (root / "data").mkdir()
    for folder, file, content in (("studies", "a.parquet", SHARD), ("labels", "b.parquet", LABELS)):
        listing = json.dumps([{"md5": md5(content), "relpath": file}]).encode()
        kept(settings.state, md5(content), content)
        kept(settings.state, f"{md5(listing)}.dir", listing)
        pointer = f"outs:\n- md5: {md5(listing)}.dir\n  size: 6\n  nfiles: 1\n  hash: md5\n  path: {folder}\n"
        (root / "data" / f"{folder}.dvc").write_text(pointer)
    for command in ["init -q", "add -f params.yaml dvc.yaml uv.lock dvc.lock data", "commit -qm build"]:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command.split()], cwd=root, check=True)
    home, made = clients.workspace(settings), make(root / ".osteoflow", "one")
    names = ["data/studies.dvc", "data/labels.dvc"]
    data = hashlib.sha256(pointers({name: (root / name).read_bytes() for name in names})).hexdigest()
    facts = {"git_commit": home.head(), "lock_sha256": home.sha256("uv.lock"), "data_sha256": data}
    build = Build(key="one", folder=made.build.folder, wall_seconds=1, **facts)
    registry, ledger = clients.registry(settings), clients.ledger(settings)
    dataclasses.replace(made, build=build).register(registry)
    judged = ledger.append("decision", record(bundle_hash=made.bundle_hash, **facts))
    registry.tag(NAME, 1, f"{PREFIX}ledger_head", f"{judged.seq} {judged.hash}")
    registry.keep(NAME, 1, artifact(canonical(judged.body)), canonical(judged.body).decode())
    key = clients.signing_key(settings, "reviewer")
    approve(
        ledger=ledger, registry=registry, name=NAME, version=1, approver="reviewer", rationale="fewer misses", key=key
    )
    roll_out(
        ledger=ledger,
        registry=registry,
        name=NAME,
        plan=AT_ONCE,
        compared=lambda _: [],
        bundles=settings.state / "bundles",
    )
    return settings


def bad(found: Findings) -> dict[str, str]:
    return {finding.what: finding.detail for finding in found.findings if not finding.well}


def test_a_promoted_version_verifies_to_the_last_byte(promoted):
    found = verify(promoted, data=True)

    assert found.well, found.text()
    assert [finding.what for finding in found.findings] == [
        "ledger", "records", "registry", "repository", "version 1: record", "version 1: bundle", "version 1: registry",
        "version 1: code", "version 1: data",
    ]  # fmt: skip
    assert "4 files as decided on, every byte read" in found.text()


@pytest.mark.parametrize(
    ("pattern", "what", "named"),
    [
        (".osteoflow/ledger.jsonl", "ledger", "entry 0"),
        ("keys/ledger-*.head", "ledger", ".head"),
        (".osteoflow/bundles/*/model.tflite", "version 1: bundle", "model.tflite"),
        (".osteoflow/bundles/*/manifest.json", "version 1: bundle", "manifest.json"),
        (".osteoflow/mlflow-artifacts/**/bundle/model.tflite", "version 1: registry", "model.tflite"),
        (".osteoflow/mlflow-artifacts/**/decision-*.json", "version 1: registry", "decision record"),
        (f".osteoflow/cache/files/md5/{md5(SHARD)[:2]}/{md5(SHARD)[2:]}", "version 1: data", md5(SHARD)[2:]),
        (f".osteoflow/cache/files/md5/{md5(LABELS)[:2]}/{md5(LABELS)[2:]}", "version 1: data", md5(LABELS)[2:]),
    ],
)
def test_a_flipped_byte_is_found_and_named(promoted, pattern, what, named):
    (path,) = promoted.workspace.glob(pattern)
    mode, whole = path.stat().st_mode, path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    try:
        found = bad(verify(promoted, data=True))
    finally:
        path.write_bytes(whole)
        path.chmod(mode)

    assert list(found) == [what]
    assert named in found[what]


def test_a_signer_whose_key_is_not_here_is_named(promoted):
    """Each of their words, and the version that stood on it; the chain itself is sound."""
    key, away = promoted.key_dir / "sign-reviewer.pem", promoted.workspace / "away.pem"
    key.rename(away)
    try:
        found = bad(verify(promoted, data=False))
    finally:
        away.rename(key)

    assert found == {
        "entry 1: signer": "ledger entry 1 (approval): 'reviewer' signed with a key that the key folder does not have "
        "of that name (sign-NAME.pub); it counts for nothing",
        "version 1: way up": "ledger entry 2 (rollout): no approval of its hash",
    }


def test_a_damaged_object_of_the_repository_is_found(promoted):
    """A commit's parameters changed behind git's back: git's own hash of them tells."""
    blob = subprocess.run(
        ["git", "rev-parse", "HEAD:params.yaml"], cwd=promoted.workspace, capture_output=True, text=True, check=True
    ).stdout.strip()
    path = promoted.workspace / ".git" / "objects" / blob[:2] / blob[2:]
    whole, mode = path.read_bytes(), path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(zlib.compress(zlib.decompress(whole).replace(b"margin: 0.03", b"margin: 0.30")))
    try:
        found = bad(verify(promoted, data=False))
    finally:
        path.write_bytes(whole)
        path.chmod(mode)

    assert blob in found["repository"]


def test_a_cut_end_is_found_by_the_registry_too(promoted):
    """Where the witness beside the keys is gone as well, the version's tag still knows how long the ledger was."""
    (witness,) = promoted.key_dir.glob("ledger-*.head")
    ledger, remembered = promoted.ledger_path.read_bytes(), witness.read_bytes()
    witness.unlink()
    promoted.ledger_path.write_bytes(b"")
    try:
        found = bad(verify(promoted, data=False))
    finally:
        promoted.ledger_path.write_bytes(ledger)
        witness.write_bytes(remembered)

    assert found == {"registry": "the registry saw ledger entry 0, which is gone or another one now"}


def test_an_export_verifies_where_there_is_nothing_else(promoted, tmp_path):
    """By the command, in an empty folder, with no git, no repository, no state and an empty home."""
    export(promoted, 1, tmp_path / "evidence")
    (tmp_path / "empty").mkdir()

    def offline():
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", "audit", "verify", "--offline", "../evidence"],
            cwd=tmp_path / "empty", env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": os.fspath(REPOSITORY)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    sound = offline()
    (tmp_path / "evidence" / "bundle" / "model.tflite").write_bytes(b"other weights")
    altered = offline()

    assert (sound.returncode, sound.stdout.splitlines()[-1]) == (0, "8 checks, all hold."), sound.stdout + sound.stderr
    assert (altered.returncode, "BAD  bundle/model.tflite" in altered.stdout) == (1, True)
    assert list((tmp_path / "empty").iterdir()) == []
