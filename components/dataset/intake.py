"""Effect: take new radiographs in. De-identified pixels go into new shards, what was said about them into label events,
what cannot be used into quarantine; nothing that stands is touched.

Shard by shard: the labels of a shard, then its images. Killed anywhere, the same command goes on with the next
shard of the same batch, and ends where one undisturbed run would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components import params
from components.dataset.items import Item, Source, Statement
from components.dataset.quarantine import Refusal, quarantined
from components.dataset.sources import open_source
from components.dataset.store import (
    Packed,
    catalog,
    label_events,
    next_batch,
    shards,
    sweep,
    write_images,
    write_labels,
)
from components.dataset.workers import ordered
from components.errors import MissingPatient, UnreadableImage
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.labels import UNKNOWN, LabelEvent

MISSING_PATIENT = "missing_patient_id"
UNCOMPRESSED = 4  # bytes a pixel at most; a larger file than that is refused before it is read


class Batch(BaseModel):
    """What one run of intake did.

    Attributes:
        batch: running number and a keyed hash of what was offered.
        duplicates: images that were in the archive already, by identity or by pixels.
        refused: by reason. refused_by_label: the same, by what the source said they show: refusals are rarely random.
        labels: of the added images, as the source states them.
        disagreements: images about which the source contradicts itself; their label is unknown.
        label_events: that were new.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: str
    added: int
    duplicates: int
    refused: dict[str, int]
    refused_by_label: dict[str, int]
    labels: dict[str, int]
    sites: dict[str, int]
    disagreements: int
    label_events: int

    def message(self) -> str:
        """The subject and body of the commit that versions this batch."""
        lines = [
            f"Take in {self.added} radiographs ({self.batch})",
            "",
            f"labels: {_listed(self.labels)}; sites: {_listed(self.sites)}",
            f"already here: {self.duplicates}; refused: {_listed(self.refused)}",
            f"refused by label: {_listed(self.refused_by_label)}; source contradicts itself: {self.disagreements}",
            f"label events: {self.label_events}",
        ]
        return "\n".join(lines)


