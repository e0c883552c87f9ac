"""Two ids of a hospital become one person: in a real repository, with a real archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.dataset.intake import intake
from components.dataset.merges import read_merges
from components.errors import DataError
from components.params import load
from components.radiograph.phantom import DETECTOR_A, write_archive
from components.settings import Settings, load_settings
from flows import clients
from flows.merges import merge_patients, pair, read_pairs

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> tuple[Settings, list[str]]:
    """A repository with four phantom patients in it, and their original ids."""
    root = tmp_path_factory.mktemp("site") / "clone"
    (root / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/merges.csv"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / ".gitignore").write_text(".osteoflow\ndata/studies\ndata/labels\ndata/catalog\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    settings = load_settings(root).model_copy(update={"key_dir": root.parent / "keys", "user": "a"})
    drawn = write_archive(root.parent / "phantoms", patients=4, detector=DETECTOR_A, seed=5)
    intake(
        source=drawn.folder,
        studies=root / "data/studies",
        labels=root / "data/labels",
        catalog=root / "data/catalog",
        quarantine=root / "quarantine",
        pseudonyms=clients.pseudonyms(settings),
        params=load(root / "params.yaml").intake,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    folders = [Path("data") / name for name in ("studies", "labels", "catalog")]
    clients.workspace(settings).commit_data(folders, "archive")
    return settings, sorted({phantom.patient for phantom in drawn.phantoms})


def test_a_merge_is_recorded_and_committed_under_pseudonyms(archive):
    settings, (one, other, *_) = archive
    said = merge_patients(settings, [pair(one, other, "")])
    again = merge_patients(settings, [pair(other, one, "")])
    log = settings.workspace / "data/merges.csv"
    history = subprocess.run(
        ["git", "log", "-1", "--stat", "-p"], cwd=settings.workspace, capture_output=True, text=True, check=True
    ).stdout

    assert (said.recorded, said.known, said.unseen) == (1, 0, 0)
    assert (again.recorded, again.known, again.commit) == (0, 1, None)
    assert [merge.after for merge in read_merges(log)] == [8]
    assert "data/merges.csv | 1 +" in history
    assert [name for name in (one, other) if name in history] == []


def test_an_id_that_nobody_has_is_counted(archive):
    """The ids mean nothing under another issuer."""
    settings, (_, _, one, other) = archive

    assert merge_patients(settings, [pair(one, other, "ELSEWHERE")]).unseen == 2


def test_a_catalog_that_is_not_all_here_is_completed_first(archive):
    """Otherwise a merge of today would be written into the past."""
    settings, (one, other, *_) = archive
    [entry] = (settings.workspace / "data/catalog").glob("*.parquet")
    entry.unlink()

    assert merge_patients(settings, [pair(one, other, "")]).unseen == 0
    assert entry.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("patient_id\n1\n", r"column\(s\) same_as missing"), ("patient_id,same_as\n1,\n", "merges row 2: an id is empty")],
)
def test_a_list_that_says_nothing_is_refused(tmp_path, text, said):
    (tmp_path / "list.csv").write_text(text)

    with pytest.raises(DataError, match=said):
        read_pairs(tmp_path / "list.csv")


def test_a_row_may_name_its_issuer(tmp_path):
    """An id means something within its issuer only."""
    (tmp_path / "list.csv").write_text("patient_id,same_as,issuer\n1,2,NORTH\n3,4,\n")

    assert read_pairs(tmp_path / "list.csv", issuer="SOUTH") == [
        ("NORTH\x001", "NORTH\x002"),
        ("SOUTH\x003", "SOUTH\x004"),
    ]


@pytest.mark.parametrize("given", ["file", "asked"])
def test_the_command_records_and_prints_no_id(archive, tmp_path, given):
    """With a file, or asked for on the terminal."""
    settings, ids = archive
    one, other = ids[1:3] if given == "file" else ids[2:4]
    (tmp_path / "list.csv").write_text(f"patient_id,same_as\n{one},{other}\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flows.cli",
            "data",
            "merge-patients",
            *([str(tmp_path / "list.csv")] * (given == "file")),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
            "OSTEOFLOW_WORKSPACE": str(settings.workspace),
            "OSTEOFLOW_KEY_DIR": str(settings.key_dir),
        },
        input=f"{one}\n{other}\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "1 merge(s) recorded, 0 known already." in done.stdout
    assert [name for name in (one, other) if name in done.stdout.partition("1 merge")[2]] == []
