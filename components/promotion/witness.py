"""Noun: a witness of the ledger: one line, kept apart from it, that remembers how far the ledger had come.

A chain of hashes cannot show that its last entries were cut off. So whoever reads or writes a ledger keeps the number
and the hash of the last entry they saw beside their keys, outside the workspace; whoever finds the ledger shorter than
that, or another one, is told. Cutting off a `stop` therefore switches the service off instead of on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from components.errors import LedgerCorrupt

log = logging.getLogger("osteoflow.ledger")


class Witness:
    """What was seen last of the ledger at `ledger`, kept in `folder`. A ledger goes by its place."""

    def __init__(self, folder: Path, ledger: Path) -> None:
        self.path = folder / f"ledger-{hashlib.sha256(str(ledger.resolve()).encode()).hexdigest()[:16]}.head"
        self._told = False

    def remembered(self) -> tuple[int, str] | None:
        """Number and hash of the last entry that was seen; None before the first.

        Raises:
            LedgerCorrupt: the witness itself is damaged.
        """
        try:
            text = self.path.read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LedgerCorrupt(f"{self.path}: the ledger's witness cannot be read: {error.strerror}") from None
        if not (found := re.fullmatch(r"(0|[1-9]\d*) ([0-9a-f]{64})\n", text)):
            raise LedgerCorrupt(f"{self.path}: the ledger's witness is damaged; expected one line, number and hash")
        return int(found[1]), found[2]

    def check(self, remembered: tuple[int, str] | None, hashes: Sequence[str], where: Path) -> None:
        """Compare with the hashes of all entries, in order; `remembered` was read before they were.

        Raises:
            LedgerCorrupt: entries that were seen are gone, or others stand in their place.
        """
        if remembered is None:
            return
        seq, digest = remembered
        remedy = f"restore it from a copy that has them; remove {self.path} only if it was begun anew on purpose"
        if seq >= len(hashes):
            raise LedgerCorrupt(f"{where}: entries {len(hashes)} to {seq} were cut off the end; {remedy}")
        if hashes[seq] != digest:
            raise LedgerCorrupt(f"{where}: entry {seq} is not the one that was seen before; {remedy}")

    def saw(self, seq: int, digest: str) -> None:
        """Remember this entry. Where the place cannot be written, the ledger goes on without, and that is logged."""
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with draft.open("w", encoding="ascii") as file:
                file.write(f"{seq} {digest}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            if not self._told:
                log.warning("%s: not written (%s); the end of the ledger is not witnessed", self.path, error.strerror)
            self._told = True
