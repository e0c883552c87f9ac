"""Effect: what the sealed test set has been used for: looks, their budget, and the refresh that ends it.

Every look wears out the patients it looked at: whoever chooses among many models on the same patients flatters the
chosen one, and one image more makes no new patients of them. So looks add up over all test sets that share a patient,
until a person refreshes: from then on the gate judges on the test patients that no look has seen, and the others are
retired from deciding, whatever the model. Their role stays test for life: no model may ever learn from them. Stages and
gate read who is retired from a log in git (dataset/retirements.py); `require_same` tells where it is another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from components.dataset.retirements import marks
from components.errors import DataError, PromotionRefused
from components.gate_params import Gate
from components.model.comparison import Sealed
from components.promotion.ledger import Chain, Entry, Ledger, SigningKey
from components.promotion.signing import word

MEANING = "the sealed test set is refreshed: patients looked at so far no longer decide"


@dataclass(frozen=True)
class Standing:
    """The test set of one model at this moment.

    Attributes:
        retired: patients that no longer decide, about this or any other model.
        looks: the looks since the last refresh.
        refresh: that refresh; None: there was none.
    """

    retired: frozenset[str]
    looks: tuple[Entry, ...]
    refresh: Entry | None

    @classmethod
    def of(cls, ledger: Ledger, name: str) -> Standing:
        """Read it off the ledger."""
        mine = [e for e in ledger.entries() if e.body.get("name") == name]
        last = next((e for e in reversed(mine) if e.kind == "refresh" and e.signature), None)
        looks = tuple(e for e in mine if e.kind == "look" and (last is None or e.seq > last.seq))
        return cls(retired(ledger), looks, last)

    def sharing(self, patients: Iterable[str]) -> list[Entry]:
        """The looks that have seen one of `patients`; one that names nobody may have seen all."""
        wanted = set(marks(patients))
        return [e for e in self.looks if "patients" not in e.body or wanted & set(e.body["patients"])]


def retired(ledger: Ledger) -> frozenset[str]:
    """The marks of everybody whom a signed refresh has retired."""
    return frozenset(mark for e in ledger.entries("refresh") if e.signature for mark in e.body["retired"])


def require_same(ledger: Ledger, logged: frozenset[str]) -> None:
    """Check that a log of retirements says what the ledger says: one that says less, or more, would choose who judges.

    Raises:
        DataError: it does not.
    """
    said = retired(ledger)
    if said != logged:
        passed_over = [str(entry.seq) for entry in ledger.strangers() if entry.kind == "refresh"]
        first = f"see in `osteoflow doctor` why ledger entry {', '.join(passed_over)} counts for nothing, then "
        raise DataError(
            f"the log of retired test patients lacks {len(said - logged)} whom a refresh has retired and names "
            f"{len(logged - said)} whom none has: {first * bool(passed_over)}run `osteoflow doctor --repair` and build "
            "a commit after it"
        )


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
    """
    said = word(f"{name}: ", "a refresh", reason, user, key)
    with ledger.locked() as chain:
        return _retire(chain, Standing.of(ledger, name), accepted, params, name, said, key)


def _retire(
    chain: Chain, now: Standing, accepted: Path, params: Gate, name: str, said: dict[str, str], key: SigningKey
) -> Entry:
    if not now.looks:
        raise PromotionRefused(f"{name}: nobody has looked at the test set since its last refresh; there is no need")
    unnamed = any("patients" not in e.body for e in now.looks)  # by a version that did not write them down
    seen = {mark for e in now.looks for mark in e.body.get("patients", [])}
    if unnamed:
        seen |= set(marks(Sealed.of(accepted, now.retired).patients))
    new = Sealed.of(accepted, now.retired | seen).table
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
