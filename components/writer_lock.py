"""One writer of a workspace at a time, its git and DVC included, and what a killed one left locked.

The lock is a file that the children of the writer hold too: a `dvc push` that outlives its killed flow keeps it until
it ends. While git or DVC is at work the file says so; whoever finds that word there follows one that was killed, and
takes away the locks it left behind. Locks of anybody else's git or DVC are not touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

from components.errors import Unavailable

WAIT_SECONDS = 600
# What git leaves when it is killed while it writes the index or moves the branch.
GIT_LOCKS = ("index.lock", "next-index-*.lock", "HEAD.lock", "refs/heads/**/*.lock")

# Lock files that this task (and what it calls) holds, with their descriptors.
_HELD: ContextVar[Mapping[Path, int]] = ContextVar("held", default=MappingProxyType({}))


@contextmanager
def writing(file: Path, root: Path) -> Iterator[None]:
    """Hold the lock `file` of the workspace at `root`; who holds it already goes on.

    Raises:
        Unavailable: another writer kept it for longer than ten minutes.
    """
    held = _HELD.get()
    if file in held:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _wait(handle, root)
        _unlock(os.pread(handle, 16, 0).decode(errors="replace"), root)
        os.ftruncate(handle, 0)
        token = _HELD.set({**held, file: handle})
        try:
            yield
        finally:
            _HELD.reset(token)
    finally:
        os.close(handle)


@contextmanager
def at_work(file: Path, name: str) -> Iterator[tuple[int, ...]]:
    """Write down that `name` is at work, where this task holds the lock `file`.

    Yields:
        The descriptors to hand to the child process.
    """
    handle = _HELD.get().get(file)
    if handle is None:
        yield ()
        return
    os.pwrite(handle, name.encode(), 0)
    yield (handle,)
    os.ftruncate(handle, 0)  # not after an error: then its locks may be left


def busy(file: Path) -> bool:
    """Whether a writer holds the lock `file` now."""
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def git_locks(root: Path) -> list[Path]:
    """Git's locks on the index and the branches of the clone at `root`, whoever holds or left them."""
    command = ["git", "rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    folders = {Path(line) for line in answer.splitlines()}
    return sorted(path for folder in folders for pattern in GIT_LOCKS for path in folder.glob(pattern))


def _wait(handle: int, root: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(f"{root}: another writer holds the workspace; try again later") from None
            time.sleep(0.2)


def _unlock(killed: str, root: Path) -> None:
    """Take away what `killed` (git, dvc, or nobody) left locked at `root`."""
    if killed == "git":
        for lock in git_locks(root):
            lock.unlink(missing_ok=True)
    if killed == "dvc":
        table = root / ".dvc" / "tmp" / "rwlock"
        if table.is_file() and not _in_use(table):
            table.unlink()


def _in_use(table: Path) -> bool:
    """Whether a process that DVC's table of readers and writers names is a DVC: numbers are given out again."""
    try:
        entries = json.loads(table.read_text(encoding="utf-8"))
        writers, readers = entries.get("write", {}).values(), entries.get("read", {}).values()
        processes = {int(one["pid"]) for one in [*writers, *(one for group in readers for one in group)]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # cut off: nobody can read it, DVC neither
    return any(b"dvc" in _command(process) for process in processes)


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
