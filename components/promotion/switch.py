"""Effect: the stop switch: a person's word takes AI output off, everywhere at once, and a reviewer's gives it back.

A stop stands until a reviewer resumes: no roll-out, no rollback and no restart lifts it. The service looks at the
ledger before every answer and after it, so an answer that was being made when the switch was pressed is not given.

Source: EU AI Act Art. 14(4)(e) (a stop button or a similar procedure); 21 CFR 11.50 (name, time and meaning).
"""

from __future__ import annotations

from components.errors import PromotionRefused
from components.promotion.ledger import Entry, Ledger, SigningKey
from components.promotion.roles import Roll
from components.promotion.signing import word

MEANING_STOP = "AI output is switched off everywhere"
MEANING_RESUME = "AI output may be given again"


def stop(*, ledger: Ledger, reason: str, user: str, key: SigningKey) -> Entry:
    """Switch AI output off. A second stop is recorded too: its reason counts as much as the first.

    Args:
        reason: why, in the user's words; readers of cases see it.
        user: who says so; must be the key's own name.

    Raises:
        PromotionRefused: no reason, or another's key.
    """
    body = word("", "a stop", reason, user, key)
    return ledger.append("stop", body | {"meaning": MEANING_STOP}, key=key)


def resume(*, ledger: Ledger, reason: str, user: str, key: SigningKey) -> Entry:
    """Lift every stop that stands; the champion of the ledger answers again.

    Raises:
        PromotionRefused: nothing is stopped, nobody who is a reviewer (where roles are given), no reason, or another's
            key.
    """
    body = word("", "a resumption", reason, user, key)
    with ledger.locked() as chain:
        if not Roll(ledger.entries()).lets(user, "reviewer"):
            raise PromotionRefused(
                f"{user!r} is no reviewer, who alone says that a model answers again; see `osteoflow users list`"
            )
        stops = ledger.stops()
        if not stops:
            raise PromotionRefused("AI output is not switched off; there is nothing to resume")
        lifted = [entry.hash for entry in stops]
        return chain.append("resume", body | {"lifts": lifted, "meaning": MEANING_RESUME}, key=key)
