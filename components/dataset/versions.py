"""What changed between two versions of the archive: from the shards that one has and the other lacks, never pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components import params
from components.dataset.curate import settle
from components.errors import DataError

IMAGE_COLUMNS = ["image_id", "site", "body_region"]
UNSTATED = "not stated"
TRUTHS = {1.0: "fracture", 0.0: "no fracture", None: "unknown"}
Shards = Mapping[str, Path]  # content hash -> where the bytes are


class Change(BaseModel):
    """What the later version has more than the earlier one.

    Attributes:
        images: added, and by site, body region and settled label.
        gone: shards that the later version no longer names; the archive only grows, so that this is a step back.
        withdrawn: patients; their images stay in both versions, and builds of the later one leave them out.
        truths: images of the earlier version whose settled label changed, as `from -> to`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    sites: dict[str, int]
    regions: dict[str, int]
    labels: dict[str, int]
    shards: int
    gone: int
    events: dict[str, int]
    truths: dict[str, int]
    withdrawn: int = 0

    def text(self) -> str:
        """The difference in a few lines, for a person."""
        lines = [
            f"images added: {self.images} in {self.shards} shard(s)",
            f"  by site: {_listed(self.sites)}",
            f"  by region: {_listed(self.regions)}",
            f"  by settled label: {_listed(self.labels)}",
            f"label events: {_listed(self.events)}",
            f"settled labels that changed: {_listed(self.truths)}",
        ]
        if self.withdrawn:
            lines.append(f"patients withdrawn: {self.withdrawn}; builds of the second leave their images out")
        if self.gone:
            lines.append(f"{self.gone} shard(s) of the first are not in the second: is the order of the two right?")
        return "\n".join(lines)


def compare(*, catalog: tuple[Shards, Shards], labels: tuple[Shards, Shards], settling: params.Curate) -> Change:
    """The difference between an earlier and a later version, each given as its shards.

    Raises:
        DataError: a shard cannot be read.
        UnknownLabel: an event says something outside the vocabulary.
    """
    fresh = catalog[1].keys() - catalog[0].keys()
    added = _read([catalog[1][name] for name in sorted(fresh)], IMAGE_COLUMNS)
    said = _read([labels[1][name] for name in sorted(labels[1].keys() - labels[0].keys())])
    before, after = (
        _truths(list(side.values()), set(added["image_id"]) | set(said["image_id"]), settling) for side in labels
    )
    newcomers = set(added["image_id"])
    turned = Counter(
        f"{TRUTHS[before.get(who)]} -> {TRUTHS[label]}"
        for who, label in after.items()
        if who not in newcomers and before.get(who) != label
    )
    return Change(
        images=len(added),
        sites=_counted(added["site"]),
        regions=_counted(added["body_region"]),
        labels=dict(sorted(Counter(TRUTHS[after.get(who)] for who in newcomers).items())),
        shards=len(fresh),
        gone=len(catalog[0].keys() - catalog[1].keys()) + len(labels[0].keys() - labels[1].keys()),
        events=_counted(said["provenance"]),
        truths=dict(sorted(turned.items())),
    )


def _truths(paths: list[Path], images: set[str], settling: params.Curate) -> dict[str, float | None]:
    """The settled label of the named images, as these label shards have it."""
    events = _read(paths)
    events = events[events["image_id"].isin(images)].drop_duplicates("event_id").sort_values(["time", "event_id"])
    return {
        str(who): settle(about.to_dict("records"), settling).label
        for who, about in events.groupby("image_id", sort=False)
    }


def _read(paths: list[Path], columns: list[str] | None = None) -> pd.DataFrame:
    frames = []
    for path in paths:
        try:
            # By handle: an object of the cache carries no suffix, and only the columns asked for are read.
            with path.open("rb") as file:
                frames.append(pq.ParquetFile(file).read(columns=columns).to_pandas())
        except (OSError, ValueError) as error:
            raise DataError(f"{path.name}: not a readable shard ({type(error).__name__}); see `dvc fetch`") from None
    empty: list[str] = columns or [
        "event_id",
        "image_id",
        "time",
        "label",
        "boxes",
        "reader",
        "provenance",
        "ai_visible",
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=empty)


def _counted(values: Any) -> dict[str, int]:
    counts = pd.Series(values, dtype="object").fillna(UNSTATED).value_counts()
    return {str(name): int(count) for name, count in sorted(counts.items())}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
