"""The writer lock: held by the children of a killed writer too, and what a killed git or DVC left locked."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import Unavailable
from components.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parent.parent
STUDIES = [Path("data/studies")]
# A writer whose DVC reads a pipe until the test lets it end.
WRITER = """
import sys
from pathlib import Path
from components.workspace import Workspace
root, pipe = map(Path, sys.argv[1:])
home = Workspace(root, root / ".osteoflow", "remote", "writer").open()
with home.writing():
    home._run(["cat", str(pipe)], "dvc", 10)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One shard that is in no version yet."""
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / "data" / "studies").mkdir(parents=True)
    (root / "data" / ".gitignore").write_text("/studies\n")
    (root / "data" / "studies" / "a").write_text("pixels")
    (root / ".gitignore").write_text(".osteoflow\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return Workspace(root, root / ".osteoflow", str(tmp_path / "remote"), "engineer").open()


def killed(workspace: Workspace, name: str) -> None:
    """What a writer leaves that was killed with its git or DVC."""
    (workspace.state / "writer.lock").write_text(name)


def test_a_dvc_that_outlives_its_killed_writer_keeps_the_lock(workspace, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", WRITER, str(workspace.root), str(pipe)]
    with subprocess.Popen(command, cwd=REPOSITORY) as writer, pipe.open("w"):  # opens when the child reads
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with (workspace.state / "writer.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with workspace.writing():
        assert (workspace.state / "writer.lock").read_text() == ""


def test_a_number_given_out_again_is_not_a_killed_dvc(workspace):
    """In a container that started anew, another program may bear the number of a DVC that was killed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        entry = {"pid": other.pid, "cmd": "dvc add"}
        (workspace.root / ".dvc" / "tmp").mkdir()
        table = workspace.root / ".dvc" / "tmp" / "rwlock"
        table.write_text(json.dumps({"write": {str(workspace.root / "data/studies"): entry}, "read": {}}))
        killed(workspace, "dvc")

        assert workspace.commit_data(STUDIES, "Take in 1 shard") is not None


def test_a_cut_off_table_of_dvc_does_not_bar_the_way(workspace):
    (workspace.root / ".dvc" / "tmp").mkdir()
    (workspace.root / ".dvc" / "tmp" / "rwlock").write_text("")
    killed(workspace, "dvc")

    assert workspace.commit_data(STUDIES, "Take in 1 shard") is not None


def test_locks_of_a_killed_git_do_not_bar_the_way(workspace):
    branch = subprocess.run(["git", "symbolic-ref", "HEAD"], cwd=workspace.root, capture_output=True, text=True).stdout
    for name in ("index.lock", "HEAD.lock", f"{branch.strip()}.lock"):
        (workspace.root / ".git" / name).touch()
    killed(workspace, "git")

    assert workspace.commit_data(STUDIES, "Take in 1 shard") is not None


def test_the_lock_of_somebody_elses_git_is_not_touched(workspace):
    """A person's commit with its editor open: waiting helps, and is said."""
    lock = workspace.root / ".git" / "index.lock"
    lock.touch()
    killed(workspace, "dvc")

    with pytest.raises(Unavailable, match="git"):
        workspace.commit_data(STUDIES, "Take in 1 shard")
    assert lock.exists()


def test_a_child_killed_alone_is_said(workspace):
    with pytest.raises(Unavailable, match=r"dvc: killed \(signal 9\)"):
        workspace._run(["sh", "-c", "kill -9 $$"], "dvc", 10)
