"""What may lie in a source on purpose or by accident: each beside good files, which land, and nothing else happens."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from components.dataset.quarantine import entries
from components.errors import DataError, UnknownLabel


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def png(width: int, height: int) -> bytes:
    """A PNG header that claims width x height, with next to nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int, jpeg_of_64: bytes) -> bytes:
    """A JPEG whose frame header claims width x height (at most 65,535)."""
    at = jpeg_of_64.index(b"\xff\xc0") + 5
    return jpeg_of_64[:at] + struct.pack(">HH", height, width) + jpeg_of_64[at + 4 :]


def tiff(width: int, height: int) -> bytes:
    """A little-endian grayscale TIFF directory that claims width x height in one strip."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 100)]
    entries_ = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries_ + bytes(104)


def claiming(dicom: bytes, length: int) -> bytes:
    """A DICOM object whose pixel data claim `length` bytes."""
    at = dicom.index(b"\xe0\x7f\x10\x00OW") + 8
    return dicom[:at] + struct.pack("<I", length) + dicom[at + 4 :]


FILES = {
    "no bytes": (lambda good: b"", "empty"),
    "lost sectors": (lambda good: bytes(38_000_000), "not_dicom"),  # as many empty elements as would take a minute
    "noise": (lambda good: bytes(range(256)) * 40, "not_dicom"),
    "a zip's head and nothing else": (lambda good: b"PK\x03\x04" + bytes(100), "not_dicom"),
    "pixel data that claim 4 GB": (lambda good: claiming(good[0], 0xFFFFFFFE)[:-5000], "truncated"),
    "pixel data without an end": (lambda good: claiming(good[0], 0xFFFFFFFF), "not_dicom"),
    "half a file": (lambda good: good[0][: len(good[0]) // 2], "truncated"),
}


@pytest.mark.parametrize("what", sorted(FILES))
def test_a_bad_file_is_refused_and_the_rest_lands(home, source, good, what):
    build, reason = FILES[what]
    (source / "bad").write_bytes(build(good))

    batch = home.take_in(source)

    assert (batch.added, batch.refused) == (2, {reason: 1})


@pytest.mark.parametrize("bomb", [png(100_000, 100_000), tiff(100_000, 100_000)], ids=["PNG", "TIFF"])
def test_a_picture_that_claims_ten_gigapixels_is_refused_by_its_header(home, make, tmp_path, bomb):
    shots = [make.shot(1, bomb), make.shot(2, make.jpeg(make.picture(2)))]

    batch = home.take_in(make.fracatlas(tmp_path / "source", shots))

    assert (batch.added, batch.refused) == (1, {"too_large": 1})


def test_a_jpeg_of_65535_squared_is_refused_by_its_header(home, make, tmp_path):
    bomb = jpeg(65_535, 65_535, make.jpeg(make.picture(1, rows=64, columns=64)))
    shots = [make.shot(1, bomb), make.shot(2, make.jpeg(make.picture(2)))]

    batch = home.take_in(make.fracatlas(tmp_path / "source", shots))

    assert (batch.added, batch.refused) == (1, {"too_large": 1})


def test_a_file_too_large_to_copy_is_listed_with_its_hash(home, source):
    """A gigabyte of zeros that takes no disk; its SHA-256 is what `sha256sum` says."""
    with (source / "huge").open("wb") as file:
        file.truncate(2**30)

    batch = home.take_in(source)

    assert (batch.added, batch.refused) == (2, {"too_large": 1})
    [line] = entries(home.quarantine)
    assert (line.sha256, line.kept) == ("49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14", False)
    assert list(home.quarantine.glob("*.bin")) == []


def test_a_member_that_would_unpack_to_a_hundred_megabytes_is_refused(home, good, tmp_path):
    path = zipped(tmp_path / "bomb.zip", {"good": good[0], "bomb": bytes(100_000_000)})
    assert path.stat().st_size < 1_000_000

    batch = home.take_in(path)

    assert (batch.added, batch.refused) == (1, {"too_large": 1})


def test_a_member_that_is_more_than_it_says_is_read_no_further(home, good, tmp_path):
    """The zip's directory promises 1,000 bytes where 30 million lie."""
    path = zipped(tmp_path / "liar.zip", {"good": good[0], "liar": bytes(30_000_000)})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)

    batch = home.take_in(path)

    assert (batch.added, list(batch.refused.values())) == (1, [1])


def test_a_zip_in_a_zip_is_not_unpacked(home, good, tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"deeper": bytes(1_000_000)}).read_bytes()

    batch = home.take_in(zipped(tmp_path / "outer.zip", {"good": good[0], "inner.zip": inner}))

    assert (batch.added, batch.refused) == (1, {"not_dicom": 1})


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../../escaped", "C:\\escaped"])
def test_a_members_name_leads_nowhere(home, good, tmp_path, name):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)

    batch = home.take_in(zipped(folder / "source.zip", {name: good[0]}))

    assert batch.added == 1
    assert list(tmp_path.rglob("*escaped*")) == []


def test_a_link_in_a_zip_is_a_file_that_holds_a_path(home, good, tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "links.zip", {"good": good[0]})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")

    batch = home.take_in(path)

    assert (batch.added, batch.refused) == (1, {"not_dicom": 1})


def test_an_encrypted_member_is_refused(home, good, tmp_path):
    path = zipped(tmp_path / "locked.zip", {"good": good[0], "locked": b"secret" * 100})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + offset] |= 1
    path.write_bytes(data)

    batch = home.take_in(path)

    assert (batch.added, batch.refused) == (1, {"unreadable": 1})


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", "\u202ereversed".encode(), b"-rf", b"x" * 255])
def test_any_name_will_do(home, source, good, name):
    (source / "2-0").unlink()
    with open(os.fsencode(source) + b"/" + name, "wb") as file:  # noqa: PTH123  (a name that is no text)
        file.write(good[1])

    assert home.take_in(source).added == 2


def test_folders_may_lie_deep(home, source, good):
    deep = source.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    shutil.move(source / "2-0", deep / "image")

    assert home.take_in(source).added == 2


def test_a_file_that_vanishes_is_refused(home, make, tmp_path):
    source = make.dicoms(tmp_path / "source", list(range(60)))
    last = max(source.iterdir())

    batch = home.take_in(source, progress=lambda done, _: last.unlink(missing_ok=True))

    assert (batch.added, batch.refused) == (59, {"vanished": 1})


@pytest.mark.parametrize(
    "table",
    [
        b"\x00\x01\x02\xff" * 1000,
        b"sop_instance_uid,label\n1.2\x00.3,fracture\n",
        b"sop_instance_uid,label\n" + b"1" * 300_000 + b",fracture\n",
        b"sop_instance_uid,label\n1.2,fra\x00cture\n",
        b"",
    ],
    ids=["binary", "NUL in an id", "a field of 300 kB", "NUL in a label", "empty"],
)
def test_a_table_of_nonsense_stops_before_anything_is_written(home, source, table):
    (source / "labels.csv").write_bytes(table)
    before = home.files()

    with pytest.raises((DataError, UnknownLabel)):
        home.take_in(source)

    assert home.files() == before


def test_every_malformed_file_is_refused_and_the_rest_lands(home, source, real_data):
    folder = real_data / "dicom" / "malformed"
    for path in folder.iterdir():
        shutil.copy(path, source / path.name)

    batch = home.take_in(source)

    assert (batch.added, sum(batch.refused.values())) == (2, len(list(folder.iterdir())))
    assert len(entries(home.quarantine)) == 10
