"""Two ids of a hospital become one person: in a real repository, with a real archive."""

from __future__ import annotations

import shutil
import subprocess
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
from flows.merges import merge_patients, read_pairs

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> tuple[Settings, list[str]]:
    """A repository with four phantom patients in it, and their original ids."""
    root = tmp_path_factory.mktemp("site") / "clone"
    (root / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/merges.csv"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / ".gitignore").write_text(".osteoflow\ndata/studies\ndata/labels\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    settings = load_settings(root).model_copy(update={"key_dir": root.parent / "keys", "user": "a"})
    drawn = write_archive(root.parent / "phantoms", patients=4, detector=DETECTOR_A, seed=5)
    intake(
        source=drawn.folder,
        studies=root / "data/studies",
        labels=root / "data/labels",
        quarantine=root / "quarantine",
        pseudonyms=clients.pseudonyms(settings),
        params=load(root / "params.yaml").intake,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    clients.workspace(settings).commit_data([Path("data/studies"), Path("data/labels")], "archive")
    return settings, sorted({phantom.patient for phantom in drawn.phantoms})


def test_a_merge_is_recorded_and_committed_under_pseudonyms(archive):
    settings, (one, other, *_) = archive
    said = merge_patients(settings, read_pairs(f"patient_id,same_as\n{one},{other}\n"))
    again = merge_patients(settings, read_pairs(f"patient_id,same_as\n{other},{one}\n"))
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

    assert merge_patients(settings, read_pairs(f"patient_id,same_as\n{one},{other}\n", issuer="ELSEWHERE")).unseen == 2


def test_an_archive_that_is_not_all_here_records_nothing(archive):
    """Otherwise a merge of today would be written into the past."""
    settings, (_, _, one, other) = archive
    [shard] = (settings.workspace / "data/studies").glob("*.parquet")
    aside = shard.rename(shard.with_name(".aside"))
    try:
        with pytest.raises(DataError, match=r"data/studies: 0 of 1 shards are here; run `dvc pull` first"):
            merge_patients(settings, read_pairs(f"patient_id,same_as\n{one},{other}\n"))
    finally:
        aside.rename(shard)


@pytest.mark.parametrize(
    ("text", "said"),
    [("patient_id\n1\n", r"column\(s\) same_as missing"), ("patient_id,same_as\n1,\n", "merges row 2: an id is empty")],
)
def test_a_list_that_says_nothing_is_refused(text, said):
    with pytest.raises(DataError, match=said):
        read_pairs(text)
