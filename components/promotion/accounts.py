"""Effect: the accounts of the registry's server, in MLflow's own store, which hashes their passwords.

The store is addressed directly, so that accounts can be managed while the server runs and while it does not. What an
account may do stands in the ledger (`roles`), never here.
"""

from __future__ import annotations

import configparser
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import ConfigError, Unavailable
from components.promotion.registry import quiet

ADMIN = "admin"
CONFIG = "basic_auth.ini"
PASSWORDS = "mlflow-users.json"
AUTHENTICATE = "components.promotion.registry_guard:authenticate"


class Accounts:
    """The accounts in the database of one server."""

    def __init__(self, database_uri: str) -> None:
        self._uri = database_uri
        self._opened: Any = None

    @classmethod
    def of(cls, config: Path) -> Accounts:
        """Those of the server that is configured by this basic_auth.ini.

        Raises:
            ConfigError: it is missing, or names no database.
        """
        parser = configparser.ConfigParser()
        try:
            found = parser.read(config, encoding="utf-8")
            uri = parser.get("mlflow", "database_uri")
        except (configparser.Error, UnicodeDecodeError):
            uri = ""
        except PermissionError:
            raise ConfigError(f"{config}: cannot be read by this user") from None
        if not uri or not found:
            raise ConfigError(f"{config}: no configuration of the registry's server; run this where the server runs")
        return cls(uri)

    def names(self) -> list[str]:
        """Every account's name, sorted."""
        with self._store() as store:
            return sorted(user.username for user in store.list_users())

    def open(self, name: str, password: str) -> None:
        """Let `name` sign in with `password` from now on, and with no other.

        Raises:
            ConfigError: MLflow does not take the password.
        """
        with self._store() as store:
            if store.has_user(name):
                store.update_user(name, password=password)
            else:
                store.create_user(name, password)

    def close(self, name: str) -> None:
        """Let `name` sign in no more."""
        with self._store() as store:
            if store.has_user(name):
                store.delete_user(name)

    @contextmanager
    def _store(self) -> Iterator[Any]:
        with quiet():
            from mlflow.exceptions import MlflowException
            from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
            from sqlalchemy.exc import SQLAlchemyError

            try:
                if self._opened is None:
                    store = SqlAlchemyStore()
                    store.init_db(self._uri)
                    self._opened = store
                yield self._opened
            except MlflowException as error:
                if error.error_code == "INVALID_PARAMETER_VALUE":
                    raise ConfigError(f"the registry's accounts: {' '.join(str(error.message).split())}") from None
                raise Unavailable(f"the registry's accounts: {error.error_code}; is its database up?") from None
            except SQLAlchemyError as error:  # its text may hold the database's address, and what was written
                raise Unavailable(f"the registry's accounts: {type(error).__name__}; is its database up?") from None


def generate() -> str:
    """A password nobody can guess: 144 random bits as 24 characters."""
    return secrets.token_urlsafe(18)


def create_passwords(state: Path, names: Iterable[str]) -> dict[str, str]:
    """Give the admin and `names` passwords, kept in `state`/mlflow-users.json (0600); those that have one keep it.

    The server makes the accounts when it starts.
    """
    passwords = read_passwords(state)
    if missing := [name for name in (ADMIN, *names) if name not in passwords]:
        passwords |= {name: generate() for name in missing}
        state.mkdir(parents=True, exist_ok=True)
        write_private(state / PASSWORDS, json.dumps(passwords, indent=1) + "\n")
    return passwords


def read_passwords(state: Path) -> dict[str, str]:
    """User -> password, empty before the first `create_passwords`."""
    path = state / PASSWORDS
    if not path.exists():
        return {}
    try:
        return {str(user): str(password) for user, password in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise ConfigError(f"{path}: not a JSON object of users and passwords; remove it to have new ones") from None


def forget_password(state: Path, name: str) -> None:
    """Take `name` out of the file of first passwords: it was changed since, or its account is gone."""
    passwords = read_passwords(state)
    if passwords.pop(name, None) is not None:
        write_private(state / PASSWORDS, json.dumps(passwords, indent=1) + "\n")


def configure(state: Path, admin_password: str) -> Path:
    """Write basic-auth's configuration (0600) into `state` and return its path.

    Everyone may read and edit as far as MLflow is concerned; what a role may do is the guard's business.
    """
    database = f"sqlite:///{(state / 'mlflow-auth.db').resolve()}".replace("%", "%%")
    lines = ["[mlflow]", "default_permission = EDIT", f"database_uri = {database}"]
    lines += [f"admin_username = {ADMIN}", f"admin_password = {admin_password}"]
    lines += [f"authorization_function = {AUTHENTICATE}"]
    path = state / CONFIG
    write_private(path, "\n".join(lines) + "\n")
    return path


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` as a whole, readable by its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
