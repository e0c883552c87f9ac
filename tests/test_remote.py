"""Data versions on a real S3-compatible store: what one clone pushes, another pulls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.workspace import Workspace
from tests.processes import path_with_hook

REPOSITORY = Path(__file__).resolve().parent.parent


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


# A writer in a process group of its own, which dies with its DVC.
WRITER = """
import sys
from pathlib import Path
from components.workspace import Workspace
root, state, remote, endpoint = sys.argv[1:]
home = Workspace(Path(root), Path(state), remote, "reader-1", endpoint=endpoint).open()
home.commit_data([Path("data/studies")], "Take in 6 shards")
"""


def keys(bucket) -> list[str]:
    return sorted(row["Key"] for row in bucket.client.list_objects_v2(Bucket=bucket.name).get("Contents", []))


@pytest.mark.slow
def test_a_killed_push_goes_on_where_it_stopped(bucket, origin, tmp_path):
    """Two of six shards had arrived: they are not sent again, and another machine gets all six."""
    here = clone(origin, tmp_path / "here", tmp_path / "state", bucket)
    (here.root / ".dvc" / "config").write_text("['remote \"storage\"']\n    jobs = 1\n")  # one after another
    (here.root / "data" / "studies").mkdir(parents=True)
    shards = {f"{n}.parquet": bytes([n]) * 100_000 for n in range(6)}
    for name, data in shards.items():
        (here.root / "data" / "studies" / name).write_bytes(data)
    here._dvc("add", "--quiet", "data/studies")
    killed = {
        "PYTHONPATH": path_with_hook(tmp_path / "hook", REPOSITORY),
        "DIE_AT": json.dumps(["open", "/cache/files/md5/", 5]),  # the list twice, then shard by shard
    }
    command = [sys.executable, "-c", WRITER, str(here.root), str(here.state), here.remote, str(here.endpoint)]
    death = subprocess.run(command, env=os.environ | killed, capture_output=True, text=True, start_new_session=True)
    arrived = keys(bucket)
    for key in arrived:  # what is sent again loses this mark
        source = {"Bucket": bucket.name, "Key": key}
        marked = {"Metadata": {"arrived": "before"}, "MetadataDirective": "REPLACE"}
        bucket.client.copy_object(Bucket=bucket.name, Key=key, CopySource=source, **marked)
    commit = here.commit_data([Path("data/studies")], "Take in 6 shards")
    there = clone(here.root, tmp_path / "there", tmp_path / "elsewhere", bucket)
    there._dvc("pull", "--quiet")

    assert death.returncode == -signal.SIGKILL, death.stderr[-1000:]
    assert (len(arrived), len(keys(bucket)), there.head()) == (2, 7, commit)
    marks = [bucket.client.head_object(Bucket=bucket.name, Key=key)["Metadata"] for key in arrived]
    assert marks == [{"arrived": "before"}] * 2
    assert {path.name: path.read_bytes() for path in (there.root / "data" / "studies").iterdir()} == shards


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
    assert len(keys(bucket)) == 2  # the shard and the folder's list
