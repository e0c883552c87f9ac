"""A private folder for what comes from other machines: fetched whole and checked, taken in, then removed.

A fetch that is killed goes on with what it has. What landed is remembered as keyed hashes, so that nothing is fetched
twice and the record names nobody. An object that cannot be had is an item too: one that says why it cannot be read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Protocol

from components.dataset.store import atomic_path
from components.dataset.tree import State
from components.errors import DataError, UnreadableImage
from components.radiograph.deidentify import Pseudonyms

log = logging.getLogger("osteoflow.fetch")

FILES = "files"
INDEX = ".osteoflow-spool.json"
# Small files that speak about the others: without them what is new could not be understood.
TABLES = (".csv", ".json", ".yaml", ".yml")
PICTURES, NOTES = (".png", ".jpg", ".jpeg", ".tif", ".tiff"), (".txt",)  # a picture, and boxes in a file of its stem
MAX_NAME, MAX_PART = 1000, 200  # characters of a path, bytes of one of its parts


@dataclass(frozen=True)
class Offer:
    """One object of a remote.

    Attributes:
        key: what it is there, with its version: another content has another key.
        name: a relative path for it. size: bytes, None where the remote does not say.
    """

    key: str
    name: str
    size: int | None = None


class Remote(Protocol):
    """A place on another machine."""

    @property
    def name(self) -> str:
        """What it is, the same every time: the record of what landed goes by it."""

    @property
    def parallel(self) -> int:
        """How many objects may be fetched at once."""

    def offers(self) -> Iterable[Offer]:
        """Everything that is there; raises Unavailable or ConfigError."""

    def fetch(self, offer: Offer, target: Path, part: Path) -> None:
        """Write the object to `target`, whole and verified; `part` may hold its beginning from an earlier attempt.

        Raises Unobtainable for this object alone, Unavailable when the service is down.
        """

    def intact(self, offer: Offer, target: Path) -> bool:
        """Whether `target` still is what `fetch` wrote."""


class Unobtainable(UnreadableImage):
    """One object that a remote offered and does not give; the rest lands. reason: a code for tables and counts."""


@dataclass(frozen=True)
class Nothing:
    """The file that an object would be which could not be fetched."""

    reason: str
    name: str = ""

    def size(self) -> int:
        raise UnreadableImage("it could not be fetched", reason=self.reason)

    def data(self) -> bytes:
        raise UnreadableImage("it could not be fetched", reason=self.reason)

    def head(self) -> bytes:
        raise UnreadableImage("it could not be fetched", reason=self.reason)

    def sha256(self) -> str:
        raise UnreadableImage("it could not be fetched", reason=self.reason)

    def stamp(self) -> str:
        return self.reason

    def state(self) -> State:
        raise UnreadableImage("it could not be fetched", reason=self.reason)


@dataclass
class Fetched:
    """A door to another machine: bring what is new into `folder`, and forget the files once they have landed.

    Attributes:
        folder: of this remote alone; owner-only.
        taken: the record of what landed before.
        labels: a labels.csv to lay beside the files, or None.
        may_be_empty: nothing new is no failure.
    """

    remote: Remote
    folder: Path
    taken: Path
    pseudonyms: Pseudonyms
    labels: Path | None = None
    may_be_empty: bool = True
    fresh: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """What intake opens."""
        return self.folder

    def bring(self) -> str:
        """Fetch what has not landed yet; return in a few words what is there.

        Raises:
            DataError: nothing is there, or it does not fit on the disk.
            Unavailable, ConfigError: as the remote says.
        """
        known = set(self.taken.read_text(encoding="ascii").split()) if self.taken.exists() else set()
        offers = {self._record(offer): offer for offer in self.remote.offers()}
        if not offers:
            raise DataError("source: nothing is there; check the bucket and prefix, or the filters of the query")
        new = {record for record in offers if record not in known}
        wanted = _with_companions(offers, new)
        private(self.folder)
        private(self.folder / FILES)
        places = _places(self.folder / FILES, [offers[record] for record in wanted])
        self._sweep(set(places.values()))
        self._room([(offers[record], places[offers[record].name]) for record in wanted])
        lost: dict[str, str | None] = {}
        with ThreadPoolExecutor(self.remote.parallel) as pool:
            for record, reason in zip(
                wanted, pool.map(partial(self._one, places), [offers[record] for record in wanted]), strict=True
            ):
                lost[record] = reason
                if len(lost) % 50 == 0:
                    log.info("fetched %d of %d", len(lost), len(wanted))
        if self.labels:
            _lay(self.labels, self.folder / FILES / "labels.csv")
        self.fresh = sorted(record for record in new if not lost.get(record))
        with atomic_path(self.folder / INDEX) as draft:
            draft.write_text(json.dumps({"lost": [reason for reason in lost.values() if reason]}), encoding="ascii")
        return f"{len(offers)} there, {len(offers) - len(new)} of them not fetched again"

    def landed(self) -> None:
        """Remember what was brought and remove the files. Killed before, the next run brings nothing twice."""
        if self.fresh:
            private(self.taken.parent)
            with self.taken.open("a", encoding="ascii") as record:
                record.write("\n".join(["", *self.fresh, ""]))
                record.flush()
                os.fsync(record.fileno())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self, offer: Offer) -> str:
        return self.pseudonyms.of("object", f"{self.remote.name}\n{offer.key}")

    def _one(self, places: dict[str, Path], offer: Offer) -> str | None:
        """Fetch one object; return why it could not be had, or None."""
        target = places[offer.name]
        if target.is_file() and self.remote.intact(offer, target):
            return None
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self.folder / "parts" / sha256(offer.key.encode()).hexdigest()[:40]
        part.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            self.remote.fetch(offer, target, part)
        except Unobtainable as error:
            target.unlink(missing_ok=True)
            return error.reason
        except OSError as error:
            raise DataError(f"source: cannot write what was fetched: {error.strerror}") from None
        return None

    def _sweep(self, wanted: set[Path]) -> None:
        """Remove files of an interrupted fetch that are not wanted any more."""
        for path in (self.folder / FILES).rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()

    def _room(self, coming: list[tuple[Offer, Path]]) -> None:
        needed = sum(offer.size or 0 for offer, target in coming if not target.exists())
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"source: {needed >> 20} MB are new and {free >> 20} MB are free; make room, or name a part"
            )


def private(folder: Path) -> None:
    """Make `folder`, for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def is_spool(path: Path) -> bool:
    """Whether `path` is a folder that `Fetched` or the inbox filled."""
    return (path / INDEX).is_file()


