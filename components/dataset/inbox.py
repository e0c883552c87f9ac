"""The inbox: whatever wrote into it, intake claims the files, and removes them once they have landed.

Claiming is a rename into a private folder: what arrives later waits for the next run, and a run that is killed finds
what it had claimed. A file that was refused without being read is kept, beside the quarantine. One that somebody went
on writing to goes back: its writer follows it there, and the next run finds it whole.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from components.dataset.spool import FILES, INDEX, private
from components.dataset.store import atomic_path
from components.dataset.tree import State, plant, state_of
from components.errors import DataError

# Names under which programs write files that are not whole yet.
GROWING = (".part", ".partial", ".filepart", ".crdownload", ".tmp", ".swp")


@dataclass
class Inbox:
    """A door to the folder where studies arrive.

    Attributes:
        inbox: where the DICOM node, a PACS or a person puts files.
        folder: where claimed files wait until they have landed; owner-only.
        kept: where files go that nobody could read, and that the quarantine therefore has no copy of.
        largest: bytes above which a file is refused unread.
        may_be_empty: a quiet night is no failure.
    """

    inbox: Path
    folder: Path
    kept: Path
    largest: int
    may_be_empty: bool = True
    brought: dict[Path, State] = field(default_factory=dict)  # as it was claimed

    @property
    def path(self) -> Path:
        """What intake opens."""
        return self.folder

    def bring(self) -> str:
        """Claim every file that is whole; return in a few words what is there.

        Raises:
            DataError: a file cannot be moved.
        """
        files = self.folder / FILES
        private(self.folder)
        private(files)
        strange = 0
        try:
            for path in sorted(self.inbox.rglob("*")):
                name = path.relative_to(self.inbox)
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    strange += 1
                    continue
                if path.is_dir() or path.suffix.lower() in GROWING:
                    continue
                if any(part.startswith(".") for part in name.parts):
                    continue
                target = _free(files / name)
                target.parent.mkdir(parents=True, exist_ok=True)
                _move(path, target)
        except OSError as error:
            raise DataError(f"inbox: a file cannot be claimed: {error.strerror}") from None
        self.brought = {path: state_of(path) for path in files.rglob("*") if path.is_file()}
        with atomic_path(self.folder / INDEX) as draft:
            draft.write_text(json.dumps({"lost": []}), encoding="ascii")
        return f"{len(self.brought)} in the inbox" + (f", {strange} left there that are no files" if strange else "")

    def landed(self) -> None:
        """Remove what was claimed before, and is as it was; the archive or the quarantine holds it now."""
        for path, state in self.brought.items():
            if path.exists() and state_of(path) != state:
                back = _free(self.inbox / path.relative_to(self.folder / FILES))
                back.parent.mkdir(parents=True, exist_ok=True)
                _move(path, back)
            elif path.exists() and self._unread(path):
                private(self.kept)
                _move(path, _free(self.kept / path.name))
            path.unlink(missing_ok=True)
        for folder in sorted((self.folder / FILES).rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _unread(self, path: Path) -> bool:
        """Whether the file, or one in the zip that it is, was too large or too closed to be read."""
        if path.stat().st_size > self.largest or not os.access(path, os.R_OK):
            return True
        return zipfile.is_zipfile(path) and any(file.size() > self.largest for file in plant(path).files.values())


def _free(path: Path) -> Path:
    """`path`, or a name beside it that nobody has."""
    number = 0
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _move(path: Path, target: Path) -> None:
    """Rename; across file systems copy whole first, so that a kill leaves one of the two."""
    try:
        path.rename(target)
    except OSError:
        with atomic_path(target) as draft:
            shutil.copyfile(path, draft)
        path.unlink()
