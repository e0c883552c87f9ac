"""What only intake can know about a batch, kept in git beside the pointers: counts that a build would not see.

A refused file is in no shard, and a copy under another name is dropped; yet both say how a data set came about. One
small file a batch, so that two batches never meet in one; the same offer again writes the same file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.dataset.store import atomic_path, content_of
from components.errors import DataError

Counts = dict[str, dict[str, int]]


class BatchRecord(BaseModel):
    """One batch.

    Attributes:
        batch: its name.
        refused: files by reason and by what the source said they show. A file that an earlier batch refused already
            is counted there; one that was repaired and came in later stays on record.
        copies: images whose very pixels are in the archive under another name; dropped.
        disagreements: images about which the source contradicts itself; their label is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: str
    refused: Counts
    copies: int
    disagreements: int


def counted(refused: Iterable[tuple[str, str]]) -> Counts:
    """How often each (reason, label) stands in `refused`, sorted by both."""
    counts: Counts = {}
    for reason, label in sorted(refused):
        counts.setdefault(reason, {}).setdefault(label, 0)
        counts[reason][label] += 1
    return counts


def write_record(folder: Path, record: BatchRecord) -> Path | None:
    """Write `folder`/<what the batch holds>.json, unless the same is on record, be it under an earlier number.

    Returns:
        The file; None where there is none: nothing was refused or dropped.

    Raises:
        DataError: no disk space, or what stands there is no record.
    """
    path = folder / f"{content_of(record.batch)}.json"
    stands = _read(path) if path.exists() else BatchRecord(batch="", refused={}, copies=0, disagreements=0)
    if stands.model_copy(update={"batch": record.batch}) == record:
        return path if path.exists() else None
    with atomic_path(path) as draft:
        draft.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    path.chmod(0o644)  # counts, and in git
    return path


def read_records(folder: Path) -> list[BatchRecord]:
    """Every record, by batch; none where nothing was ever taken in.

    Raises:
        DataError: one is damaged.
    """
    return sorted((_read(path) for path in folder.glob("*.json")), key=lambda record: record.batch)


def _read(path: Path) -> BatchRecord:
    try:
        return BatchRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise DataError(f"{path}: no record of a batch; run `git checkout -- {path}`") from None
