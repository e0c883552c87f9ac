"""Effect: what the sealed test set has been used for: looks, their budget, and the refresh that ends it.

Every look wears out the patients it looked at: whoever chooses among many models on the same patients flatters the
chosen one, and one image more makes no new patients of them. So looks add up over all test sets that share a patient,
until a person refreshes: from then on the gate judges on the test patients that no look has seen, and the others are
retired from deciding. Their role stays test for life: no model may ever learn from them.

A patient stands in the ledger as 16 hex characters of a SHA-256 over the pseudonym.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.errors import DataError, PromotionRefused
from components.model.comparison import Sealed
from components.params import Gate
from components.promotion.ledger import Chain, Entry, Ledger, SigningKey
from components.promotion.signing import word

MEANING = "the sealed test set is refreshed: patients looked at so far no longer decide"


def marks(patients: Iterable[str]) -> list[str]:
    """Each patient once, as the ledger names them, sorted."""
    return sorted({hashlib.sha256(str(patient).encode()).hexdigest()[:16] for patient in patients})


@dataclass(frozen=True)
class Standing:
    """The test set of one model at this moment.

    Attributes:
        retired: patients that no longer decide.
        looks: the looks since the last refresh.
        refresh: that refresh; None: there was none.
    """

    retired: frozenset[str]
    looks: tuple[Entry, ...]
    refresh: Entry | None

    @classmethod
    def of(cls, ledger: Ledger, name: str) -> Standing:
        """Read it off the ledger."""
        mine = [e for e in ledger.entries() if e.body.get("name") == name and e.kind in ("look", "refresh")]
        refreshes = [e for e in mine if e.kind == "refresh" and e.signature]
        last = refreshes[-1] if refreshes else None
        retired = frozenset(mark for e in refreshes for mark in e.body["retired"])
        return cls(retired, tuple(e for e in mine if e.kind == "look" and (last is None or e.seq > last.seq)), last)

    def fresh(self, sealed: Sealed) -> Sealed:
        """The part of `sealed` that may decide.

        Raises:
            DataError: it lacks fractures or non-fractures.
        """
        if not self.retired:
            return sealed
        gone = _touched(sealed.table, self.retired)
        kept = sealed.table[~gone].reset_index(drop=True)
        if kept["label"].nunique() < 2:
            raise DataError(
                f"the test set holds {len(kept)} images of patients that came after its refresh, of one kind at most; "
                "take in more labelled patients (`intake`)"
            )
        return dataclasses.replace(sealed, table=kept, excluded=sealed.excluded | {"retired": int(gone.sum())})

    def sharing(self, patients: Iterable[str]) -> list[Entry]:
        """The looks that have seen one of `patients`; one that names nobody may have seen all."""
        wanted = set(marks(patients))
        return [e for e in self.looks if "patients" not in e.body or wanted & set(e.body["patients"])]


def look(ledger: Ledger, question: dict[str, str | None], params: Gate, sealed: Sealed) -> int:
    """Count one look at these patients, unless this comparison has begun before; return its number, from 1.

    Raises:
        PromotionRefused: the budget is spent.
    """
    name = str(question["name"])
    with ledger.locked() as chain:
        looks = Standing.of(ledger, name).sharing(sealed.patients)
        for number, entry in enumerate(looks, start=1):
            if all(entry.body.get(key) == value for key, value in question.items()):
                return number
        if len(looks) >= params.look_budget:
            raise PromotionRefused(
                f"{name}: patients of test set {str(question['test_sha256'])[:12]} have been looked at {len(looks)} "
                f"times, the protocol allows {params.look_budget}: choosing among many models on the same patients "
                "flatters the chosen one; take in new test patients (`intake`), then run `osteoflow testset refresh`"
            )
        facts = {"look": len(looks) + 1, "budget": params.look_budget, "images": len(sealed.table)}
        chain.append("look", question | facts | {"patients": marks(sealed.patients)})
    return len(looks) + 1


def refresh(
    *, ledger: Ledger, name: str, accepted: Path, params: Gate, reason: str, user: str, key: SigningKey
) -> Entry:
    """Retire every test patient that was looked at; those that were not are the sealed test set from now on.

    Args:
        accepted: the present data, its test images among them.
        reason: why, in the user's words.
        user: who says so; must be the key's own name.

    Raises:
        PromotionRefused: nobody was looked at since the last refresh, too few patients are new for the protocol, no
            reason, or another's key.
        DataError: there is no test set.
    """
    said = word(f"{name}: ", "a refresh", reason, user, key)
    sealed = Sealed.read(accepted)
    with ledger.locked() as chain:
        return _retire(chain, Standing.of(ledger, name), sealed, params, name, said, key)


def _touched(table: pd.DataFrame, patients: frozenset[str] | set[str]) -> pd.Series:
    """(n,) bool: rows of these patients, or of whoever is joined to one of them by a merge or a near-duplicate."""
    theirs = table["patient_id"].map(lambda patient: marks([patient])[0] in patients).astype(bool)
    if "group_id" not in table:
        return theirs
    # The patient a group is named after may have been withdrawn since, and have no row here.
    named = table["group_id"].map(lambda patient: marks([patient])[0] in patients).astype(bool)
    return (theirs | named).groupby(table["group_id"]).transform("any")


def _retire(
    chain: Chain, now: Standing, sealed: Sealed, params: Gate, name: str, said: dict[str, str], key: SigningKey
) -> Entry:
    if not now.looks:
        raise PromotionRefused(f"{name}: nobody has looked at the test set since its last refresh; there is no need")
    unnamed = any("patients" not in e.body for e in now.looks)  # by a version that did not write them down
    seen = {mark for e in now.looks for mark in e.body.get("patients", [])}
    seen |= set(marks(sealed.patients)) - now.retired if unnamed else set()
    new = sealed.table[~_touched(sealed.table, now.retired | seen)]
    positives = int((new["label"] == 1).sum())
    negatives = len(new) - positives
    if not unnamed and (positives < params.min_positives or negatives < params.min_negatives):
        raise PromotionRefused(
            f"{name}: {positives} fractures and {negatives} non-fractures are of test patients that nobody has looked "
            f"at; the protocol asks for {params.min_positives} and {params.min_negatives} before it can judge on them "
            "alone; take in more labelled patients (`intake`)"
        )
    body = {
        "name": name,
        **said,
        "meaning": MEANING,
        "looks": len(now.looks),
        "retired": sorted(seen),
        "sealed": marks(new["patient_id"]),
        "images": len(new),
        "positives": positives,
        "negatives": negatives,
    }
    return chain.append("refresh", body, key=key)
