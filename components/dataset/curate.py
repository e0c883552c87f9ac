"""Step: settle what is true of every image from everything that was ever said about it.

Adjudicated beats everything; then clinicians who agree; then the archive. What nobody settled stays unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.dataset.store import atomic_path, catalog, label_events
from components.errors import DataError
from components.params import Curate
from components.radiograph.labels import to_value


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
    # The same time twice: the id decides, so that the order of shards does not.
    events = events.drop_duplicates("event_id").sort_values(["time", "event_id"], kind="stable")
    settled = {image_id: settle(said, params) for image_id, said in events.groupby("image_id")}
    truths = [settled.get(image_id, Truth()) for image_id in table["image_id"]]
    table["label"] = pd.Series([truth.label for truth in truths], dtype="float64")
    for column in ("boxes", "label_provenance", "ai_visible", "readers"):
        table[column] = [getattr(truth, column) for truth in truths]
    with atomic_path(cases) as draft:
        table.to_parquet(draft, index=False)


def settle(events: pd.DataFrame, params: Curate) -> Truth:
    """What the events of one image, oldest first, amount to.

    A reader's newest word counts. Archives that contradict each other (one picture filed twice, with opposite
    labels) settle nothing.
    """
    judged = events[events["provenance"] == "adjudicated"]
    if len(judged):
        return _truth(judged.tail(1), "adjudicated", readers=len(set(str(judged["reader"].iloc[-1]).split("+"))))
    clinicians = _newest_words(events[events["provenance"] == "clinician"])
    votes = clinicians["label"].value_counts()
    if len(votes) and votes.iloc[0] >= params.min_readers and (len(votes) == 1 or votes.iloc[0] > votes.iloc[1]):
        return _truth(clinicians[clinicians["label"] == votes.index[0]], "clinician", readers=int(votes.iloc[0]))
    filed = _newest_words(events[events["provenance"].isin(["archive", "report"])])
    if filed["label"].nunique() == 1:
        return _truth(filed, str(filed["provenance"].iloc[-1]), readers=0)
    return Truth()


def _newest_words(events: pd.DataFrame) -> pd.DataFrame:
    return events.drop_duplicates("reader", keep="last")


def _truth(agreeing: pd.DataFrame, provenance: str, *, readers: int) -> Truth:
    """The label these events agree on; boxes are the newest that were drawn. One reader who saw the AI taints all."""
    drawn = agreeing[agreeing["boxes"] != "[]"]
    label = to_value(str(agreeing["label"].iloc[-1]))
    return Truth(
        label=label,
        boxes=str(drawn["boxes"].iloc[-1]) if len(drawn) and label else "[]",
        label_provenance=None if label is None else provenance,
        ai_visible=bool(agreeing["ai_visible"].any()),
        readers=readers,
    )
