"""Effect: a person comes, gets other roles or another password, or goes: the account, and the word in the ledger.

What a person may do is the ledger's alone and counts from the next request on. Every act can be repeated after a kill:
who comes has an account before a role, who goes loses the roles before the account. Signatures and keys stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.errors import ConfigError
from components.promotion.accounts import ADMIN, Accounts, forget_password
from components.promotion.ledger import Entry, Ledger, SigningKey
from components.promotion.roles import Roll, checked, give


class Person(BaseModel):
    """Who somebody is to the registry: name, roles, whether they can sign in, and who gave the roles when (UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    roles: tuple[str, ...]
    account: bool
    given_by: str | None
    given: str | None


@dataclass(frozen=True)
class People:
    """The people of one registry.

    Attributes:
        state: where first passwords may still lie (`accounts.PASSWORDS`).
        user: who acts; must be the key's own name.
    """

    ledger: Ledger
    accounts: Accounts
    state: Path
    user: str
    key: SigningKey

    def known(self) -> list[Person]:
        """Everybody who has, or had, an account or a role, sorted."""
        roll, accounts = Roll(self.ledger.entries()), set(self.accounts.names())
        found = []
        for name in sorted({*roll.people(), *accounts}):
            last = roll.last(name)
            by, when = (last.signer, last.time[:19]) if last else (None, None)
            roles = tuple(sorted(roll.of(name)))
            found.append(Person(name=name, roles=roles, account=name in accounts, given_by=by, given=when))
        return found

    def add(self, name: str, roles: Iterable[str], password: str) -> Entry:
        """Make an account and give it roles; somebody who was removed comes back the same way.

        Raises:
            ConfigError: somebody of this name is here, there is no such role, or MLflow does not take the password.
            PromotionRefused: as for `give`.
        """
        _not_admin(name)
        wanted = tuple(roles)
        if not wanted:
            raise ConfigError(f"{name}: at least one role is needed")
        entries = self.ledger.entries()
        checked(entries, name, wanted)  # before there is an account
        if Roll(entries).of(name):
            raise ConfigError(f"{name} is here already; see `osteoflow users role` and `osteoflow users password`")
        self.accounts.open(name, password)
        return give(ledger=self.ledger, person=name, roles=wanted, user=self.user, key=self.key)

    def set_roles(self, name: str, roles: Iterable[str]) -> Entry:
        """Replace the roles of somebody who has an account.

        Raises:
            ConfigError, PromotionRefused: nobody of this name, no role named, or as for `give`.
        """
        self._require(name)
        wanted = tuple(roles)
        if not wanted:
            raise ConfigError(f"{name}: at least one role is needed; `osteoflow users remove` takes them all away")
        return give(ledger=self.ledger, person=name, roles=wanted, user=self.user, key=self.key)

    def set_password(self, name: str, password: str) -> None:
        """Replace the password of somebody who has an account; the old one counts no more, from the next request on.

        Raises:
            ConfigError: nobody of this name, or MLflow does not take the password.
        """
        self._require(name)
        self.accounts.open(name, password)
        forget_password(self.state, name)

    def remove(self, name: str) -> None:
        """Take every role and the account away. What they signed stays signed, and their key stays theirs.

        Raises:
            ConfigError: nobody of this name was ever here.
        """
        _not_admin(name)
        named = Roll(self.ledger.entries()).last(name)
        if named is None and name not in self.accounts.names():
            raise ConfigError(f"{name}: nobody of this name was ever here; see `osteoflow users list`")
        if named is not None:
            give(ledger=self.ledger, person=name, roles=(), user=self.user, key=self.key)
        forget_password(self.state, name)
        self.accounts.close(name)

    def _require(self, name: str) -> None:
        _not_admin(name)
        if name not in self.accounts.names():
            raise ConfigError(f"{name}: nobody of this name has an account; see `osteoflow users add`")


def _not_admin(name: str) -> None:
    if name.casefold() == ADMIN:
        raise ConfigError(f"{ADMIN} is the server's own account: it has no role, and changes its password in MLflow")
