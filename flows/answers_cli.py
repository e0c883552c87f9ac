"""`osteoflow promote`, `stop` and `resume`: which model answers, and whether any does."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.terminal import As, Json, say, settings_of


def promote(as_json: Json = False) -> None:
    """Take what was approved its next step (shadow, canary, every case), and say where it stands."""
    settings = settings_of()
    from flows import clients
    from flows.promote import promote as run

    way = run()
    say(way.text() + clients.still_off(settings), way.model_dump(), as_json)


def stop(
    reason: Annotated[str, typer.Option(help="Why; readers of cases see it, and it is signed with your name.")],
    user: As = None,
    as_json: Json = False,
) -> None:
    """Switch AI output off, everywhere at once, until a reviewer resumes. Anybody may; cases can still be read."""
    settings = settings_of(user)
    from components.promotion.switch import stop as switch_off
    from flows import clients

    key = clients.signing_key(settings, settings.user)
    entry = switch_off(ledger=clients.ledger(settings), reason=reason, user=settings.user, key=key)
    said = f"AI output is off everywhere (ledger entry {entry.seq}, signed by {settings.user})."
    say(f"{said} `osteoflow resume` gives it back.", {"stopped": True, "entry": entry.seq}, as_json)


def resume(
    reason: Annotated[str, typer.Option(help="Why it may answer again; it is signed with your name.")],
    user: As = None,
    as_json: Json = False,
) -> None:
    """Give AI output back after a stop: the champion of the ledger answers again. A reviewer may."""
    settings = settings_of(user)
    from components.promotion.switch import resume as switch_on
    from flows import clients

    key = clients.signing_key(settings, settings.user)
    entry = switch_on(ledger=clients.ledger(settings), reason=reason, user=settings.user, key=key)
    said = (
        f"AI output is back (ledger entry {entry.seq}, signed by {settings.user}); {len(entry.body['lifts'])} stop(s)"
    )
    say(f"{said} lifted.", {"stopped": False, "entry": entry.seq, "lifted": entry.body["lifts"]}, as_json)
