"""Where refused files wait for a person: copies named by their hash, one line each that says why, and what to do.

The line is added once: the same file, refused again for the same reason, changes nothing. A file that was repaired
and sent again is an image of the archive; its old line then counts as settled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from components.dataset.store import atomic_path
from components.errors import DataError

LIST = "refused.jsonl"


class Reason(NamedTuple):
    """What a reason code means, and what a person does about it."""

    meaning: str
    remedy: str


_FETCH = "repeat the command; if it stays, ask whoever runs the store or PACS"
_LIMIT = "look at what it is; raise the limit if it is right"
# Every code that a refusal may carry.
REASONS = {
    "not_dicom": Reason("no readable DICOM object", "remove it from the source, or export it again"),
    "not_an_image": Reason("neither PNG, JPEG nor TIFF", "remove it from the source, or export it again"),
    "not_a_radiograph": Reason("a DICOM object of another kind than CR or DX", "nothing, if it was not meant to come"),
    "no_transfer_syntax": Reason("it does not say how its pixels are coded", "export it again, with file meta data"),
    "no_pixels": Reason("an image object without an image", "export it again from the PACS"),
    "multi_frame": Reason("several pictures in one file", "send single images"),
    "colour": Reason("a picture in colour, not a radiograph", "nothing, if it was not meant to come"),
    "photometric": Reason(
        "a tint, a mark in colour, or grey values that mean two things", "export it as MONOCHROME1 or MONOCHROME2"
    ),
    "too_large": Reason("larger than intake.max_megapixels allows", _LIMIT),
    "empty": Reason("the file has no bytes", "copy it again from where it came"),
    "truncated": Reason("the file ends too early", "copy it again from where it came"),
    "undecodable": Reason("its pixels do not decode", "export it again, uncompressed if that is possible"),
    "unreadable": Reason("the file cannot be read: locked, encrypted, or gone", "check access, and send it again"),
    "missing_patient_id": Reason("it does not say whose it is", "have the sender state PatientID"),
    "burned_in_text": Reason("text in the pixels that cannot be painted over", "have it exported without annotations"),
    "timeout": Reason("not decoded within intake.seconds_per_file", _LIMIT),
    "out_of_memory": Reason("it needs more than intake.memory_mb", _LIMIT),
    "crashed": Reason("it ended the process that decoded it", "export it again, and report the file as a bug"),
    "broken_transfer": Reason("it did not arrive whole", _FETCH),
    "etag_mismatch": Reason("what arrived is not what the store promised", _FETCH),
    "changed": Reason("it changed while it was read or fetched", _FETCH),
    "archived": Reason("it lies in cold storage", "have it restored in the store, and repeat the command"),
    "forbidden": Reason("the store or PACS refuses this object", _FETCH),
    "incomplete": Reason("the sender stopped in the middle", _FETCH),
    "server_error": Reason("the store or PACS failed on this object", _FETCH),
    "vanished": Reason("it was listed, and gone when it was fetched", _FETCH),
    "wrong_object": Reason("the PACS sent another object than was asked for", _FETCH),
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """A file that cannot be used.

    Attributes:
        reason: a key of REASONS.
        data: the file; empty when it could not, or was not to, be kept.
        digest: hex SHA-256 of a file that is not kept; "" where it could not be read at all.
    """

    reason: str
    data: bytes = b""
    digest: str = ""

    @property
    def sha256(self) -> str | None:
        return sha256(self.data).hexdigest() if self.data else self.digest or None


class Entry(BaseModel):
    """One line of the list.

    Attributes:
        sha256: of the file, None where it could not be read. kept: its copy lies in the quarantine.
        image_id: the image's pseudonym, where the file or its name in a public archive says it.
        label: what the source says that it shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    sha256: str | None
    kept: bool
    image_id: str | None
    label: str
    batch: str
    time: str


class Waiting(BaseModel):
    """What is refused for one reason: entries, how many of them came in later, and what to do about the rest."""

    reason: str
    meaning: str
    remedy: str
    refused: int
    settled: int
    by_label: dict[str, int]
    hashes: tuple[str, ...]


def entry(refusal: Refusal, *, image_id: str | None, label: str, batch: str, time: str) -> tuple[Entry, bytes]:
    """A refusal as it is listed, and what is kept of the file."""
    line = Entry(
        reason=refusal.reason,
        sha256=refusal.sha256,
        kept=bool(refusal.data),
        image_id=image_id,
        label=label,
        batch=batch,
        time=time,
    )
    return line, refusal.data


def quarantined(folder: Path, refused: Iterable[tuple[Entry, bytes]]) -> None:
    """Keep files as `<sha256>.bin` and list them in refused.jsonl; never a name. Folder 0700, files 0600.

    Raises:
        DataError: no disk space.
    """
    pending = list(refused)
    if not pending:
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = entries(folder)
    known = {(line.reason, line.sha256, line.image_id) for line in lines}
    unread = {line.batch for line in lines if line.sha256 is None and line.image_id is None}
    for line, data in pending:
        # Files that could not even be read are told apart by the batch alone: a batch lists them once.
        if (line.reason, line.sha256, line.image_id) in known and (
            line.sha256 or line.image_id or line.batch in unread
        ):
            continue
        known.add((line.reason, line.sha256, line.image_id))
        if data and not (copy := folder / f"{line.sha256}.bin").exists():
            with atomic_path(copy) as draft:
                draft.write_bytes(data)
        lines.append(line)
    with atomic_path(folder / LIST) as draft:
        draft.write_text("".join(f"{line.model_dump_json()}\n" for line in lines), encoding="utf-8")


def entries(folder: Path) -> list[Entry]:
    """Every refusal, oldest first; none where nothing was ever refused.

    Raises:
        DataError: the list is damaged.
    """
    table = folder / LIST
    if not table.exists():
        return []
    try:
        return [Entry.model_validate_json(line) for line in table.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise DataError(
            f"{table}: damaged; move it away and take the sources in again to list what they hold"
        ) from None


def waiting(refused: Iterable[Entry], archive: set[str]) -> list[Waiting]:
    """The refusals by reason, most frequent first.

    Args:
        archive: image_ids that are in the archive: a refusal of one of them is settled.
    """
    groups: dict[str, list[Entry]] = {}
    for line in refused:
        groups.setdefault(line.reason, []).append(line)
    found = []
    for code, lines in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        labels = sorted(line.label for line in lines)
        open_ = [line for line in lines if line.image_id not in archive]
        found.append(
            Waiting(
                reason=code,
                meaning=REASONS[code].meaning if code in REASONS else "",
                remedy=REASONS[code].remedy if code in REASONS else "",
                refused=len(lines),
                settled=len(lines) - len(open_),
                by_label={label: labels.count(label) for label in dict.fromkeys(labels)},
                hashes=tuple(line.sha256 for line in open_ if line.sha256),
            )
        )
    return found
