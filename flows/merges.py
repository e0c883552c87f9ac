"""Two patient ids of a site turned out to be one person: pseudonyms at the door, one row in git, nobody moved.

No Prefect flow: its server would keep the arguments, and original ids are kept nowhere.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from components.dataset.items import read_table
from components.dataset.merges import record_merges
from components.dataset.store import read_catalog
from components.errors import DataError
from components.radiograph.deidentify import identity
from components.settings import Settings
from flows import clients

COLUMNS = ("patient_id", "same_as")


class Merged(BaseModel):
    """What was recorded.

    Attributes:
        recorded: merges that were new.
        known: merges that the log said already.
        unseen: ids of these that no image of the archive has; a wrong issuer, or patients still to come.
        commit: of the log; None when nothing was new.
    """

    recorded: int
    known: int
    unseen: int
    commit: str | None

    def text(self) -> str:
        lines = [f"{self.recorded} merge(s) recorded, {self.known} known already."]
        if self.unseen:
            lines.append(f"{self.unseen} of the ids have no image here: check the id and its issuer, if they should.")
        if self.commit:
            lines.append(f"Committed as {self.commit[:12]}; the next build excludes what stands in another role.")
        return "\n".join(lines)


def read_pairs(path: Path, *, issuer: str = "") -> list[tuple[str, str]]:
    """Identities, two a row, of a CSV with patient_id, same_as, and issuer where it is stated.

    Raises:
        DataError: it is no UTF-8, a column is missing or an id is empty; a row is named by its number alone.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("merges: not UTF-8; nothing was recorded") from None
    pairs = []
    for number, row in enumerate(read_table(text, COLUMNS, "merges"), start=2):
        try:
            pairs.append(pair(row["patient_id"], row["same_as"], row.get("issuer") or issuer))
        except DataError as error:
            raise DataError(f"merges row {number}: {error}") from None
    return pairs


def pair(one: str | None, other: str | None, issuer: str) -> tuple[str, str]:
    """Two ids of one issuer, as the texts pseudonyms are made of.

    Raises:
        DataError: one is empty.
    """
    ids = [(name or "").strip() for name in (one, other)]
    if not all(ids):
        raise DataError("an id is empty; nothing was recorded")
    return identity(ids[0], issuer.strip()), identity(ids[1], issuer.strip())


def merge_patients(settings: Settings, pairs: list[tuple[str, str]]) -> Merged:
    """Record pairs of identities in the log and commit it.

    Raises:
        DataError: the catalog cannot be completed, so that nobody knows how many images had arrived.
    """
    home, paths = clients.workspace(settings), clients.params(settings).paths
    pseudonyms = clients.pseudonyms(settings)
    named = [tuple(pseudonyms.of("patient", who) for who in pair) for pair in pairs]
    catalog = home.root / paths.catalog
    with home.writing():
        home.complete([paths.catalog])
        patients = read_catalog(catalog)["patient_id"]
        recorded = record_merges(home.root / paths.merges, [(one, two) for one, two in named], after=len(patients))
    unseen = len({name for pair in named for name in pair} - set(patients))
    message = f"Record that {recorded} pair(s) of patient pseudonyms are one person\n\nafter {len(patients)} images"
    commit = home.commit_file(paths.merges, message) if recorded else None
    return Merged(recorded=recorded, known=len(pairs) - recorded, unseen=unseen, commit=commit)
