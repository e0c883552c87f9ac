"""Effect: take new radiographs in. De-identified pixels go into new shards, what was said about them into label events,
what cannot be used into quarantine; nothing that stands is touched.

Shard by shard: the labels of a shard, then its images. Killed anywhere, the same command goes on with the next
shard of the same batch, and ends where one undisturbed run would have. Where another batch came in between, the rest
follows that one, under its number: sorting by name stays sorting by arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components import params
from components.dataset.arrivals import Arrivals, Door, looked
from components.dataset.batches import BatchRecord, Counts, counted
from components.dataset.items import Source
from components.dataset.quarantine import entries
from components.dataset.sources import open_source
from components.dataset.store import content_of, next_batch, shards, sweep, write_catalog
from components.dataset.workers import Bounds
from components.radiograph.deidentify import Pseudonyms


class Batch(BaseModel):
    """What one run of intake did.

    Attributes:
        batch: running number and a keyed hash of what was offered.
        duplicates: images that were in the archive already, by identity or by pixels.
        copies: those of them that came under another name, with the very pixels of another image.
        refused: by reason. refused_by_label: the same, by what the source said they show: refusals are rarely random.
        refused_first: by both, and only files that no other batch was refused for.
        labels: of the added images, as the source states them.
        disagreements: images about which the source contradicts itself; their label is unknown.
        label_events: that were new.
        passed_over: what lay in the source and is no file, by what it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: str
    added: int
    duplicates: int
    copies: int
    refused: dict[str, int]
    refused_by_label: dict[str, int]
    refused_first: Counts
    labels: dict[str, int]
    sites: dict[str, int]
    disagreements: int
    label_events: int
    passed_over: dict[str, int]

    def record(self) -> BatchRecord:
        """What a build cannot see of this batch."""
        return BatchRecord(
            batch=self.batch, refused=self.refused_first, copies=self.copies, disagreements=self.disagreements
        )

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
        if self.passed_over:
            lines.append(f"passed over, being no files: {_listed(self.passed_over)}")
        return "\n".join(lines)


def intake(
    *,
    source: Path,
    studies: Path,
    labels: Path,
    catalog: Path,
    quarantine: Path,
    pseudonyms: Pseudonyms,
    params: params.Intake,
    now: datetime,
    may_be_empty: bool = False,
    unfinished: frozenset[Path] = frozenset(),
    apart: Callable[[str], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Batch:
    """Append what is new in `source` to the archive.

    Args:
        source: folder or zip of DICOM files (with an optional labels.csv), or a folder in FracAtlas's layout.
        catalog: gets an entry for every shard, at the end; and first of all for those that a killed run left without
            one, because it tells what is in `studies`.
        quarantine: refused files, named by their hash.
        now: the time of what is said, UTC, where this batch was not begun before: else it keeps the time it began at.
        may_be_empty: an empty folder is an empty batch, not an error.
        unfinished: shards of runs that were killed before they had told; what this batch has in them counts as added.
        apart: says of a patient whether the images go into shards of their own. So a build that has to look at the
            sealed test images, and at no others, fetches no more.
        progress: called with (files done, files in all).

    Raises:
        DataError: nothing to take in, or no disk space; what was written before stands and counts.
        UnknownLabel: the source uses a label outside the vocabulary; nothing was written.
    """
    offer = open_source(source, pseudonyms, weak_block=params.weak_block, may_be_empty=may_be_empty)
    for folder in (studies, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (studies, labels, quarantine):
        sweep(folder)
    write_catalog(studies, catalog)
    batch = _batch(studies, labels, offer, pseudonyms)
    time = _began(labels, quarantine, batch) or now.isoformat()
    size = params.shard_mb * 1_000_000
    arrivals = Arrivals(offer, studies, labels, catalog, quarantine, batch, size, time, unfinished, apart)
    door = Door(pseudonyms, params.max_megapixels, frozenset(arrivals.ids), params.burned_in)
    bounds = Bounds(params.seconds_per_file, params.memory_mb)
    for done, outcome in enumerate(looked(door, offer.items, bounds), start=1):
        arrivals.take(outcome)
        if progress:
            progress(done, len(offer.items))
    events = arrivals.finish()
    write_catalog(studies, catalog)
    counts = {name: dict(sorted(counter.items())) for name, counter in arrivals.counts.items()}
    mine = [line for line in entries(quarantine) if content_of(line.batch) == content_of(batch)]
    first = counted((line.reason, line.label) for line in mine)
    return Batch(
        batch=batch,
        added=arrivals.added,
        duplicates=arrivals.duplicates,
        copies=arrivals.copies,
        refused=counts["refused"],
        refused_by_label=counts["refused_by_label"],
        refused_first=first,
        labels=counts["labels"],
        sites=counts["sites"],
        disagreements=offer.disagreements,
        label_events=events,
        passed_over=dict(sorted(offer.passed_over.items())),
    )


def _batch(studies: Path, labels: Path, offer: Source, pseudonyms: Pseudonyms) -> str:
    """The batch this source is: the newest one when that holds the same (then it goes on), else the next."""
    said = [f"{image_id} {statement!r}" for image_id, statement in sorted(offer.statements.items())]
    # What is said belongs to it: a corrected table over the same images is another batch, at another time.
    content = pseudonyms.of("batch", "\n".join([*offer.names, *said]) or offer.reader)
    name = max(next_batch(studies, content), next_batch(labels, content))
    newest = max(
        (path.name[: len(name)] for path in [*shards(studies), *shards(labels)] if path.name[0].isdigit()), default=""
    )
    return newest if content_of(newest) == content_of(name) else name


def _began(labels: Path, quarantine: Path, batch: str) -> str | None:
    """When what this batch holds was first offered, as its label events or refusals tell; None: never before."""
    times = {line.time for line in entries(quarantine) if content_of(line.batch) == content_of(batch)}
    for path in shards(labels):
        if content_of(path.stem).startswith(content_of(batch)):
            times.update(pq.read_table(path, columns=["time"])[0].to_pylist())
    return min(times, default=None)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
