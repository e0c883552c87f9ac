"""Step: settle what is true of every image from everything that was ever said about it.

Adjudicated beats everything; then clinicians who agree; then the archive. What nobody settled stays unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.dataset.rows import write_rows
from components.dataset.store import label_events, read_catalog
from components.errors import DataError
from components.params import Curate
from components.radiograph.labels import to_value

Event = dict[Any, Any]  # a row of the label log, see LABEL_SCHEMA
OWN = "own"  # boxes of a kind of event: the ones that each event of it drew


@dataclass(frozen=True)
class Truth:
    """label: 1.0, 0.0 or None (unknown); boxes: JSON; readers: how many people stand behind it."""

    label: float | None = None
    boxes: str = "[]"
    label_provenance: str | None = None
    ai_visible: bool = False
    readers: int = 0


def curate(*, catalog: Path, labels: Path, cases: Path, params: Curate) -> None:
    """Write `cases`, a file a shard: the catalog plus label, boxes, label_provenance, ai_visible, readers.

    Label events of images that are not in the archive wait there; they are no error.

    Raises:
        DataError: the archive is empty.
        UnknownLabel: an event says something outside the vocabulary.
    """
    table = read_catalog(catalog)
    if table.empty:
        raise DataError(f"{catalog}: no images; run `osteoflow intake SOURCE` or `dvc pull`")
    events = label_events(labels).drop_duplicates("event_id")
    several = events["image_id"].duplicated(keep=False)
    kinds, kind_of, boxes_of = _spoken_once(events[~several], params)
    disputed = _spoken_often(events[several], params)
    truths = [Truth(), *kinds, *disputed.values()]
    number_of = pd.concat([kind_of + 1, pd.Series(range(len(kinds) + 1, len(truths)), disputed.keys(), dtype="int64")])
    number = number_of.reindex(table["image_id"], fill_value=0).to_numpy()
    own = boxes_of.reindex(table["image_id"]).to_numpy(dtype=object)
    for column in ("label", "boxes", "label_provenance", "ai_visible", "readers"):
        values = np.array([getattr(truth, column) for truth in truths], dtype=object)[number]
        if column == "boxes":
            values = np.where(values == OWN, own, values)
        table[column] = pd.Series(values.tolist(), dtype="float64") if column == "label" else values.tolist()
    write_rows(cases, table)


def _spoken_once(events: pd.DataFrame, params: Curate) -> tuple[list[Truth], pd.Series, pd.Series]:
    """Truths of images with one event each: that of each kind of event, with OWN for its boxes; kind and boxes by id.

    What one statement amounts to depends on few values, boxes aside; so much is settled once and not for every image.
    """
    stated = ["provenance", "label", "reader", "ai_visible"]
    kinds = [settle([kind | {"boxes": OWN}], params) for kind in events[stated].drop_duplicates().to_dict("records")]
    kind_of = events.groupby(stated, sort=False, dropna=False).ngroup()  # in order of appearance, too
    ids = events["image_id"]
    return kinds, pd.Series(kind_of.to_numpy(), ids), pd.Series(events["boxes"].to_numpy(), ids)


def _spoken_often(events: pd.DataFrame, params: Curate) -> dict[str, Truth]:
    """Truths of images with several events each, by image_id."""
    said: dict[str, list[Event]] = defaultdict(list)
    # The same time twice: the id decides, so that the order of shards does not.
    for event in events.sort_values(["time", "event_id"]).to_dict("records"):
        said[event["image_id"]].append(event)
    return {image_id: settle(about, params) for image_id, about in said.items()}


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
