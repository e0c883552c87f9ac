"""What else may lie in a source: no files at all, files nobody may read, files in the making, zips that lie."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from components.dataset.quarantine import entries
from tests.processes import decoders

REPOSITORY = Path(__file__).resolve().parents[2]


def test_what_is_no_file_is_counted_and_passed_over(home, source, tmp_path):
    """None is followed, and none blocks."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"not meant to come")
    (source / "link").symlink_to(secret)
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(source / "socket"))

    batch = home.take_in(source)
    door.close()

    assert (batch.added, batch.refused) == (2, {})
    assert batch.passed_over == {"link": 2, "pipe": 1, "socket": 1}
    assert "passed over, being no files: link 2, pipe 1, socket 1" in batch.message()


def test_where_nothing_is_passed_over_nothing_is_said(home, source):
    batch = home.take_in(source)

    assert batch.passed_over == {}
    assert "passed over" not in batch.message()


# Root may read everything; this program may not.
SCRIPT = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from components.dataset.intake import intake
from components.params import Intake
from components.radiograph.deidentify import Pseudonyms

source, home = map(Path, sys.argv[1:])
batch = intake(source=source, studies=home / "studies", labels=home / "labels", catalog=home / "catalog",
               quarantine=home / "quarantine", pseudonyms=Pseudonyms(bytes(range(32))),
               now=datetime(2026, 1, 1, tzinfo=UTC),
               params=Intake(shard_mb=1, max_megapixels=10, seconds_per_file=20, memory_mb=2048, weak_block=10,
                             burned_in="mask"))
