"""Step: measure how good every image is, shard by shard; only new shards cost."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from components.dataset.keys import key_of, write_keyed
from components.dataset.shards import Task, radiographs, refresh
from components.radiograph import appearance, likeness, quality
from components.radiograph.image import Radiograph
from components.radiograph.pitch import FINE, halved
from components.radiograph.quality import FEATURES, measure

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        *((name, pa.float64()) for name in FEATURES),
        ("polarity_ok", pa.bool_()),
        ("phash", pa.string()),  # 16 hex digits
        ("thumbnail", pa.binary()),  # SIDE x SIDE bytes
        ("appearance", pa.list_(pa.float32())),  # LENGTH numbers
    ]
)
Row = dict[str, object]


def inspect(*, catalog: Path, studies: Path, features: Path) -> None:
    """Write `features/<shard>.parquet`: image_id, FEATURES, polarity_ok, phash, thumbnail, appearance.

    Files of vanished shards go.

    Args:
        catalog: names the shards. studies: holds those that are new.

    Raises:
        DataError: no shards, a new one is missing or damaged, or no disk space.
    """
    refresh(catalog, studies, features, Features(), measured, None)


class Features:
    suffix = ".parquet"

    def __init__(self) -> None:
        self.version = sha256(b"".join(path.read_bytes() for path in measured_by())).hexdigest()[:12]

    def stands(self, path: Path) -> str | None:
        return key_of(path)

    def write(self, path: Path, parts: list[list[Row]], key: str) -> None:
        rows = [row for part in parts for row in part]
        write_keyed(path, pa.Table.from_pylist(rows, schema=SCHEMA), key)


def measured_by() -> list[Path]:
    """The files of the code that measures, with what it takes from its own room: other code, other numbers."""
    home = quality.__name__.rpartition(".")[0]
    rooms = (quality, likeness, appearance)
    used = [thing for room in rooms for thing in vars(room).values()]
    names = {getattr(thing, "__module__", None) or "" for thing in used}
    modules = {room.__name__ for room in rooms} | {name for name in names if name.startswith(f"{home}.")}
    return sorted(Path(str(sys.modules[name].__file__)) for name in modules)


def measured(_: None, task: Task) -> list[Row]:
    """The rows of one row group, by SCHEMA, in order (in any process)."""
    shard, group = task
    return [_row(image) for image in radiographs(shard, group)]


def _row(image: Radiograph) -> Row:
    fine = halved(image.pixels, FINE)
    small = likeness.thumbnail(fine).tobytes()
    looks = appearance.appearance(fine).tolist()
    return {"image_id": image.meta.image_id, "thumbnail": small, "appearance": looks} | _numbers(measure(image, fine))


def _numbers(measured: dict[str, float | int | bool | str | None]) -> Row:
    floats = {name: None if (value := measured[name]) is None else float(value) for name in FEATURES}
    return {**floats, "polarity_ok": measured["polarity_ok"], "phash": measured["phash"]}
