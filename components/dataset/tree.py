"""Files below one place, by name: a folder, or a zip that is read where it lies. What every layout is built on.

Links are not followed and nothing is extracted, so that a name leads nowhere; what is no file is counted and passed
over. A zip inside a folder is opened too; a zip inside a zip is a file like any other.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from components.errors import DataError, UnreadableImage

ZIP = b"PK\x03\x04"
HEAD = 256 * 1024  # bytes; the size of a picture stands in them, behind the largest thumbnail
PIECE = 1024 * 1024  # bytes read at once where only their hash is wanted
LOCAL_HEADER = 30  # bytes of a member's own header, without its name
NO_FILES = ((stat.S_ISLNK, "link"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
SECOND = "second of one name"
MAX_TABLE = 64 * 1024 * 1024  # bytes of a table; FracAtlas's annotations are 2 MB


State = tuple[int, int]  # size, and the time of the last change in ns


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

    def state(self) -> State:
        """What changes when somebody writes to it, also to put back what was there."""


@dataclass(frozen=True)
class DiskFile:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def size(self) -> int:
        return self.path.stat().st_size

    def data(self) -> bytes:
        """The content, whole: where somebody writes to it meanwhile, it may be half of this and half of that.

        Raises:
            UnreadableImage: it changed while it was read.
        """
        with self.path.open("rb") as file:
            before = os.fstat(file.fileno())
            found = file.read()
            after = os.fstat(file.fileno())
        if _state(before) != _state(after) or len(found) != after.st_size:
            raise UnreadableImage("the file changed while it was read", reason="changed")
        return found

    def head(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(HEAD)

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def stamp(self) -> str:
        return str(self.size())

    def state(self) -> State:
        return state_of(self.path)


@dataclass(frozen=True)
class Member:
    """A member of the zip at `path`; bytes_ and crc as the zip's directory states them.

    overlaps: its bytes are those of another member too. A small zip can claim any size that way; it is not read.
    """

    path: Path
    member: str
    bytes_: int
    crc: int
    overlaps: bool = False

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name

    def size(self) -> int:
        return self.bytes_

    def data(self) -> bytes:
        with self._open() as file:
            return file.read(self.bytes_ + 1)[: self.bytes_]  # what the directory promised, however much there is

    def head(self) -> bytes:
        with self._open() as file:
            return file.read(HEAD)

    def sha256(self) -> str:
        digest, left = hashlib.sha256(), self.bytes_
        with self._open() as file:
            while piece := file.read(min(PIECE, left)):
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest()

    def stamp(self) -> str:
        return str(self.crc)

    def state(self) -> State:
        return state_of(self.path)

    def _open(self) -> IO[bytes]:
        if self.overlaps:
            raise zipfile.BadZipFile("members overlap")
        archive = _opened(self.path, self.path.stat().st_mtime_ns)
        if self.member not in archive.NameToInfo:
            raise FileNotFoundError("another zip took its place")
        info = archive.getinfo(self.member)
        if (info.file_size, info.CRC) != (self.bytes_, self.crc):
            raise UnreadableImage("another zip took its place", reason="changed")
        return archive.open(info)


@dataclass(frozen=True)
class Tree:
    """Files by relative name, with "/" between folders; in order of their names.

    passed_over: what is none, by what it is.
    """

    files: Mapping[str, File]
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def tops(self, name: str) -> list[str]:
        """The folders, as prefixes ending in "/" or empty, that hold a file `name`; those nearest the top first."""
        found = [path[: -len(name)] for path in self.files if path == name or path.endswith(f"/{name}")]
        return sorted(found, key=lambda top: (top.count("/"), top))

    def under(self, top: str) -> Tree:
        """What lies below the prefix `top`, named from there."""
        files = {name[len(top) :]: file for name, file in self.files.items() if name.startswith(top)}
        return Tree(files, self.passed_over)

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
        except (
            UnreadableImage,
            OSError,
            UnicodeDecodeError,
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise DataError(f"source: {short} cannot be read ({type(error).__name__}); send it again") from None


def plant(path: Path) -> Tree:
    """The files of the folder or zip at `path`.

    Raises:
        DataError: the zip itself cannot be read.
    """
    passed: Counter[str] = Counter()
    if path.is_dir():
        root = path.resolve()
        files: dict[str, File] = {}
        for found in sorted(_walk(root, passed)):
            name = found.relative_to(root).as_posix()
            members = _members(found) if _is_zip(found) else None
            if members is None:
                files[name] = DiskFile(found)
            else:
                files |= {f"{name}/{member}": file for member, file in _named(members, passed).items()}
        return Tree(files, passed)
    members = _members(path.resolve())
    if members is None:
        raise DataError("source: the zip cannot be read; send it again")
    return Tree(_named(members, passed), passed)


def _walk(root: Path, passed: Counter[str]) -> Iterator[Path]:
    """Every file below `root`; what is none is counted in `passed`."""
    folders = [root]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            passed["closed folder"] += 1
            continue
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                folders.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)
            else:
                passed[next((name for is_one, name in NO_FILES if is_one(mode)), "device")] += 1


def _named(members: list[Member], passed: Counter[str]) -> dict[str, File]:
    """The members by name; of several with one name a zip gives the last alone."""
    files: dict[str, File] = {member.member: member for member in members}
    if len(files) < len(members):
        passed[SECOND] += len(members) - len(files)
    return files


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
    overlapping = _overlapping(entries, path.stat().st_size)
    return [Member(path, e.filename, e.file_size, e.CRC, e.header_offset in overlapping) for e in entries]


def _overlapping(entries: list[zipfile.ZipInfo], size: int) -> set[int]:
    """Where the members begin whose bytes reach into the next one, or begin where another does.

    A member takes at least its header and its compressed bytes; so no two of an honest zip can share any.
    """
    starts = sorted(entries, key=lambda entry: entry.header_offset)
    found = set()
    for one, other in zip(starts, [*starts[1:], None], strict=True):
        end = one.header_offset + LOCAL_HEADER + one.compress_size
        if end > (other.header_offset if other else size):
            found.add(one.header_offset)
    return found


def state_of(path: Path) -> State:
    """What changes when somebody writes to the file at `path`."""
    return _state(path.stat())


def _state(found: os.stat_result) -> State:
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=2)  # opening a zip reads its whole directory: once for all its members, in every process
def _opened(path: Path, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