def intake(
    *,
    source: Path,
    studies: Path,
    labels: Path,
    quarantine: Path,
    pseudonyms: Pseudonyms,
    params: params.Intake,
    now: datetime,
    progress: Callable[[int, int], None] | None = None,
) -> Batch:
    """Append what is new in `source` to the archive.

    Args:
        source: folder or zip of DICOM files (with an optional labels.csv), or a folder in FracAtlas's layout.
        quarantine: refused files, named by their hash.
        now: the time of the label events, UTC.
        progress: called with (files done, files in all).

    Raises:
        DataError: nothing to take in, or no disk space; what was written before stands and counts.
        UnknownLabel: the source uses a label outside the vocabulary; nothing was written.
    """
    offer = open_source(source, pseudonyms, weak_block=params.weak_block)
    for folder in (studies, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (studies, labels, quarantine):
        sweep(folder)
    batch = _batch(studies, labels, offer, pseudonyms)
    run = _Run(offer, studies, labels, quarantine, batch, params.shard_mb * 1_000_000, now)
    door = _Door(pseudonyms, params.max_megapixels, frozenset(run.ids))
    for done, outcome in enumerate(ordered(_look, door, offer.items, images=len(offer.items)), start=1):
        run.take(outcome)
        if progress:
            progress(done, len(offer.items))
    return run.finish()


@dataclass(frozen=True)
class _Door:
    """What it takes to look at a file. known: image_ids that are in the archive and need no decoding."""

    pseudonyms: Pseudonyms
    max_megapixels: int
    known: frozenset[str]


@dataclass(frozen=True)
class _Outcome:
    """What became of one file: an image, an image_id that is known already, or a refusal."""

    image_id: str | None
    image: Packed | None = None
    refusal: Refusal | None = None


def _look(door: _Door, item: Item) -> _Outcome:
    """Read one file (in any process)."""
    data, image_id = b"", None
    try:
        if item.size() > door.max_megapixels * 1_000_000 * UNCOMPRESSED:
            raise UnreadableImage("the file is larger than any image allowed", reason="too_large")
        data = _bytes(item)
        image_id = item.image_id(data, door.pseudonyms)
        if image_id in door.known:
            return _Outcome(image_id)
        image = item.read(data, door.pseudonyms, max_megapixels=door.max_megapixels)
        return _Outcome(image_id, Packed.of(image))
    except UnreadableImage as error:
        return _Outcome(image_id, refusal=Refusal(error.reason, data))
    except MissingPatient:
        return _Outcome(image_id, refusal=Refusal(MISSING_PATIENT, data))
    except ValidationError:  # described in values that no radiograph has
        return _Outcome(image_id, refusal=Refusal("undecodable", data))


def _bytes(item: Item) -> bytes:
    try:
        return item.data()
    except Exception as error:  # noqa: BLE001  (a damaged or encrypted archive may raise anything)
        raise UnreadableImage(f"the file cannot be read ({type(error).__name__})", reason="unreadable") from None


def _batch(studies: Path, labels: Path, offer: Source, pseudonyms: Pseudonyms) -> str:
    """The batch this source is: the newest one when that holds the same (then it goes on), else the next."""
    content = pseudonyms.of("batch", "\n".join(offer.names) or offer.reader)
    name = max(next_batch(studies, content), next_batch(labels, content))
    newest = max(
        (path.name[: len(name)] for path in [*shards(studies), *shards(labels)] if path.name[0].isdigit()), default=""
    )
    return newest if newest[7:] == name[7:] else name


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


class _Run:
    """The state of one run: what waits for the next shard, and what is counted."""

    def __init__(
        self, offer: Source, studies: Path, labels: Path, quarantine: Path, batch: str, shard_bytes: int, now: datetime
    ) -> None:
        self.offer, self.studies, self.labels, self.quarantine = offer, studies, labels, quarantine
        self.batch, self.shard_bytes, self.now = batch, shard_bytes, now
        standing = catalog(studies)
        self.ids: set[str] = set(standing["image_id"])
        self.by_pixels: dict[str, str] = dict(zip(standing["pixel_sha256"], standing["image_id"], strict=True))
        self.before = len(label_events(labels))
        self.waiting: list[Packed] = []
        self.events: list[LabelEvent] = []
        self.refusals: list[Refusal] = []
        self.silent = set(offer.statements)  # images that were spoken about but have not been seen
        self.counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("refused", "refused_by_label", "labels", "sites")
        }
        self.added = self.duplicates = self.weight = 0

    def take(self, outcome: _Outcome) -> None:
        """Sort one outcome in; write a shard when enough has gathered."""
        said = self.offer.statements.get(outcome.image_id or "")
        self.silent.discard(outcome.image_id or "")
        if outcome.refusal:
            self.refusals.append(outcome.refusal)
            self.counts["refused"][outcome.refusal.reason] += 1
            self.counts["refused_by_label"][said.label if said else UNKNOWN] += 1
            return
        image, image_id = outcome.image, outcome.image_id or ""
        if image is None or image_id in self.ids:
            self.duplicates += 1
            self._hear(image_id, said, self.offer.reader)
        elif twin := self.by_pixels.get(image.pixel_sha256):
            # The same picture under another name: what is said about it is another voice about the first.
            self.duplicates += 1
            self._hear(twin, said, f"{self.offer.reader}/{image_id}")
        else:
            self._add(image, said)

    def _add(self, image: Packed, said: Statement | None) -> None:
        self.ids.add(image.meta.image_id)
        self.by_pixels[image.pixel_sha256] = image.meta.image_id
        self.waiting.append(image)
        self.added += 1
        self.counts["labels"][said.label if said else UNKNOWN] += 1
        self.counts["sites"][image.meta.site] += 1
        self._hear(image.meta.image_id, said, self.offer.reader)
        self.weight += len(image.pixels)
        if self.weight >= self.shard_bytes:
            self.flush()

    def _hear(self, image_id: str, said: Statement | None, reader: str) -> None:
        if said:
            self.events.append(
                LabelEvent.new(
                    image_id=image_id,
                    time=self.now.isoformat(),
                    label=said.label,
                    boxes=said.boxes,
                    reader=reader,
                    provenance="archive",
                )
            )

    def flush(self) -> None:
        """Write what waits: refusals, labels, then images, whose presence says that all of it is there."""
        quarantined(self.quarantine, self.refusals, batch=self.batch)
        number = sum(path.stem.startswith(f"{self.batch}-") for path in shards(self.labels))
        write_labels(self.labels, self.events, batch=f"{self.batch}-{number:04d}")
        write_images(self.studies, self.waiting, batch=self.batch, shard_bytes=self.shard_bytes)
        self.refusals, self.events, self.waiting, self.weight = [], [], [], 0

    def finish(self) -> Batch:
        """Write the rest, with what was said about images that are not in the source, and report."""
        for image_id in sorted(self.silent):
            self._hear(image_id, self.offer.statements[image_id], self.offer.reader)
        self.flush()
        counts = {name: dict(sorted(counter.items())) for name, counter in self.counts.items()}
        return Batch(
            batch=self.batch,
            added=self.added,
            duplicates=self.duplicates,
            refused=counts["refused"],
            refused_by_label=counts["refused_by_label"],
            labels=counts["labels"],
            sites=counts["sites"],
            disagreements=self.offer.disagreements,
            label_events=len(label_events(self.labels)) - self.before,
        )
