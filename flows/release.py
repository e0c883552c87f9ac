"""De-identified copies of DICOM files, for whoever may have the pictures and must not know whose they are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from components.dataset.store import atomic_path
from components.errors import DataError
from components.params import Intake
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.release import release


class Released(BaseModel):
    """One file: the copy's name, or why there is none. `number` counts from 1: a file's own name may be a person's."""

    number: int
    written: str | None = None
    refused: str | None = None

    def text(self) -> str:
        """One line."""
        return f"file {self.number}: {f'refused: {self.refused}' if self.refused else self.written}"


def release_files(files: list[Path], out: Path, pseudonyms: Pseudonyms, params: Intake) -> list[Released]:
    """Write `<SOP instance pseudonym>.dcm` into `out` for every file that is a radiograph.

    Raises:
        DataError: no disk space.
    """
    return [_one(number, file, out, pseudonyms, params) for number, file in enumerate(files, 1)]


def _one(number: int, file: Path, out: Path, pseudonyms: Pseudonyms, params: Intake) -> Released:
    try:
        uid, copy = release(file.read_bytes(), pseudonyms, params.burned_in, max_megapixels=params.max_megapixels)
    except DataError as error:
        return Released(number=number, refused=str(error))
    target = out / f"{uid}.dcm"
    with atomic_path(target) as draft:
        draft.write_bytes(copy)
    return Released(number=number, written=str(target))
