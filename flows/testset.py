"""What the sealed test set has been used for, and its refresh: on the data of a revision, split and validated anew."""

from __future__ import annotations

from pydantic import BaseModel

from components.dataset.retirements import read_retirements, write_retirements
from components.promotion.testset import refresh as retire
from components.promotion.testset import retired
from components.settings import Settings
from flows import clients
from flows.builds import heed, make


class Refreshed(BaseModel):
    """A refresh as the ledger has it: what was retired, and what may decide from now on."""

    entry: int
    looks: int
    retired: int
    patients: int
    images: int
    positives: int
    negatives: int

    def text(self) -> str:
        return (
            f"{self.retired} test patients are retired after {self.looks} look(s) (ledger entry {self.entry}, signed). "
            f"{self.images} sealed images of {self.patients} patients nobody has looked at decide from now on: "
            f"{self.positives} with a fracture, {self.negatives} without."
        )


def refresh(settings: Settings, reason: str, rev: str) -> Refreshed:
    """Retire the test patients that were looked at; see `components/promotion/testset.py`.

    The ledger says it first, and then a commit of this clone: from there on evaluation and gate leave them out. Builds
    are refused in between, and `osteoflow doctor --repair` completes what a kill left there.

    Raises:
        DataError: the revision does not know of a withdrawal or an earlier refresh on record.
    """
    home, params, ledger = clients.workspace(settings), clients.params(settings), clients.ledger(settings)
    with home.building(rev) as build:
        heed(build, ledger)
        make(build, "validate")
        with home.writing():
            entry = retire(
                ledger=ledger,
                name=params.gate.model,
                accepted=build.root / params.paths.accepted,
                params=params.gate,
                reason=reason,
                user=settings.user,
                key=clients.signing_key(settings, settings.user),
            )
            enter(settings)
    facts = {key: entry.body[key] for key in ("looks", "images", "positives", "negatives")}
    gone, left = len(entry.body["retired"]), len(entry.body["sealed"])
    return Refreshed(entry=entry.seq, retired=gone, patients=left, **facts)


def unentered(settings: Settings) -> bool:
    """Whether the committed log of retirements says something else than the ledger."""
    home, path = clients.workspace(settings), clients.params(settings).paths.retirements
    said = retired(clients.ledger(settings))
    if not said and not (home.root / path).exists():  # a workspace of before there was such a log
        return False
    return home.dirty(str(path)) or read_retirements(home.root / path) != said


def enter(settings: Settings) -> None:
    """Write the ledger's retirements into the log that builds read, and commit it."""
    home, path = clients.workspace(settings), clients.params(settings).paths.retirements
    said = retired(clients.ledger(settings))
    with home.writing():
        write_retirements(home.root / path, said)
        home.commit_file(path, f"Retire test patients\n\n{len(said)} by now, on whom no later model is judged")
