"""Killed, or out of disk space, in the middle: nothing half-written, and the next run ends where one run would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from components.dataset.quarantine import entries, waiting
from tests.processes import decoders

REPOSITORY = Path(__file__).resolve().parents[2]
# The process dies, or may write no more, for real: SIGKILL before or after its n-th step; a limit on file size.
SCRIPT = """
import os, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from components.dataset.intake import intake
from components.errors import OsteoflowError
from components.params import Intake
from components.radiograph.deidentify import Pseudonyms

source, home, how, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
counts = {"rename": 0, "sync": 0}
real = os.fsync
def step(name, when):
    counts[name] += when == "before"
    if (f"{when} {name}", number) == (how, counts[name]):
        os.kill(os.getpid(), signal.SIGKILL)
def sync(handle):
    step("sync", "before")
    real(handle)
    step("sync", "after")
def progress(done, total):
    if how == "decoding" and done == number:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = sync
sys.addaudithook(lambda event, arguments: step("rename", "before") if event == "os.rename" else None)
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
try:
    intake(source=source, studies=home / "studies", labels=home / "labels", catalog=home / "catalog",
           quarantine=home / "quarantine", pseudonyms=Pseudonyms(bytes(range(32))),
           params=Intake(shard_mb=1, max_megapixels=10, seconds_per_file=20, memory_mb=2048, weak_block=10,
                         burned_in="mask"),
           now=datetime(2026, 1, 1, 12, tzinfo=UTC), progress=progress, apart=lambda patient: patient in sys.argv[5:])
except OsteoflowError as error:
    print(f"{type(error).__name__}: {error}")
"""
# What is written, in order, each file by: sync of the draft, rename, sync of the folder. The copy of the refused file
# (syncs 1, 2), the list of refusals (3, 4), then labels and images of the three shards. The last number is the day that
# the result is dated: the first (0) where something that is dated stood already, else that of the repetition.
POINTS = {
    "at the third file, decoders at work": ("decoding", 3, 1),
    "before the copy of a refused file is on the disk": ("before sync", 1, 1),
    "before that copy has its name": ("before rename", 1, 1),
    "after the copy, before its line": ("before sync", 3, 1),
    "after the draft of the list is on the disk": ("after sync", 3, 1),
    "after the refusals, before the labels": ("after sync", 4, 0),
    "before the labels have their name": ("before rename", 3, 0),
    "after the labels, before their folder is on the disk": ("before sync", 6, 0),
    "after the labels, before the images": ("after sync", 6, 0),
    "in the draft of the images": ("before sync", 7, 0),
    "before the images have their name": ("before rename", 4, 0),
    "between two shards": ("after sync", 8, 0),
    "after the second labels, before their images": ("after sync", 10, 0),
    "before the last images have their name": ("before rename", 8, 0),
    "after everything": ("after sync", 16, 0),
}


def disturbed(source: Path, home: Path, how: str, number: int, *apart: str) -> subprocess.CompletedProcess[str]:
    """The dead process; apart: patients with shards of their own.

    Its pipes end with the last of its decoders: none outlives it for long.
    """
    return subprocess.run([sys.executable, "-c", SCRIPT, str(source), str(home), how, str(number), *apart],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=60)  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What all kills have in common: made once."""
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def shots(make):
    found = make.noise(14)
    found[4].data = found[4].data[:5000]  # one refusal: its copy and its line are written first
    return found


@pytest.fixture(scope="module")
def source(make, shots, kept):
    return make.fracatlas(kept / "source", shots)


@pytest.fixture(scope="module")
def undisturbed(source, kept, home_at, make):
    """What one run leaves, byte for byte, by the day it ran."""
    found = {}
    for day in (0, 1):
        home = home_at(kept / f"clean-{day}")
        home.take_in(source, now=make.NOON + timedelta(days=day))
        found[day] = home.contents()
    return found


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_repeated_a_day_later_equals_one_run(source, undisturbed, new_home, make, point):
    """Byte for byte, whatever day it is: what was begun keeps its time."""
    killed, (how, number, dated) = new_home("killed"), POINTS[point]

    death = disturbed(source, killed.folder, how, number)
    killed.take_in(source, now=make.NOON + timedelta(days=1))

    assert death.returncode == -signal.SIGKILL, death.stderr[-2000:]
    assert killed.contents() == undisturbed[dated]


