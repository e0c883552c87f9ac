"""Effect: put on record that a patient is withdrawn, and where the patient's images had gone by then.

The record says what people have to act on; it removes nothing. Shards and bundles are immutable, and what was decided
on them has to stay checkable. That later builds leave the patient out is the work of a log beside the data
(dataset/withdrawals.py); `unheeded` tells where that log lags behind this record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from components.dataset.retirements import marks
from components.errors import PromotionRefused
from components.promotion.ledger import Entry, Ledger, SigningKey
from components.promotion.signing import word

MEANING = "this patient's data is withdrawn from further use"


def withdrawn(ledger: Ledger, patient: str) -> Entry | None:
    """The withdrawal of a patient (by pseudonym), or None."""
    (mark,) = marks([patient])
    return next((entry for entry in ledger.entries("withdrawal") if entry.body["patient"] == mark), None)


def unheeded(ledger: Ledger, patients: Iterable[str]) -> set[str]:
    """The marks of everybody whose withdrawal is on record, and who is none of `patients` (pseudonyms)."""
    return {str(entry.body["patient"]) for entry in ledger.entries("withdrawal")} - set(marks(patients))


def withdraw(
    *,
    ledger: Ledger,
    patient: str,
    images: int,
    data_versions: Sequence[str],
    models: Sequence[int],
    reason: str,
    user: str,
    key: SigningKey,
) -> Entry:
    """Record a withdrawal, once; the patient stands in it as in looks, not by pseudonym.

    Args:
        images: of the patient in the archive now.
        data_versions: the commits whose data holds them.
        models: the versions that learned from them.
        reason: why, in the user's words; no name, no id.
        user: who says so; must be the key's own name.

    Raises:
        PromotionRefused: it is on record already, no reason, or another's key.
    """
    said = word("", "a withdrawal", reason, user, key, how=", without a name")
    with ledger.locked() as chain:
        if earlier := withdrawn(ledger, patient):
            raise PromotionRefused(f"this patient was withdrawn already (ledger entry {earlier.seq})")
        body = {"patient": marks([patient])[0], "images": images, "data_versions": list(data_versions)}
        return chain.append("withdrawal", body | said | {"models": list(models), "meaning": MEANING}, key=key)
