"""Noun: whose words count: what a person says in the ledger lets something happen only under a key that is known.

A chain can only tell that a name always signed with one key; whose key that is, the key folder tells. A stop and a
withdrawal hold back, and are anybody's to say; other entries are facts, which rest on words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from components.promotion.roles import Roll

if TYPE_CHECKING:
    from components.promotion.ledger import Entry

WORDS = frozenset({"approval", "rollback", "resume", "role", "refresh"})
KeyOf = Callable[[str], str | None]


def heard(entries: Iterable[Entry], key_of: KeyOf | None) -> Iterator[Entry]:
    """What counts of `entries`, in order: all but the words of strangers.

    That somebody was given a role is heard in any case, without its signature: roles bind from then on, and this one
    gives none.

    Args:
        key_of: the public key of a name, None where there is none; None: everybody is known.
    """
    for entry in entries:
        if counts(entry, key_of):
            yield entry
        elif entry.kind == "role":
            yield entry.model_copy(update={"signer": None, "public_key": None, "signature": None})


def counts(entry: Entry, key_of: KeyOf | None) -> bool:
    """Whether `entry` is the word of somebody who is known, or no word at all."""
    if key_of is None or entry.kind not in WORDS:
        return True
    return entry.signer is not None and key_of(entry.signer) == entry.public_key


def stops_in(entries: Iterable[Entry]) -> list[Entry]:
    """The stops that no reviewer's signed `resume` has lifted since. Any of them keeps AI output off."""
    standing: list[Entry] = []
    roll = Roll()
    for entry in entries:
        roll.read(entry)
        if entry.kind == "resume" and entry.signature and roll.lets(str(entry.signer), "reviewer"):
            standing = []
        elif entry.kind == "stop":
            standing.append(entry)
    return standing
