"""Git and DVC as one place: real repositories, a real DVC remote, a stage small enough to read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.errors import ConfigError, DataError, ExpectationsFailed
from components.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parent.parent
PIPELINE = """
stages:
  features:
    cmd: python stage.py
    deps: [data/studies]
    outs:
      - data/features: {persist: true}
"""
STAGE = """
import pathlib, sys
out = pathlib.Path("data/features"); out.mkdir(exist_ok=True)
for shard in sorted(pathlib.Path("data/studies").iterdir()):
    if shard.read_text() == "bad":
        sys.exit("ExpectationsFailed: 1 of 2 shards is bad; fix `intake`")
    if not (out / shard.name).exists():
        (out / shard.name).write_text("made"); print("made", shard.name, flush=True)
"""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / "data").mkdir()
    (root / "data" / ".gitignore").write_text("/studies\n/features\n")
    (root / ".gitignore").write_text(".osteoflow\n")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "stage.py").write_text(STAGE)
    git(root, "init", "--quiet")
    git(root, "add", "-A")
    git(root, "-c", "user.name=engineer", "-c", "user.email=engineer@localhost", "commit", "--quiet", "-m", "start")
    home = Workspace(root, root / ".osteoflow", str(tmp_path / "remote"), "engineer").open()
    add_shard(home, "a")
    return home


def reproduce(build: Workspace) -> str:
    """Build everything."""
    build.restore(STUDIES)
    build.make()
    return build.lock()


def add_shard(workspace: Workspace, name: str, content: str = "pixels") -> None:
    (workspace.root / "data" / "studies").mkdir(exist_ok=True)
    (workspace.root / "data" / "studies" / name).write_text(content)


STUDIES = [Path("data/studies")]


def test_a_data_commit_moves_the_pointer_and_nothing_else(workspace):
    commit = workspace.commit_data(STUDIES, "Take in 1 shard")

    assert git(workspace.root, "show", "--name-only", "--format=%an: %s", commit).split("\n") == [
        "engineer: Take in 1 shard",
        "",
        "data/studies.dvc",
        "",
    ]
    assert git(workspace.root, "status", "--porcelain") == ""


def test_a_file_of_gits_own_is_part_of_the_version(workspace):
    """Also where no bytes are new: what was refused is worth a version."""
    workspace.commit_data(STUDIES, "first")
    record = Path("data/refused.json")
    (workspace.root / record).write_text("{}")

    commit = workspace.commit_data(STUDIES, "second", [record])

    assert git(workspace.root, "show", "--name-only", "--format=", commit).split() == ["data/refused.json"]
    assert workspace.commit_data(STUDIES, "third", [record]) is None


def test_nothing_new_commits_nothing(workspace):
    workspace.commit_data(STUDIES, "Take in 1 shard")

    assert workspace.commit_data(STUDIES, "Take in 0 shards") is None


def test_a_folder_that_is_not_there_yet_is_no_error(workspace):
    assert workspace.commit_data([Path("data/labels")], "no labels yet") is None


def test_a_build_learns_from_the_revision_alone(workspace):
    """A file that was not committed does not reach the build."""
    workspace.commit_data(STUDIES, "first")
    add_shard(workspace, "uncommitted")
    with workspace.building("HEAD") as build:
        reproduce(build)

    assert sorted(path.name for path in (build.root / "data" / "features").iterdir()) == ["a"]


def test_only_new_shards_cost(workspace, caplog):
    """A second build continues from the first one's incremental outputs."""
    workspace.commit_data(STUDIES, "first")
    with workspace.building("HEAD") as first:
        reproduce(first)
        workspace.adopt(first)
    add_shard(workspace, "b")
    workspace.commit_data(STUDIES, "second")
    caplog.clear()
    with caplog.at_level("INFO", logger="osteoflow"), workspace.building("HEAD") as second:
        reproduce(second)

    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("made")] == ["made b"]


def test_a_build_takes_up_the_clone_of_the_last_one(workspace):
    """Nothing that an earlier build left there, half-made or edited, reaches the next one."""
    workspace.commit_data(STUDIES, "first")
    with workspace.building("HEAD") as first:
        reproduce(first)
    (first.root / "stage.py").write_text("raise SystemExit('edited')")
    (first.root / "data" / "features" / "a").write_text("half")
    (first.root / ".git" / "index.lock").touch()
    with workspace.building("HEAD") as second:
        reproduce(second)

    assert second.root == first.root
    assert (second.root / "data" / "features" / "a").read_text() == "made"


def test_two_builds_at_once_have_a_clone_each(workspace):
    with workspace.building("HEAD") as one, workspace.building("HEAD") as other:
        assert one.root != other.root
    with workspace.building("HEAD") as again:
        assert again.root == one.root


