"""What arrives: one file after another becomes an image, a duplicate or a refusal, and shards are written as they fill.

The labels of a shard are written before its images: an image in the archive says that everything about it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq
from pydantic import ValidationError

from components.dataset.items import Item, Source, Statement
from components.dataset.quarantine import Entry, Refusal, entry, quarantined
from components.dataset.store import Packed, count_events, read_catalog, shards, write_images, write_labels
from components.dataset.tree import State
from components.dataset.workers import Bounds, Lost, bounded
from components.errors import MissingPatient, UnreadableImage
from components.radiograph.burned_in import Policy, clean, overlaps
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.labels import UNKNOWN, LabelEvent

T = TypeVar("T")

MISSING_PATIENT = "missing_patient_id"
UNCOMPRESSED = 4  # bytes a pixel at most; a larger file than that is refused before it is read


@dataclass(frozen=True)
class Door:
    """What it takes to look at a file. known: image_ids that are in the archive and need no decoding."""

    pseudonyms: Pseudonyms
    max_megapixels: int
    known: frozenset[str]
    burned_in: Policy


@dataclass(frozen=True)
class Outcome:
    """What became of one file: an image, an image_id that is known already, or a refusal."""

    image_id: str | None
    image: Packed | None = None
    refusal: Refusal | None = None


def looked(door: Door, items: list[Item], bounds: Bounds) -> Iterator[Outcome]:
    """Look at every item, in order, in processes that may be lost; a file that breaks its bounds is refused.

    It is looked at once more, but only to keep it; what cannot even be read is listed all the same.
    """
    for seen in bounded(look, door, items, bounds, rescue=keep):
        yield Outcome(None, refusal=Refusal(seen.reason)) if isinstance(seen, Lost) else seen


def look(door: Door, item: Item) -> Outcome:
    """Read one file (in any process)."""
    data, image_id = b"", None
    try:
        if _too_large(door, item):
            return keep(door, item, "too_large")
        before = _readable(item.file.state)
        data = _bytes(item)
        if not data:
            return Outcome(None, refusal=Refusal("empty", digest=sha256().hexdigest()))
        image_id = item.image_id(data, door.pseudonyms)
        if image_id in door.known:
            return Outcome(image_id)
        image = item.read(data, door.pseudonyms, max_megapixels=door.max_megapixels)
        image = clean(image, door.burned_in)
        # Times of change tick every few milliseconds: within one tick half of another file may have been read.
        if _changed(item, before):
            return Outcome(image_id, refusal=Refusal("changed"))
        return Outcome(image_id, Packed.of(image))
    except UnreadableImage as error:
        return Outcome(image_id, refusal=Refusal(error.reason, data))
    except MissingPatient:
        return Outcome(image_id, refusal=Refusal(MISSING_PATIENT, data))
    except ValidationError:  # described in values that no radiograph has
        return Outcome(image_id, refusal=Refusal("undecodable", data))


def keep(door: Door, item: Item, reason: str) -> Outcome:
    """A refusal of `item`: its bytes, or no more than its hash where it is too large to copy."""
    try:
        if _too_large(door, item):
            return Outcome(None, refusal=Refusal(reason, digest=_readable(item.file.sha256)))
        data = _bytes(item)
        return Outcome(item.image_id(data, door.pseudonyms), refusal=Refusal(reason, data))
    except (UnreadableImage, OSError):
        return Outcome(None, refusal=Refusal(reason))


def _too_large(door: Door, item: Item) -> bool:
    try:
        return item.file.size() > door.max_megapixels * 1_000_000 * UNCOMPRESSED
    except OSError:
        return False  # gone: reading it says so


def _changed(item: Item, before: State) -> bool:
    try:
        return item.file.state() != before
    except OSError:
        return False  # gone since: it was read whole


def _bytes(item: Item) -> bytes:
    return _readable(item.file.data)


def _readable(read: Callable[[], T]) -> T:
    try:
        return read()
    except (MemoryError, UnreadableImage):
        raise
    except FileNotFoundError:
        raise UnreadableImage("the file is gone", reason="vanished") from None
    except Exception as error:  # noqa: BLE001  (a damaged or encrypted archive may raise anything)
        raise UnreadableImage(f"the file cannot be read ({type(error).__name__})", reason="unreadable") from None


class Arrivals:
    """The state of one run: what waits for the next shard, and what is counted."""

    def __init__(
        self,
        offer: Source,
        studies: Path,
        labels: Path,
        catalog: Path,
        quarantine: Path,
        batch: str,
        shard_bytes: int,
        time: str,
        unfinished: frozenset[Path] = frozenset(),
        apart: Callable[[str], bool] | None = None,
    ) -> None:
        self.offer, self.studies, self.labels, self.quarantine = offer, studies, labels, quarantine
        self.batch, self.shard_bytes, self.time = batch, shard_bytes, time
        standing = read_catalog(catalog, columns=["image_id", "pixel_sha256", "masked", "site"])
        standing = standing[standing["shard"].isin([path.stem for path in shards(studies)])]
        self.ids: set[str] = set(standing["image_id"])
        self.by_pixels: dict[str, str] = dict(zip(standing["pixel_sha256"], standing["image_id"], strict=True))
        self.masked: dict[str, str | None] = dict(zip(standing["image_id"], standing["masked"], strict=True))
        # What a run of this batch brought that was killed before it had told: it counts as brought now.
        begun = {path for path in unfinished if path.stem.startswith(f"{batch}-")}
        mine = standing[standing["shard"].isin([path.stem for path in begun if path.parent == studies])]
        self.begun: dict[str, str] = dict(zip(mine["image_id"], mine["site"], strict=True))
        self.before = count_events(labels) - sum(
            pq.read_metadata(path).num_rows for path in begun if path.parent == labels
        )
        self.apart = apart
        self.waiting: dict[bool, list[Packed]] = {False: [], True: []}  # for the next shard; True: kept apart
        self.weight = {False: 0, True: 0}
        self.events: list[LabelEvent] = []
        self.refusals: list[tuple[Entry, bytes]] = []
        self.silent = set(offer.statements)  # images that were spoken about but have not been seen
        self.counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("refused", "refused_by_label", "labels", "sites")
        }
        self.added = self.duplicates = self.copies = 0

    def take(self, outcome: Outcome) -> None:
        """Sort one outcome in; write a shard when enough has gathered."""
        said = self.offer.statements.get(outcome.image_id or "")
        self.silent.discard(outcome.image_id or "")
        if outcome.refusal:
            label = said.label if said else UNKNOWN
            line = entry(
                outcome.refusal,
                image_id=outcome.image_id,
                label=label,
                batch=self.batch,
                time=self.time,
            )
            self.refusals.append(line)
            self.counts["refused"][outcome.refusal.reason] += 1
            self.counts["refused_by_label"][label] += 1
            return
        image, image_id = outcome.image, outcome.image_id or ""
        if image is None or image_id in self.ids:
            if image_id in self.begun:
                self._count(self.begun.pop(image_id), said)
            else:
                self.duplicates += 1
            self._hear(image_id, said, self.offer.reader)
        elif twin := self.by_pixels.get(image.pixel_sha256):
            # The same picture under another name: what is said about it is another voice about the first.
            self.duplicates += 1
            self.copies += 1
            self._hear(twin, said, f"{self.offer.reader}/{image_id}")
        else:
            self._add(image, said)

    def _add(self, image: Packed, said: Statement | None) -> None:
        self.ids.add(image.meta.image_id)
        self.by_pixels[image.pixel_sha256] = image.meta.image_id
        self.masked[image.meta.image_id] = image.meta.masked
        kind = self.apart is not None and self.apart(image.meta.patient_id)
        self.waiting[kind].append(image)
        self._count(image.meta.site, said)
        self._hear(image.meta.image_id, said, self.offer.reader)
        self.weight[kind] += len(image.pixels)
        if self.weight[kind] >= self.shard_bytes:
            self.flush(kind)

    def _count(self, site: str, said: Statement | None) -> None:
        self.added += 1
        self.counts["labels"][said.label if said else UNKNOWN] += 1
        self.counts["sites"][site] += 1

    def _hear(self, image_id: str, said: Statement | None, reader: str) -> None:
        if said and overlaps(self.masked.get(image_id), said.boxes):
            said = Statement()  # what it points at may have been painted over: nobody can learn it from this picture
        if said:
            self.events.append(
                LabelEvent.new(
                    image_id=image_id,
                    time=self.time,
                    label=said.label,
                    boxes=said.boxes,
                    reader=reader,
                    provenance="archive",
                )
            )

    def flush(self, kind: bool) -> None:
        """Write what waits: refusals, labels, then the images of one kind, whose presence says that all is there.

        Args:
            kind: True for those that are kept apart.
        """
        quarantined(self.quarantine, self.refusals)
        number = sum(path.stem.startswith(f"{self.batch}-") for path in shards(self.labels))
        write_labels(self.labels, self.events, batch=f"{self.batch}-{number:04d}")
        write_images(self.studies, self.waiting[kind], batch=self.batch, shard_bytes=self.shard_bytes)
        self.refusals, self.events, self.waiting[kind], self.weight[kind] = [], [], [], 0

    def finish(self) -> int:
        """Write the rest, with what was said about images that are not in the source; return the new label events."""
        for image_id in sorted(self.silent):
            self._hear(image_id, self.offer.statements[image_id], self.offer.reader)
        for kind in self.waiting:
            self.flush(kind)
        return count_events(self.labels) - self.before
