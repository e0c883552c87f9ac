"""Step: settle what is true of every image from everything that was ever said about it.

Adjudicated beats everything; then clinicians who agree; then the archive. What nobody settled stays unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from components.dataset.store import atomic_path, catalog, label_events
from components.errors import DataError
from components.params import Curate
from components.radiograph.labels import to_value

Event = dict[Any, Any]  # a row of the label log, see LABEL_SCHEMA


@dataclass(frozen=True)
class Truth:
    """label: 1.0, 0.0 or None (unknown); boxes: JSON; readers: how many people stand behind it."""

    label: float | None = None
    boxes: str = "[]"
    label_provenance: str | None = None
    ai_visible: bool = False
    readers: int = 0


def curate(*, studies: Path, labels: Path, cases: Path, params: Curate) -> None:
    """Write `cases`: the catalog, in order of arrival, plus label, boxes, label_provenance, ai_visible, readers.

    Label events of images that are not in the archive wait there; they are no error.

    Raises:
        DataError: the archive is empty.
        UnknownLabel: an event says something outside the vocabulary.
    """
    table = catalog(studies)
    if table.empty:
        raise DataError(f"{studies}: no images; run `osteoflow intake SOURCE` or `dvc pull`")
    events = label_events(labels)
    said: dict[str, list[Event]] = defaultdict(list)
    # The same time twice: the id decides, so that the order of shards does not.
    for event in events.drop_duplicates("event_id").sort_values(["time", "event_id"]).to_dict("records"):
        said[event["image_id"]].append(event)
    settled = {image_id: settle(about, params) for image_id, about in said.items()}
    truths = [settled.get(image_id, Truth()) for image_id in table["image_id"]]
    table["label"] = pd.Series([truth.label for truth in truths], dtype="float64")
    for column in ("boxes", "label_provenance", "ai_visible", "readers"):
        table[column] = [getattr(truth, column) for truth in truths]
    with atomic_path(cases) as draft:
        table.to_parquet(draft, index=False)


def settle(events: list[Event], params: Curate) -> Truth:
    """What the events of one image, oldest first, amount to.

    A reader's newest word counts. Archives that contradict each other (one picture filed twice, with opposite
    labels) settle nothing.
    """
    if judged := [event for event in events if event["provenance"] == "adjudicated"]:
        return _truth(judged[-1:], "adjudicated", readers=len(set(judged[-1]["reader"].split("+"))))
    clinicians = _newest_words(events, ("clinician",))
    votes = Counter(event["label"] for event in clinicians).most_common(2)
    if votes and votes[0][1] >= params.min_readers and (len(votes) == 1 or votes[0][1] > votes[1][1]):
        agreeing = [event for event in clinicians if event["label"] == votes[0][0]]
        return _truth(agreeing, "clinician", readers=len(agreeing))
    filed = _newest_words(events, ("archive", "report"))
    if len({event["label"] for event in filed}) == 1:
        return _truth(filed, filed[-1]["provenance"], readers=0)
    return Truth()


def _newest_words(events: list[Event], provenances: tuple[str, ...]) -> list[Event]:
    """The newest event of each reader, oldest reader first."""
    newest: dict[str, Event] = {}
    for event in events:
        if event["provenance"] in provenances:
            newest.pop(event["reader"], None)
            newest[event["reader"]] = event
    return list(newest.values())


def _truth(agreeing: list[Event], provenance: str, *, readers: int) -> Truth:
    """The label these events agree on; boxes are the newest that were drawn. One reader who saw the AI taints all."""
    drawn = [event["boxes"] for event in agreeing if event["boxes"] != "[]"]
    label = to_value(agreeing[-1]["label"])
    return Truth(
        label=label,
        boxes=drawn[-1] if drawn and label else "[]",
        label_provenance=None if label is None else provenance,
        ai_visible=any(event["ai_visible"] for event in agreeing),
        readers=readers,
    )
