"""Files that somebody else still writes to: half a file never lands, and the whole one does when it is there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.dataset.inbox import Inbox
from components.dataset.tree import plant
from components.errors import UnreadableImage
from components.radiograph import dicom

# Writes standard input's first half to a file, says so, and writes the rest when it is told to.
SLOW = """
import os, sys
data = sys.stdin.buffer.read(int(sys.argv[2]))
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(data[: len(data) // 2])
    print("half", flush=True)
    sys.stdin.buffer.read(1)
    file.write(data[len(data) // 2 :])
print("whole", flush=True)
"""
# Turns the last N bytes of every file of a folder into their complement, in place, again and again.
RESTLESS = """
import os, sys
files = [open(entry.path, "r+b", buffering=0) for entry in os.scandir(sys.argv[1])]
sizes = [os.fstat(file.fileno()).st_size - int(sys.argv[2]) for file in files]
ends = [[(end := os.pread(file.fileno(), int(sys.argv[2]), size)), bytes(255 - byte for byte in end)]
        for file, size in zip(files, sizes)]
print("ready", flush=True)
while True:
    for file, size, pair in zip(files, sizes, ends):
        for end in pair:
            os.pwrite(file.fileno(), end, size)
"""


class Writer:
    """A process that has written half of `data` to `path`."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(path), str(len(data))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.process.stdin.write(data)
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"half\n"

    def finish(self) -> None:
        said, _ = self.process.communicate(b".")
        assert said == b"whole\n"


@contextmanager
def restless(folder: Path, end: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", RESTLESS, str(folder), str(end)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()


def test_a_file_that_is_half_written_lands_when_it_is_whole(home, source, good, tmp_path, make):
    writer = Writer(source / "slow", next(make.dicoms(tmp_path / "third", [3]).iterdir()).read_bytes())

    first = home.take_in(source)
    writer.finish()
    second = home.take_in(source)

    assert (first.added, first.refused) == (2, {"truncated": 1})
    assert (second.added, second.duplicates, second.refused) == (1, 2, {})


def test_of_files_that_are_written_over_no_mixture_lands(home, make, tmp_path):
    """A time of change stands still for some milliseconds, in which a file may become another one, half by half."""
    source, pixels = make.dicoms(tmp_path / "source", list(range(16))), 160 * 128 * 2
    whole = set()
    for path in source.iterdir():
        data = path.read_bytes()
        for end in (data[-pixels:], bytes(255 - byte for byte in data[-pixels:])):
            whole.add(dicom.read(data[:-pixels] + end, home.pseudonyms).sha256)

    with restless(source, pixels):
        batch = home.take_in(source)

    landed = home.catalog()
    assert set(landed["pixel_sha256"] if len(landed) else ()) <= whole
    assert batch.added + sum(batch.refused.values()) == 16
    assert home.take_in(source).added == 16 - batch.added


def test_the_inbox_gives_a_file_back_whose_writer_went_on(home, make, tmp_path):
    """The first half was claimed and refused; what came of it afterwards is not removed with it."""
    inbox = tmp_path / "inbox"
    (inbox / "deep").mkdir(parents=True)
    entrance = Inbox(inbox, tmp_path / "claimed", tmp_path / "kept", 40_000_000)
    writer = Writer(inbox / "deep" / "slow", next(make.dicoms(tmp_path / "third", [3]).iterdir()).read_bytes())
    entrance.bring()
    first = home.take_in(entrance.path)
    writer.finish()
    entrance.landed()
    entrance.bring()
    second = home.take_in(entrance.path)
    entrance.landed()

    assert (first.refused, second.added) == ({"truncated": 1}, 1)
    assert [path for path in inbox.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("members", "error"),
    [({"image": b"longer than it was"}, UnreadableImage), ({"other": b""}, FileNotFoundError)],
)
def test_a_zip_whose_place_another_takes_is_not_read(tmp_path, members, error):
    """What was listed is not what would be read: not even as much of it as was promised."""
    path = tmp_path / "a.zip"
    for contents in ({"image": b"as it was"}, members):
        with zipfile.ZipFile(path.with_suffix(".new"), "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        if contents is members:
            file = plant(path).files["image"]
        path.with_suffix(".new").replace(path)

    with pytest.raises(error, match="another zip took its place"):
        file.data()
