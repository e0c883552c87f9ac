"""Data versions on a real S3-compatible store: what one clone pushes, another pulls."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.workspace import Workspace


def clone(source, folder, state, bucket):
    subprocess.run(["git", "clone", "--quiet", str(source), str(folder)], check=True)
    return Workspace(folder, state, f"{bucket.url}/dvc", "reader-1", endpoint=bucket.store.endpoint).open()


@pytest.fixture
def origin(tmp_path):
    """A repository with DVC in it and nothing else."""
    folder = tmp_path / "origin"
    subprocess.run(["git", "init", "--quiet", "-b", "main", str(folder)], check=True)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (folder / ".dvc" / "config").write_text("")
    who = ["-c", "user.name=reader-1", "-c", "user.email=reader-1@localhost"]
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    subprocess.run(["git", "-C", str(folder), *who, "commit", "--quiet", "-m", "Begin"], check=True)
    return folder


@pytest.mark.slow
def test_a_version_on_s3_reaches_another_machine(bucket, origin, tmp_path):
    here = clone(origin, tmp_path / "here", tmp_path / "state", bucket)
    (here.root / "data" / "studies").mkdir(parents=True)
    (here.root / "data" / "studies" / "one.parquet").write_bytes(b"pixels" * 1000)
    commit = here.commit_data([Path("data/studies")], "Take in 1 radiograph")

    there = clone(here.root, tmp_path / "there", tmp_path / "elsewhere", bucket)
    there._dvc("pull", "--quiet")

    assert there.head() == commit
    assert (there.root / "data/studies/one.parquet").read_bytes() == b"pixels" * 1000
    keys = [row["Key"] for row in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]]
    assert len(keys) == 2  # the shard and the folder's list
