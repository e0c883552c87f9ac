"""Files below one place, by name: a folder, or a zip that is read where it lies. What every layout is built on.

Links are not followed and nothing is extracted, so that a name leads nowhere. A zip inside a folder is opened too; a
zip inside a zip is a file like any other.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from components.errors import DataError

ZIP = b"PK\x03\x04"
HEAD = 256 * 1024  # bytes; the size of a picture stands in them, behind the largest thumbnail
PIECE = 1024 * 1024  # bytes read at once where only their hash is wanted
MAX_TABLE = 64 * 1024 * 1024  # bytes of a table; FracAtlas's annotations are 2 MB


class File(Protocol):
    """A file that can be read in whatever process it is handed to."""

    @property
    def name(self) -> str:
        """Its own name, without folders."""

    def size(self) -> int:
        """Bytes, without reading them."""

    def data(self) -> bytes:
        """The content."""

    def head(self) -> bytes:
        """The first HEAD bytes of the content."""

    def sha256(self) -> str:
        """Hex SHA-256 of the content, read in pieces."""

    def stamp(self) -> str:
        """A short text that changes with the content, without reading it."""


@dataclass(frozen=True)
class DiskFile:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def size(self) -> int:
        return self.path.stat().st_size

    def data(self) -> bytes:
        return self.path.read_bytes()

    def head(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(HEAD)

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def stamp(self) -> str:
        return str(self.size())


@dataclass(frozen=True)
class Member:
    """A member of the zip at `path`; bytes_ and crc as the zip's directory states them."""

    path: Path
    member: str
    bytes_: int
    crc: int

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name

    def size(self) -> int:
        return self.bytes_

    def data(self) -> bytes:
        archive = _opened(self.path, self.path.stat().st_mtime_ns)
        with archive.open(self.member) as file:
            return file.read(self.bytes_ + 1)[: self.bytes_]  # what the directory promised, however much there is

    def head(self) -> bytes:
        archive = _opened(self.path, self.path.stat().st_mtime_ns)
        with archive.open(self.member) as file:
            return file.read(HEAD)

    def sha256(self) -> str:
        archive = _opened(self.path, self.path.stat().st_mtime_ns)
        digest, left = hashlib.sha256(), self.bytes_
        with archive.open(self.member) as file:
            while piece := file.read(min(PIECE, left)):
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest()

    def stamp(self) -> str:
        return str(self.crc)


@dataclass(frozen=True)
class Tree:
    """Files by relative name, with "/" between folders; in order of their names."""

    files: Mapping[str, File]

    def tops(self, name: str) -> list[str]:
        """The folders, as prefixes ending in "/" or empty, that hold a file `name`; those nearest the top first."""
        found = [path[: -len(name)] for path in self.files if path == name or path.endswith(f"/{name}")]
        return sorted(found, key=lambda top: (top.count("/"), top))

    def under(self, top: str) -> Tree:
        """What lies below the prefix `top`, named from there."""
        return Tree({name[len(top) :]: file for name, file in self.files.items() if name.startswith(top)})

    def text(self, name: str) -> str:
        """A table as text.

        Raises:
            DataError: it is larger than any table, cannot be read, or is not UTF-8.
        """
        file = self.files[name]
        short = PurePosixPath(name).name
        if file.size() > MAX_TABLE:
            raise DataError(f"source: {short} is larger than {MAX_TABLE >> 20} MB")
        try:
            return file.data().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(f"source: {short} cannot be read ({type(error).__name__}); send it again") from None


def plant(path: Path) -> Tree:
    """The files of the folder or zip at `path`.

    Raises:
        DataError: the zip itself cannot be read.
    """
    if path.is_dir():
        root = path.resolve()
        files: dict[str, File] = {}
        for found in sorted(entry for entry in root.rglob("*") if entry.is_file() and not entry.is_symlink()):
            name = found.relative_to(root).as_posix()
            members = _members(found) if _is_zip(found) else None
            if members is None:
                files[name] = DiskFile(found)
            else:
                files |= {f"{name}/{member.member}": member for member in members}
        return Tree(files)
    members = _members(path.resolve())
    if members is None:
        raise DataError("source: the zip cannot be read; send it again")
    return Tree({member.member: member for member in members})


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP)) == ZIP
    except OSError:
        return False


def _members(path: Path) -> list[Member] | None:
    """The files in a zip, or None where it is damaged: then it is a file that cannot be used, and says so itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted((e for e in archive.infolist() if not e.is_dir()), key=lambda entry: entry.filename)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError):
        return None
    return [Member(path, entry.filename, entry.file_size, entry.CRC) for entry in entries]


@lru_cache(maxsize=2)  # opening a zip reads its whole directory: once for all its members, in every process
def _opened(path: Path, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