@pytest.fixture(scope="module")
def in_two_rows(make, kept, home_at):
    """Nine images of one patient and then nine of another, who has shards apart; what one run leaves of them."""
    source, home = make.fracatlas(kept / "two", make.noise(18)), home_at(kept / "clean-two")
    second = home.pseudonyms.of("patient", "fracatlas:block:1")
    home.take_in(source, apart=lambda patient: patient == second)
    return source, second, home.contents()


# A shard of the first patient (syncs 1-4), one of the second while three images of the first wait (5-8), these (9-12),
# and the rest of the second (13-14).
@pytest.mark.parametrize("number", [2, 4, 6, 8, 10, 12, 13])
def test_with_shards_apart_killed_and_repeated_equals_one_run(in_two_rows, new_home, number):
    (source, second, clean), killed = in_two_rows, new_home("killed")

    death = disturbed(source, killed.folder, "after sync", number, second)
    killed.take_in(source, apart=lambda patient: patient == second)

    assert death.returncode == -signal.SIGKILL, death.stderr[-2000:]
    assert killed.contents() == clean


def test_a_killed_run_goes_on_where_it_stopped(new_home, source):
    home = new_home("killed")
    disturbed(source, home.folder, "after sync", 8)
    stood = len(home.catalog())

    batch = home.take_in(source)

    assert (stood, batch.added, batch.duplicates) == (6, 7, 6)


def test_a_batch_that_was_killed_follows_the_one_that_came_in_between(new_home, make, source, tmp_path):
    """Its rest is a batch of its own, at its own time: every image and every statement once, in order of arrival."""
    other = make.fracatlas(tmp_path / "other", [make.shot(99, make.jpeg(make.picture(99)), "1")])
    home, clean = new_home("killed"), new_home("clean")
    clean.take_in(source)

    disturbed(source, home.folder, "after sync", 10)  # six images stand, and what is said about the next six
    home.take_in(other, now=make.NOON + timedelta(days=1))
    rest = home.take_in(source, now=make.NOON + timedelta(days=2))
    again = home.take_in(source, now=make.NOON + timedelta(days=3))

    first, between, last = home.catalog()["batch"].unique()
    assert (first[:6], between[:6], last[:6]) == ("000001", "000002", "000003")
    assert (rest.added, again.added, again.label_events) == (7, 0, 0)
    mine = [frame[~frame["batch"].str.startswith(between)].drop(columns="batch").reset_index(drop=True)
            for frame in (home.catalog().drop(columns="shard"), home.events())]  # fmt: skip
    assert mine[0].equals(clean.catalog().drop(columns=["batch", "shard"]))
    assert mine[1].equals(clean.events().drop(columns="batch"))
    assert (home.quarantine / "refused.jsonl").read_bytes() == (clean.quarantine / "refused.jsonl").read_bytes()


def test_a_decoder_killed_alone_costs_its_file_one_more_run(new_home, make, tmp_path):
    """SIGKILL for the decoders in the middle of a batch: what they held is refused, the rest lands, a rerun has all."""
    shots = [make.shot(n, make.jpeg(make.grain(n, side=600)), "01"[n % 2]) for n in range(1, 9)]
    source = make.fracatlas(tmp_path / "source", shots)
    home, clean = new_home("killed"), new_home("clean")
    clean.take_in(source)

    def kill(done: int, _: int) -> None:
        if done == 1:
            for decoder in decoders():
                os.kill(decoder, signal.SIGKILL)

    first = home.take_in(source, progress=kill)
    refused = entries(home.quarantine)
    again = home.take_in(source)

    assert first.added + first.refused["crashed"] == 8
    assert 1 <= first.refused["crashed"] <= 2
    assert again.added == first.refused["crashed"]
    assert [waits.settled for waits in waiting(refused, set(home.catalog()["image_id"]))] == [len(refused)]
    assert told(home.catalog(), "image_id") == told(clean.catalog(), "image_id")
    assert told(home.events(), "event_id") == told(clean.events(), "event_id")


def told(rows: pd.DataFrame, key: str) -> str:
    """The rows without where they lie, in an order that does not depend on it."""
    return rows.drop(columns=["batch", "shard"], errors="ignore").sort_values(key).to_csv(index=False)


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
