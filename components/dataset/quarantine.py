"""Where refused files wait for a person: copies named by their hash, and one line each that says why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from components.dataset.store import atomic_path

LIST = "refused.jsonl"


@dataclass(frozen=True)
class Refusal:
    """A file that cannot be used. `data` is empty when it could not, or was not to, be read."""

    reason: str
    data: bytes

    @property
    def sha256(self) -> str | None:
        return sha256(self.data).hexdigest() if self.data else None


def quarantined(folder: Path, refusals: list[Refusal], *, batch: str) -> None:
    """Keep refused files as `<sha256>.bin` and list them in refused.jsonl: reason, sha256, batch; never a name.

    A file that is refused again changes nothing.

    Raises:
        DataError: no disk space.
    """
    if not refusals:
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    table = folder / LIST
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    known = {(row["reason"], row["sha256"]) for row in map(json.loads, lines) if row["sha256"]}
    for refusal in refusals:
        if (refusal.reason, refusal.sha256) in known:
            continue
        if refusal.sha256:
            known.add((refusal.reason, refusal.sha256))
            if not (copy := folder / f"{refusal.sha256}.bin").exists():
                with atomic_path(copy) as draft:
                    draft.write_bytes(refusal.data)
        row = {"reason": refusal.reason, "sha256": refusal.sha256, "batch": batch}
        lines.append(json.dumps(row, sort_keys=True))
    with atomic_path(table) as draft:
        draft.write_text("".join(f"{line}\n" for line in dict.fromkeys(lines)), encoding="utf-8")
