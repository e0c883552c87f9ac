"""`osteoflow users ...`: who may do what on the registry's server. Run it where that server runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal import As, Json, say, settings_of

if TYPE_CHECKING:
    from components.promotion.people import People

users_app = typer.Typer(
    help="People and their roles: engineer (proposes), reviewer (approves, rolls back, resumes), monitor (reads), "
    "reader (labels cases, countersigns), service (the flows' own account).",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The account's name, which the ledger shows; no patient's.")]
Roles = Annotated[list[str], typer.Option("--role", help="engineer, reviewer, monitor, reader or service; repeatable.")]
Given = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input; default: make one, shown once.")
]


@users_app.command("list")
def listed(as_json: Json = False) -> None:
    """Everybody who has, or had, an account or a role, and who gave it."""
    settings = settings_of()
    from flows import clients
    from flows.tables import people_table

    people = clients.people(settings).known()
    say(people_table(people), {"people": [person.model_dump() for person in people]}, as_json)


@users_app.command()
def add(name: Name, role: Roles, password_stdin: Given = False, user: As = None, as_json: Json = False) -> None:
    """Make an account with roles; signed into the ledger with your name."""
    people, password = _people(user), _password(password_stdin)
    entry = people.add(name, role, password)
    text = f"{name} is here: {', '.join(entry.body['roles'])} (ledger entry {entry.seq})."
    _tell(text, {"name": name, "roles": entry.body["roles"], "entry": entry.seq}, password, password_stdin, as_json)


@users_app.command("role")
def change(name: Name, role: Roles, user: As = None, as_json: Json = False) -> None:
    """Replace somebody's roles, from the next request on; signed into the ledger with your name."""
    entry = _people(user).set_roles(name, role)
    roles = entry.body["roles"]
    text = f"{name} holds now: {', '.join(roles)} (ledger entry {entry.seq})."
    say(text, {"name": name, "roles": roles, "entry": entry.seq}, as_json)


@users_app.command("password")
def change_password(name: Name, password_stdin: Given = False, as_json: Json = False) -> None:
    """Replace somebody's password; the old one counts no more, from the next request on."""
    people, password = _people(None), _password(password_stdin)
    people.set_password(name, password)
    _tell(f"{name} has another password.", {"name": name}, password, password_stdin, as_json)


@users_app.command()
def remove(name: Name, user: As = None, as_json: Json = False) -> None:
    """Take somebody's roles and account away. What they signed stays, and the name stays theirs."""
    _people(user).remove(name)
    text = f"{name} can neither sign in nor approve any more; what they signed stays."
    say(text, {"name": name, "roles": []}, as_json)


def _people(user: str | None) -> People:
    settings = settings_of(user)
    from flows import clients

    return clients.people(settings)


def _password(given: bool) -> str:
    """A new password, or the given one. Never an argument: every process of the machine can read those."""
    from components.promotion.accounts import generate

    if not given:
        return generate()
    if sys.stdin.isatty():
        return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _tell(text: str, body: dict[str, Any], password: str, given: bool, as_json: bool) -> None:
    """Say what was done; and, this once, a password that was made here."""
    shown = "" if given else f"\nPassword, shown this once: {password}"
    say(text + shown, body if given else body | {"password": password}, as_json)
