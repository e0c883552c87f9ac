"""The data versions of this workspace: the commits that moved a data pointer, and what two of them differ in."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from components.dataset.versions import Change, compare
from components.errors import DataError
from components.params import Params
from components.workspace import Workspace
from flows.tables import rendered


class Version(BaseModel):
    """A commit that moved a data pointer.

    Attributes:
        time: of the commit, ISO 8601.
        what: the commit's subject. details: its body, which states counts, sites, labels and refusals.
        shards: files that the pointers name more than those of the version before.
        bytes: by how much they grew.
    """

    commit: str
    time: str
    what: str
    details: str
    shards: int
    bytes: int


class History(BaseModel):
    """Data versions, newest first."""

    versions: list[Version]

    def text(self) -> str:
        """A table for a person."""
        if not self.versions:
            return "No data version yet; run `osteoflow intake SOURCE`."
        rows = [
            (v.time[:16], v.commit[:12], v.what, v.details, f"{v.shards:+d}", f"{v.bytes / 1e6:+.1f}")
            for v in self.versions
        ]
        return rendered("data versions", ("when", "commit", "what", "details", "files", "MB"), rows)


def history(home: Workspace, params: Params, *, limit: int) -> History:
    """The newest `limit` data versions on this branch; git alone is asked, no data is read.

    A withdrawal makes a version of the data too: the next build uses fewer images.
    """
    pointers = [f"{folder}.dvc" for folder in (params.paths.studies, params.paths.labels)]
    withdrawals = str(params.paths.withdrawals)
    versions: list[Version] = []
    for entry in home.changes([*pointers, withdrawals], limit + 1):  # one may have brought the empty log of withdrawals
        now = [home.pointer(entry.commit, pointer) for pointer in pointers]
        then = [home.pointer(f"{entry.commit}~", pointer) for pointer in pointers]
        if now == then and _withdrawn(home, entry.commit, withdrawals) == _withdrawn(
            home, f"{entry.commit}~", withdrawals
        ):
            continue
        versions.append(
            Version(
                commit=entry.commit,
                time=entry.time,
                what=entry.subject,
                details=entry.body,
                shards=sum(p.files for p in now) - sum(p.files for p in then),
                bytes=sum(p.bytes for p in now) - sum(p.bytes for p in then),
            )
        )
    return History(versions=versions[:limit])


def _withdrawn(home: Workspace, rev: str, path: str) -> set[str]:
    """Whom the log of withdrawals names at `rev`; nobody where there is none."""
    try:
        return set(home.text(rev, path).decode().splitlines()[1:])
    except DataError:
        return set()


def difference(home: Workspace, params: Params, earlier: str, later: str) -> Change:
    """What `later` has more than `earlier`.

    Raises:
        ConfigError: there is no such revision.
        DataError: the bytes of a version are neither in the cache nor in a remote folder.
    """
    sides = [home.head(earlier), home.head(later)]

    def shards(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        pointers = [home.pointer(side, f"{folder}.dvc") for side in sides]
        listings = [home.listing(pointer) for pointer in pointers]
        first, second = [{md5: home.stored(md5) for md5 in listing.values()} for listing in listings]
        return first, second

    first, second = (_withdrawn(home, side, str(params.paths.withdrawals)) for side in sides)
    change = compare(catalog=shards(params.paths.catalog), labels=shards(params.paths.labels), settling=params.curate)
    return change.model_copy(update={"withdrawn": len(second - first)})
