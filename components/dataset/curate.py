"""Step: settle what is true of every image from everything that was ever said about it.

Adjudicated beats everything; then clinicians who agree; then the archive. What nobody settled stays unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.dataset.rows import as_of_pandas, write_rows
from components.dataset.store import catalog_table, framed, label_events
from components.errors import DataError
from components.params import Curate
from components.radiograph.labels import to_value

Event = dict[Any, Any]  # a row of the label log, see LABEL_SCHEMA
OWN = "own"  # boxes of a kind of event: the ones that each event of it drew
SAID = ("event_id", "image_id", "time", "label", "boxes", "reader", "provenance", "ai_visible")  # of LABEL_SCHEMA
SETTLED = {  # the columns of a Truth
    "label": pa.float64(), "boxes": pa.string(), "label_provenance": pa.string(),
    "ai_visible": pa.bool_(), "readers": pa.int64(),
}  # fmt: skip


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
    table = catalog_table(catalog)
    if not table.num_rows:
        raise DataError(f"{catalog}: no images; run `osteoflow intake SOURCE` or `dvc pull`")
    events = label_events(labels, SAID).drop_duplicates("event_id")
    several = events["image_id"].duplicated(keep=False)
    kinds, kind_of, boxes_of = _spoken_once(events[~several], params)
    disputed = _spoken_often(events[several], params)
    truths = [Truth(), *kinds, *disputed.values()]
    number_of = pd.concat([kind_of + 1, pd.Series(range(len(kinds) + 1, len(truths)), disputed.keys(), dtype="int64")])
    images = table.column("image_id").to_pandas()
    number = pa.array(number_of.reindex(images, fill_value=0).to_numpy())
    for name, kind in SETTLED.items():
        values = pa.array([getattr(truth, name) for truth in truths], kind).take(number)
        if name == "boxes":
            own = pa.array(boxes_of.reindex(images).to_numpy(dtype=object), kind, from_pandas=True)
            values = pc.if_else(pc.equal(values, OWN), own, values)
        table = table.append_column(name, values)
    write_rows(cases, as_of_pandas(table, framed))


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
