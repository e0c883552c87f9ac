"""What the sealed test set has been used for, and its refresh: on the data of a revision, split and validated anew."""

from __future__ import annotations

from pydantic import BaseModel

from components.promotion.testset import refresh as retire
from components.settings import Settings
from flows import clients
from flows.builds import heed_withdrawals, make


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

    Raises:
        DataError: the revision does not know of a withdrawal on record: who is withdrawn seals nothing.
    """
    home, params, ledger = clients.workspace(settings), clients.params(settings), clients.ledger(settings)
    with home.building(rev) as build:
        heed_withdrawals(build, ledger)
        make(build, "validate")
        entry = retire(
            ledger=ledger,
            name=params.gate.model,
            accepted=build.root / params.paths.accepted,
            params=params.gate,
            reason=reason,
            user=settings.user,
            key=clients.signing_key(settings, settings.user),
        )
    facts = {key: entry.body[key] for key in ("looks", "images", "positives", "negatives")}
    retired, sealed = len(entry.body["retired"]), len(entry.body["sealed"])
    return Refreshed(entry=entry.seq, retired=retired, patients=sealed, **facts)
