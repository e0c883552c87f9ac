"""`osteoflow intake` killed between shards and version: the same command, repeated, ends where one run would have.

SIGKILL for the flow and all its children, as when a container stops or memory runs out. One workspace is killed at
every point, one after the other, so that each run begins on what the last one left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from components.radiograph.phantom import DETECTOR_A, draw
from tests.processes import path_with_hook
from tests.servers import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = dataclasses.replace(DETECTOR_A, rows=160, columns=128, pitch_mm=2.0)
pytestmark = pytest.mark.slow  # a dozen runs of the flow
HOOK = '#!/bin/sh\n[ "$DIE_AT" = {name} ] && kill -KILL 0\nexit 0\n'
# Imports everything once; then every line is a run in a process group of its own, forked and answered by its status.
RUNNER = """
import json, os, sys
from datetime import UTC, datetime
from flows.terminal import settings_of
settings_of()
import flows.intake
from flows.cli import main
class Clock(datetime):  # label events carry the time: what is compared byte for byte has one
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1, 12, tzinfo=UTC)
flows.intake.datetime = Clock
print("ready", flush=True)
for line in sys.stdin:
    workspace, die_at, arguments, out = json.loads(line)
    if not (child := os.fork()):
        os.setpgid(0, 0)
        os.environ |= {"OSTEOFLOW_WORKSPACE": workspace, "DIE_AT": die_at}
        handle = os.open(out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(handle, 1), os.dup2(handle, 2)
        sys.argv = ["osteoflow", *arguments]
        code = 70
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
POINTS = {
    "before `dvc add`": ("subprocess.Popen", "'dvc', 'add'", 1),
    "in `dvc add`, with the first file in the cache": ("os.rename", "/cache/files/md5/", 2),
    "in `dvc add`, between its two pointers": ("open", "labels.dvc', 'w", 1),
    "between `dvc add` and `dvc push`": ("subprocess.Popen", "'dvc', 'push'", 1),
    "in `dvc push`": ("os.rename", "/remote/files/md5/", 2),
    "between `dvc push` and `git add`": ("subprocess.Popen", "'git', 'add'", 1),
    "between `git add` and `git commit`": ("subprocess.Popen", "'commit', '--quiet'", 1),
    "in `git commit`": "pre-commit",
    "after the commit": "post-commit",
}


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs of the command line, one after another."""

    process: subprocess.Popen[str]
    folder: Path

    def __call__(self, workspace: Path, die_at: object, *arguments: str) -> tuple[int, str]:
        """(exit status, what it printed)."""
        at = die_at if isinstance(die_at, str) else json.dumps(die_at)
        out = self.folder / "out"
        self.process.stdin.write(json.dumps([str(workspace), at, arguments, str(out)]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), out.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def runner(folder):
    """With a Prefect server that stays: to start one for every run would take longer than all of them."""
    [port] = free_ports(1)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "OSTEOFLOW_WORKSPACE": str(folder),
    }
    server = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-services"]
    runs = environment | {"PYTHONPATH": path_with_hook(folder / "python", REPOSITORY)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with (
        subprocess.Popen(server, env=environment, cwd=folder, **quiet) as prefect,
        subprocess.Popen([sys.executable, "-c", RUNNER], env=runs, cwd=REPOSITORY, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):  # fmt: skip
        try:
            assert process.stdout.readline() == "ready\n"
            deadline = time.monotonic() + 120
            while not answers(f"{environment['PREFECT_API_URL']}/health"):
                assert (prefect.poll(), time.monotonic() < deadline) == (None, True)
                time.sleep(0.1)
            yield Runner(process, folder)
        finally:
            process.stdin.close()
            os.killpg(prefect.pid, signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    for name in ("pre-commit", "post-commit"):
        (folder / ".git/hooks" / name).write_text(HOOK.format(name=name))
        (folder / ".git/hooks" / name).chmod(0o755)
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def source(folder):
    """Three images, two of them with a label, and a file that is refused."""
    found = folder / "source"
    found.mkdir()
    phantoms = [draw(7, patient=number, detector=SMALL, fracture=number == 1) for number in (1, 2, 3)]
    for number, phantom in enumerate(phantoms):
        (found / str(number)).write_bytes(phantom.dicom)
    labels = zip(phantoms, ("fracture", "no_fracture"), strict=False)
    rows = [f"{phantom.sop_instance_uid},{label},\n" for phantom, label in labels]
    (found / "labels.csv").write_text("".join(["sop_instance_uid,label,boxes\n", *rows]))
    (found / "bad").write_bytes(b"no radiograph")
    return found


@pytest.fixture(scope="module")
def clean(runner, source, folder):
    """A workspace after one undisturbed run."""
    place = clone(folder / "clean")
    assert runner(place, "", "intake", str(source), "--json")[0] == 0
    return place


@pytest.fixture(scope="module")
def deaths(runner, source, folder):
    """A workspace that was killed at every point; how each run ended."""
    place = clone(folder / "killed")
    return place, {point: runner(place, at, "intake", str(source), "--json") for point, at in POINTS.items()}


@pytest.fixture(scope="module")
def killed(deaths, runner, source):
    """That workspace after the last, undisturbed repetition."""
    code, said = runner(deaths[0], "", "intake", str(source), "--json")
    assert code == 0, said
    return deaths[0]


@pytest.mark.parametrize("point", POINTS)
def test_every_repetition_gets_as_far_as_the_next_kill(deaths, point):
    code, said = deaths[1][point]

    assert code == -signal.SIGKILL, said[-2000:]


def test_it_ends_with_one_commit_that_says_what_one_run_would(killed, clean):
    base = git(REPOSITORY, "rev-parse", "HEAD").strip()

    assert git(killed, "log", "--format=%B", f"{base}..") == git(clean, "log", "--format=%B", f"{base}..")


def test_the_version_is_that_of_one_run(killed, clean):
    for name in ("data/studies.dvc", "data/labels.dvc"):
        assert git(killed, "show", f"HEAD:{name}") == git(clean, "show", f"HEAD:{name}")


def test_git_is_clean_and_the_remote_has_everything(killed):
    status = [sys.executable, "-m", "dvc", "status", "--cloud", "--json", "data/studies.dvc", "data/labels.dvc"]
    cloud = subprocess.run(status, cwd=killed, capture_output=True, text=True, check=True)

    assert git(killed, "status", "--porcelain") == ""
    assert json.loads(cloud.stdout) == {}
    assert list((killed / ".git").rglob("*.lock")) == []


def test_the_page_of_the_batch_says_what_one_run_would(killed, clean):
    [mine], [theirs] = (list(place.glob(".osteoflow/reports/intake-*/results.json")) for place in (killed, clean))

    assert mine.read_bytes() == theirs.read_bytes()