print(batch.model_dump_json())
"""


def test_a_file_and_a_folder_that_nobody_may_read(source, tmp_path):
    """The file is refused, the folder counted; nobody knows what is in it."""
    program = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "home")]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("not installed: setpriv")
        caps = "-dac_override,-dac_read_search"
        program = ["setpriv", "--bounding-set", caps, "--inh-caps", caps, *program]
    (source / "locked").write_bytes(b"whatever")
    (source / "locked").chmod(0)
    (source / "closed").mkdir(mode=0)

    said = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True)

    batch = json.loads(said.stdout)
    assert (batch["added"], batch["refused"], batch["passed_over"]) == (2, {"unreadable": 1}, {"closed folder": 1})


def test_a_file_that_grows_while_it_is_read_is_refused_as_changed(home, source):
    """Somebody still copies into the folder: half a file is no file. When it is whole it is judged."""
    path, done = source / "growing", threading.Event()
    with path.open("wb") as file:
        file.truncate(38_000_000)  # as large as an image may be, so that it takes a while

    def grow() -> None:
        with path.open("ab", buffering=0) as end:
            while not done.is_set():
                end.write(b"\0")

    writer = threading.Thread(target=grow)
    writer.start()
    try:  # where the writer did not get its turn in time, the file had not changed
        refused = next(seen for seen in (home.take_in(source).refused for _ in range(20)) if "changed" in seen)
    finally:
        done.set()
        writer.join()

    assert refused == {"changed": 1}
    assert home.take_in(source).refused == {"not_dicom": 1}


def test_five_thousand_files_of_one_name(home, good, tmp_path):
    """PACS exports call every first image IM0001."""
    for number in range(5000):
        folder = tmp_path / "source" / f"{number:04d}"
        folder.mkdir(parents=True)
        (folder / "IM0001").write_bytes(good[number // 4000] if number % 4000 == 0 else b"no image")

    batch = home.take_in(tmp_path / "source")

    assert (batch.added, batch.refused) == (2, {"not_dicom": 4998})
    assert len(entries(home.quarantine)) == 1  # they are one content


def test_what_an_operating_system_left_among_fracatlas_images_is_refused_alone(home, make, tmp_path):
    """No number in the name, so no patient; a superscript is no digit."""
    source = make.fracatlas(tmp_path / "source", [make.shot(1, make.jpeg(make.picture(1)))])
    (source / "images" / "Non_fractured" / "Thumbs.db").write_bytes(b"thumbnails")
    (source / "images" / "Non_fractured" / "IMG\u00b2.jpg").write_bytes(make.jpeg(make.picture(2)))

    batch = home.take_in(source)

    assert (batch.added, batch.refused) == (1, {"missing_patient_id": 1, "not_an_image": 1})


def quoted(count: int, kernel: int) -> bytes:
    """A zip of `count` members that all end in the same `kernel` zero bytes, each quoting the header of the next.

    Source: D. Fifield, A better zip bomb, WOOT 2019.
    """

    def header(name: bytes, crc: int, packed: int, size: int) -> bytes:
        return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, packed, size, len(name), 0) + name

    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(kernel)
    stream, content, members = deflate.compress(zeros) + deflate.flush(), zeros, []
    for number in reversed(range(count)):
        name = f"{number:04d}".encode()
        sizes = (zlib.crc32(content), len(stream), len(content))
        members.insert(0, (name, sizes))
        local = header(name, *sizes)
        if number:
            stream = struct.pack("<BHH", 0, len(local), len(local) ^ 0xFFFF) + local + stream
            content = local + content
    body, offset, directory = local + stream, 0, b""
    for name, sizes in members:
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, offset)
        directory += name
        offset += 30 + len(name) + 5
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end


def test_a_zip_whose_members_share_their_bytes_is_not_unpacked(home, source):
    """22 kB that claim to be 40 files of 20 MB: the members that overlap are refused unread, one is what it says."""
    (source / "bomb.zip").write_bytes(quoted(40, 20_000_000))
    with zipfile.ZipFile(source / "bomb.zip") as archive:
        assert sum(member.file_size for member in archive.infolist()) > 800_000_000

    batch = home.take_in(source)

    assert (source / "bomb.zip").stat().st_size < 25_000
    assert (batch.added, batch.refused) == (2, {"not_dicom": 1, "unreadable": 39})
    assert sum(path.stat().st_size for path in home.quarantine.iterdir()) < 21_000_000


def test_one_member_that_a_zip_lists_a_thousand_times_is_not_read_once(home, source):
    """Its directory gives the same 20 kB another name each time: 20 GB, all in one place."""
    with zipfile.ZipFile(source / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0000", bytes(20_000_000))
        [member] = archive.infolist()
        archive.filelist += [zipfile.ZipInfo(f"{number:04d}") for number in range(1, 1000)]
        for other in archive.filelist[1:]:
            other.compress_type, other.CRC = member.compress_type, member.CRC
            other.compress_size, other.file_size, other.header_offset = member.compress_size, member.file_size, 0

    batch = home.take_in(source)

    assert (batch.added, batch.refused) == (2, {"unreadable": 1000})
    assert sum(path.stat().st_size for path in home.quarantine.iterdir()) < 1_000_000


def test_of_two_members_with_one_name_one_is_counted(home, good, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("image", good[0])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("image", good[1])

    batch = home.take_in(tmp_path / "a.zip")

    assert (batch.added, batch.passed_over) == (1, {"second of one name": 1})


def test_a_damaged_member_that_is_too_large_is_refused_alone(home, good, tmp_path):
    """Not even its hash can be had."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good", good[0])
        archive.writestr("large", bytes(50_000_000))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    middle = data.index(b"large") + 20_000
    data[middle : middle + 10_000] = b"\xa5\x3c" * 5_000
    (tmp_path / "a.zip").write_bytes(data)

    batch = home.take_in(tmp_path / "a.zip")

    assert (batch.added, batch.refused) == (1, {"too_large": 1})
    assert [line.sha256 for line in entries(home.quarantine)] == [None]


def test_a_file_that_claims_four_gigabytes_costs_no_memory(new_home, source, good):
    """The peak of resident memory over all decoders, with the file and without it."""

    def peak(name: str) -> float:
        seen: list[int] = []

        def look(_done: int, _total: int) -> None:
            status = [Path(f"/proc/{decoder}/status").read_text() for decoder in decoders()]
            seen.extend(int(text.split("VmHWM:")[1].split()[0]) for text in status)

        home = new_home(name)
        home.take_in(source, progress=look)
        return max(seen) / 1024  # MiB

    without = peak("without")
    at = good[0].index(b"\xe0\x7f\x10\x00OW") + 8
    (source / "claims").write_bytes(good[0][:at] + struct.pack("<I", 0xFFFFFFFE) + good[0][at + 4 :])

    assert peak("with") - without < 64