def lost(path: Path) -> list[Nothing]:
    """What could not be fetched into the spool at `path`."""
    if not is_spool(path):
        return []
    try:
        return [Nothing(str(reason)) for reason in json.loads((path / INDEX).read_text(encoding="ascii"))["lost"]]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"source: {INDEX} in it is not ours; remove that file") from None


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """`write` into a file beside `target`, which becomes `target`: it is there whole or not at all."""
    with atomic_path(target) as draft:
        write(draft)


def _with_companions(offers: dict[str, Offer], new: set[str]) -> list[str]:
    """What to fetch for `new`: itself, every table, and a picture's notes for the picture, and back."""
    if not new:
        return []
    paths = {record: PurePosixPath(offer.name) for record, offer in offers.items()}
    pictures = {paths[record].stem for record in new if paths[record].suffix.lower() in PICTURES}
    notes = {paths[record].stem for record in new if paths[record].suffix.lower() in NOTES}
    return [
        record
        for record, path in paths.items()
        if record in new
        or (suffix := path.suffix.lower()) in TABLES
        or (suffix in NOTES and path.stem in pictures)
        or (suffix in PICTURES and path.stem in notes)
    ]


def _places(folder: Path, offers: list[Offer]) -> dict[str, Path]:
    """A path below `folder` for every name; a name that leads elsewhere, or is in the way of another, is hashed."""
    names = {offer.name for offer in offers}
    parents = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    places = {}
    for name in names:
        parts = name.split("/")
        fine = all(part not in ("", ".", "..") and len(part.encode()) <= MAX_PART for part in parts)
        if fine and len(name) <= MAX_NAME and "\0" not in name and name not in parents:
            places[name] = folder / name
        else:
            suffix = PurePosixPath(name).suffix[:8] if fine else ""
            places[name] = folder / f"renamed-{sha256(name.encode()).hexdigest()[:40]}{suffix}"
    return places


def _lay(table: Path, target: Path) -> None:
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"labels: the file cannot be read: {error.strerror}") from None
    private(target.parent)
    write_whole(target, lambda draft: draft.write_bytes(data))
