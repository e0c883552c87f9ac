"""The remote of the data, asked and filled without DVC.

DVC takes every file of a folder for sent once the folder's list is in the remote: `dvc status --cloud` says "in sync"
and `dvc push` sends nothing where a remote lost one of them.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from components.dataset.bucket import Prefix
from components.dataset.store import atomic_path
from components.errors import DataError
from components.settings import Settings
from flows.doors import object_store

FILES = "files/md5"  # below the remote: the first two characters of an MD5, a slash, the rest


class Remote(Protocol):
    """Where the bytes of data versions are kept, by their MD5 (of a folder's list: MD5 and `.dir`)."""

    def holds(self) -> frozenset[str]:
        """The MD5s of everything that is there; raises Unavailable or ConfigError."""

    def send(self, md5: str, path: Path) -> None:
        """Put the file at `path` there."""


@dataclass(frozen=True)
class Folder:
    root: Path

    def holds(self) -> frozenset[str]:
        return frozenset(f"{path.parent.name}{path.name}" for path in (self.root / FILES).glob("??/*"))

    def send(self, md5: str, path: Path) -> None:
        with atomic_path(self.root / FILES / md5[:2] / md5[2:]) as draft:
            shutil.copyfile(path, draft)


@dataclass(frozen=True)
class Store:
    objects: Prefix

    def holds(self) -> frozenset[str]:
        return frozenset(offer.name.replace("/", "") for offer in self.objects.offers())

    def send(self, md5: str, path: Path) -> None:
        self.objects.send(f"{md5[:2]}/{md5[2:]}", path)


def data_remote(settings: Settings) -> Remote | None:
    """This workspace's remote; None for a kind that DVC knows and we do not."""
    url = urlsplit(settings.remote_url)
    if url.scheme == "s3":
        prefix = f"{url.path.strip('/')}/{FILES}".lstrip("/")
        return Store(Prefix(object_store(settings), url.netloc, prefix))
    return None if "://" in settings.remote_url else Folder(Path(settings.remote_url))


def send_again(remote: Remote, files: dict[str, Path]) -> None:
    """Send files, given by MD5, after a look whether they still are what they are called; a folder's list last.

    Raises:
        DataError: one is not; it is not sent, nor are those after it.
    """
    for md5, path in sorted(files.items(), key=lambda item: (item[0].endswith(".dir"), item[0])):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5.partition(".")[0]:
            raise DataError(f"{md5[:12]}: damaged in the cache, and not in the remote; another clone may have it")
        remote.send(md5, path)