def test_a_clone_that_lacks_shards_forgets_none(workspace, tmp_path):
    """A version made where the archive is not (all) here still names all of it."""
    workspace.commit_data(STUDIES, "first")
    add_shard(workspace, "b")
    workspace.commit_data(STUDIES, "second")
    git(tmp_path, "clone", "--quiet", str(workspace.root), "fresh")
    fresh = Workspace(tmp_path / "fresh", tmp_path / "state", workspace.remote, "engineer").open()
    fresh.complete(STUDIES)
    (fresh.root / "data" / "studies" / "a").unlink()
    add_shard(fresh, "c")
    commit = fresh.commit_data(STUDIES, "third")

    assert fresh.listing(fresh.pointer(commit, "data/studies.dvc")).keys() == {"a", "b", "c"}


WRITER = """
import sys, time
from pathlib import Path
from components.workspace import Workspace
root, remote, name, log = sys.argv[1:]
home = Workspace(Path(root), Path(root) / ".osteoflow", remote, name).open()
with home.writing():
    with open(log, "a") as file: file.write(f"{name} begins\\n")
    (home.root / "data/studies" / name).write_text(name)
    home.commit_data([Path("data/studies")], f"Take in {name}")
    with open(log, "a") as file: file.write(f"{name} ends\\n")
"""


def test_two_writers_take_turns(workspace, tmp_path):
    """Two real processes: the second waits for the whole of the first, and both versions are in the history."""
    journal = tmp_path / "journal"
    command = [sys.executable, "-c", WRITER, str(workspace.root), workspace.remote]
    writers = [subprocess.Popen([*command, name, str(journal)], cwd=REPOSITORY) for name in ("one", "two")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]

    order = [line.split() for line in journal.read_text().splitlines()]
    assert [word for _, word in order] == ["begins", "ends", "begins", "ends"]
    assert order[0][0] == order[1][0] != order[2][0] == order[3][0]
    assert workspace.listing(workspace.pointer("HEAD", "data/studies.dvc")).keys() == {"a", "one", "two"}


def test_a_killed_push_is_finished_by_the_next_run(workspace, tmp_path):
    """SIGKILL in the middle of `dvc push`: repeated, everything is there for an empty clone."""
    for n in range(40):
        add_shard(workspace, f"shard-{n:02d}", f"{n}" * 400_000)
    workspace._dvc("add", "--quiet", "data/studies")
    push = subprocess.Popen([sys.executable, "-m", "dvc", "push", "--quiet"], cwd=workspace.root)
    deadline = time.monotonic() + 60
    while not any((tmp_path / "remote").rglob("*")) and push.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    push.kill()
    push.wait()
    assert workspace.commit_data(STUDIES, "after the kill") is not None
    git(tmp_path, "clone", "--quiet", str(workspace.root), "fresh")
    fresh = Workspace(tmp_path / "fresh", tmp_path / "state", workspace.remote, "engineer").open()
    fresh._dvc("pull", "--quiet", "data/studies.dvc")

    assert len(list((fresh.root / "data" / "studies").iterdir())) == 41


def test_an_adopted_build_becomes_the_tip(workspace):
    workspace.commit_data(STUDIES, "first")
    with workspace.building("HEAD") as build:
        commit = reproduce(build)
        workspace.adopt(build)

    assert workspace.head() == commit
    assert git(workspace.root, "status", "--porcelain") == ""


def test_a_branch_that_moved_on_keeps_its_tip(workspace):
    """A build that took long never overwrites data that arrived meanwhile; it stays as a branch of its own."""
    base = workspace.commit_data(STUDIES, "first")
    with workspace.building("HEAD") as build:
        commit = reproduce(build)
    add_shard(workspace, "b")
    newer = workspace.commit_data(STUDIES, "second")
    workspace.adopt(build)

    assert workspace.head() == newer
    assert workspace.head(f"build/{commit[:12]}") == commit
    assert base != newer


def test_a_stage_error_keeps_its_class(workspace):
    """What the stage raised is what the flow sees: a data error is never retried as if a service were down."""
    add_shard(workspace, "b", "bad")
    workspace.commit_data(STUDIES, "bad")

    with (
        workspace.building("HEAD") as build,
        pytest.raises(ExpectationsFailed, match="1 of 2 shards is bad; fix `intake`"),
    ):
        reproduce(build)


def test_a_lost_push_is_repaired_by_the_next_run(workspace, tmp_path):
    """Killed between `dvc add` and the commit: the next call finishes the job."""
    workspace._dvc("add", "--quiet", "data/studies")

    assert workspace.commit_data(STUDIES, "after a kill") is not None
    assert any((tmp_path / "remote").rglob("*"))


def test_an_unknown_revision_is_a_configuration_error(workspace):
    with pytest.raises(ConfigError, match="no-such-branch: no such revision"), workspace.building("no-such-branch"):
        pass


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not an Osteoflow repository"):
        Workspace(tmp_path, tmp_path / "state", "remote", "engineer").open()


def test_a_failing_command_says_which(workspace):
    with pytest.raises(DataError, match=r"dvc add failed: .*does not exist"):
        workspace._dvc("add", "data/nowhere")
