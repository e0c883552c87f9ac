"""Noun: who may do what, as the ledger has it: the one place that the registry's guard and every approval ask.

An entry of kind "role" names a person and every role they hold from then on; the last one about a person counts, and
only a signed one, by somebody whose key is known (`words.heard`). Whoever was never named holds no role; once anybody
was, by whomever, roles bind: a site that lost the key of who gave them has nobody in a role, rather than everybody.

    role    person, roles (sorted; none: whoever was removed), user                                (signed)

    engineer   proposes: registers builds, edits runs
    reviewer   approves: the alias champion and the rationale; returns to an earlier champion; lifts a stop
    monitor    reads
    reader     reads; labels cases on the clinic page; countersigns where the protocol asks for it (`osteoflow approve`)
    service    the flows' own account: writes verdicts, `osteoflow.*` tags and descriptions
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, get_args

from components.errors import ConfigError, PromotionRefused

if TYPE_CHECKING:
    from components.promotion.ledger import Entry, Ledger, SigningKey

Role = Literal["engineer", "reviewer", "monitor", "reader", "service"]
ROLES: tuple[Role, ...] = get_args(Role)


class Roll:
    """Who holds which role after some entries of the ledger."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._last: dict[str, Entry] = {}
        self._binds = False
        for entry in entries:
            self.read(entry)

    def __bool__(self) -> bool:
        """Whether anybody was ever named, by whomever: before that, roles bind nobody on the command line."""
        return self._binds

    def read(self, entry: Entry) -> None:
        """Take one more entry into account; those that name nobody change nothing."""
        self._binds |= entry.kind == "role"
        if entry.kind == "role" and entry.signature:
            self._last[str(entry.body.get("person"))] = entry

    def of(self, person: str) -> frozenset[str]:
        """The roles of `person` now."""
        entry = self._last.get(person)
        return frozenset(map(str, entry.body.get("roles") or ())) if entry else frozenset()

    def lets(self, person: str, role: Role) -> bool:
        """Whether `person` may do what `role` does; before anybody was named, everybody may."""
        return not self or role in self.of(person)

    def last(self, person: str) -> Entry | None:
        """The entry that counts about `person`; None for whoever was never named."""
        return self._last.get(person)

    def people(self) -> list[str]:
        """Everybody who was ever named, sorted."""
        return sorted(self._last)

    def holders(self, role: Role) -> list[str]:
        """Who holds `role` now, sorted."""
        return [person for person in self.people() if role in self.of(person)]


def held(entry: Entry, role: Role, entries: Iterable[Entry]) -> bool:
    """Whether whoever signed `entry` held `role` then; before anybody was named, everybody who signs does.

    Args:
        entries: the ledger; what comes after `entry` is not asked.
    """
    roll = Roll(before for before in entries if before.seq < entry.seq)
    return entry.signature is not None and roll.lets(str(entry.signer), role)


def give(*, ledger: Ledger, person: str, roles: Iterable[str], user: str, key: SigningKey) -> Entry:
    """Put on record which roles `person` holds from now on; saying what holds already returns the entry that says so.

    Args:
        roles: all of them; none takes every role away.
        user: who says so; must be the key's own name.

    Raises:
        ConfigError: no such role, no name of a user, or one that differs from another's by case alone.
        PromotionRefused: a person's role for the flows' own account, or another's key.
    """
    if user != key.name:
        raise PromotionRefused(f"{person}: the key of {key.name!r} cannot sign for {user!r}")
    with ledger.locked() as chain:
        entries = ledger.entries()
        wanted, last = checked(entries, person, roles), Roll(entries).last(person)
        if last is not None and last.body["roles"] == wanted:
            return last
        return chain.append("role", {"person": person, "roles": wanted, "user": user}, key=key)


def checked(entries: Iterable[Entry], person: str, roles: Iterable[str]) -> list[str]:
    """`roles` as an entry would have them, sorted.

    Raises:
        ConfigError, PromotionRefused: as for `give`.
    """
    wanted = sorted(set(roles))
    if strange := [role for role in wanted if role not in ROLES]:
        raise ConfigError(f"{', '.join(strange)}: no such role; there are {', '.join(ROLES)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", person):
        raise ConfigError(f"{person!r} is no user name (letters, digits, . _ @ -; at most 64)")
    if "service" in wanted and len(wanted) > 1:
        raise PromotionRefused(f"{person}: the flows' own account holds the role service alone; a person does the rest")
    for other in Roll(entries).people():
        if other != person and other.casefold() == person.casefold():
            raise ConfigError(f"{person}: {other} is known already; two names that differ by case look like one")
    return wanted
