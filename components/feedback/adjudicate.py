"""Effect: turn what readers agree on into label events, once, and mark the reads they rest on.

The shard is on disk before a read is marked. Killed between the two, the next run derives the same events from the
same reads, finds them there, and only marks.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.dataset.store import label_events, next_batch, write_labels
from components.feedback.corrections import Standing, standings
from components.params import Feedback
from components.promotion.ledger import Ledger
from components.radiograph.labels import FRACTURE, Box, LabelEvent
from components.serving.store import PredictionLog, Truth


class Adjudication(BaseModel):
    """What one run settled.

    `settled` cases got a truth (of them `overturned` against the AI's call); `disagreements` wait for an adjudicator,
    `waiting` for another reader; `events` were written now, in `batch` (None: nothing new).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settled: int
    overturned: int
    disagreements: int
    waiting: int
    events: int
    batch: str | None

    def message(self) -> str:
        """One line, as it stands in the history of the labels."""
        return (
            f"Settle {self.settled} corrected cases ({self.overturned} against the model); "
            f"{self.disagreements} disagree, {self.waiting} wait for a reader"
        )


def adjudicate(*, log: PredictionLog, labels: Path, params: Feedback, now: datetime) -> Adjudication:
    """Settle every case its readers agree on.

    Args:
        labels: folder of label shards; one shard is added when there is something new.
        now: when the cases count as settled.

    Raises:
        Unavailable: the prediction log does not answer; nothing was marked.
        DataError: the shard cannot be written; nothing was marked.
    """
    cases = standings(log, readers=params.readers)
    truths = log.truths([case.image_id for case in cases])
    stale = [case for case in cases if case.image_id in truths and truths[case.image_id].label == case.label]
    fresh = [case for case in cases if case.label is not None and case not in stale]
    events = {case.image_id: _event(case, params.readers) for case in fresh}
    batches, written = _write(labels, list(events.values()))
    for case in fresh:
        batch = batches[events[case.image_id].event_id]
        truth = Truth(
            image_id=case.image_id,
            time=now,
            label=events[case.image_id].label,
            ai_visible=not case.blinded,
            batch=batch,
        )
        log.settle([truth], [read.id for read in case.pending], batch=batch)
    for case in stale:
        if not case.disagree:  # another reader confirmed what stands; a contradiction stays on the list
            log.settle([], [read.id for read in case.pending], batch=truths[case.image_id].batch)
    open_cases = [case for case in cases if case.label is None]
    return Adjudication(
        settled=len(fresh),
        overturned=sum(case.overturns for case in fresh),
        disagreements=sum(case.disagree for case in [*open_cases, *stale]),
        waiting=sum(not case.disagree for case in open_cases),
        events=written,
        batch=max(batches.values(), default=None),
    )


def learned_since(ledger: Ledger, outcome: Adjudication, commit: str | None) -> int:
    """Record what was settled, and count the cases settled since a challenger was last judged.

    Args:
        commit: the data version that holds the new labels; None when there was nothing to version.

    Raises:
        LedgerCorrupt: the ledger is damaged.
    """
    known = {entry.body.get("batch") for entry in ledger.entries("feedback")}
    if outcome.batch is not None and outcome.batch not in known:
        ledger.append("feedback", outcome.model_dump() | {"commit": commit})
    entries = ledger.entries()
    judged = max((entry.seq for entry in entries if entry.kind == "decision"), default=-1)
    return sum(int(e.body.get("settled", 0)) for e in entries if e.kind == "feedback" and e.seq > judged)


def _event(case: Standing, readers: int) -> LabelEvent:
    """The label event of a settled case: the same for the same agreement, however late a further reader confirms it."""
    assert case.label is not None
    judged = any(read.adjudicator for read in case.reads)
    reads = case.reads if judged else case.reads[:readers]
    drawn = [read.boxes for read in reads if read.boxes and case.label == FRACTURE]
    return LabelEvent.new(
        image_id=case.image_id,
        time=reads[-1].time.isoformat(),
        label=case.label,
        boxes=tuple(Box(**box) for box in drawn[-1]) if drawn else (),
        reader="+".join(sorted({read.reader for read in reads})),
        provenance="adjudicated",
        ai_visible=not case.blinded,
    )


def _write(labels: Path, events: list[LabelEvent]) -> tuple[dict[str, str], int]:
    """Write what is not there yet; return the batch of each event, and how many were written."""
    table = label_events(labels)
    known = dict(zip(table["event_id"], table["batch"], strict=True))
    new = [event.event_id for event in events if event.event_id not in known]
    content = hashlib.sha256("/".join(sorted(new)).encode()).hexdigest()
    batch = next_batch(labels, content)
    write_labels(labels, events, batch=batch)
    return {event.event_id: known.get(event.event_id, batch) for event in events}, len(new)
