"""Killed, or out of disk space, in the middle: nothing half-written, and the next run ends where one run would have."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# The process dies, or may write no more, for real: SIGKILL before the n-th file gets its name; a limit on file size.
SCRIPT = """
import os, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from components.dataset.intake import intake
from components.errors import OsteoflowError
from components.params import Intake
from components.radiograph.deidentify import Pseudonyms

source, home, how, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
seen = 0
def die(event, arguments):
    global seen
    if event == "os.rename":
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
if how == "kill":
    sys.addaudithook(die)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
try:
    intake(source=source, studies=home / "studies", labels=home / "labels", quarantine=home / "quarantine",
           pseudonyms=Pseudonyms(bytes(range(32))),
           params=Intake(shard_mb=1, max_megapixels=10, seconds_per_file=20, memory_mb=2048, weak_block=10,
                         burned_in="mask"),
           now=datetime(2026, 1, 1, 12, tzinfo=UTC))
except OsteoflowError as error:
    print(f"{type(error).__name__}: {error}")
"""


def disturbed(source: Path, home: Path, how: str, number: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, str(source), str(home), how, str(number)],
                          cwd=REPOSITORY, capture_output=True, text=True)  # fmt: skip


@pytest.mark.parametrize("rename", [1, 2, 3, 4, 5])
def test_killed_and_repeated_equals_one_run(new_home, make, tmp_path, rename):
    """Killed before the labels, before the images, between shards: the rerun makes the same files."""
    shots = make.noise(14)
    shots[4].data = shots[4].data[:5000]  # one refusal: its copy and its line are written first
    source = make.fracatlas(tmp_path / "source", shots)
    clean, killed = new_home("clean"), new_home("killed")
    clean.take_in(source)

    death = disturbed(source, killed.folder, "kill", rename)
    killed.take_in(source)

    assert death.returncode == -signal.SIGKILL
    assert killed.files() == clean.files()
    assert killed.catalog().equals(clean.catalog())
    assert killed.events().equals(clean.events())


def test_a_killed_run_goes_on_where_it_stopped(new_home, make, tmp_path):
    source = make.fracatlas(tmp_path / "source", make.noise(14))
    home = new_home("killed")
    disturbed(source, home.folder, "kill", 3)
    stood = len(home.catalog())

    batch = home.take_in(source)

    assert 0 < stood < 14
    assert (batch.added, batch.duplicates) == (14 - stood, stood)


def test_no_disk_space_is_said_and_leaves_nothing_half_written(new_home, make, tmp_path):
    source = make.fracatlas(tmp_path / "source", make.noise(4))
    home = new_home("full")

    said = disturbed(source, home.folder, "full", 100_000).stdout

    assert said.startswith("DataError:")
    assert "no space left" in said
    assert [name for name in home.files() if name.startswith("studies/")] == []


def test_room_made_the_same_command_finishes(new_home, make, tmp_path):
    source = make.fracatlas(tmp_path / "source", make.noise(4))
    home = new_home("full")
    disturbed(source, home.folder, "full", 100_000)

    assert home.take_in(source).added == 4
    assert len(home.events()) == 4
