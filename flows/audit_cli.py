"""`osteoflow audit ...`: what was decided, whether it still stands, and the evidence to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Json, say, settings_of

audit_app = typer.Typer(help="List what was decided; verify it; export the evidence of a version.")


@audit_app.callback(invoke_without_command=True)
def audit(context: typer.Context, as_json: Json = False) -> None:
    """Verify the decision ledger from its first entry, and list what was decided."""
    if context.invoked_subcommand:
        return
    settings = settings_of()
    from components.promotion.audit import of_stranger
    from flows import clients
    from flows.tables import ledger_table

    ledger = clients.ledger(settings)
    count = ledger.verify()
    entries = ledger.whole()
    unheard = ledger.strangers()
    body = {"verified": count, "entries": [entry.model_dump() for entry in entries]}
    body |= {"unheard": [entry.seq for entry in unheard]}
    say("\n".join([ledger_table(count, entries), *map(of_stranger, unheard)]), body, as_json)


@audit_app.command()
def verify(
    offline: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Check an exported folder by itself.", exists=True, file_okay=False),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Read every byte of the data versions too.")] = False,
    as_json: Json = False,
) -> None:
    """Check the ledger, and of every version ever promoted its record, bundle, registry entry, commit and data."""
    if offline:
        from components.promotion.evidence import verify as verify_folder

        found = verify_folder(offline)
    else:
        settings = settings_of()
        from flows.audit import verify as verify_here

        found = verify_here(settings, data=data)
    say(found.text(), found.model_dump(), as_json)
    if not found.well:
        raise typer.Exit(1)


@audit_app.command()
def export(
    version: Annotated[int, typer.Argument(help="The model version, approved or not.")],
    to: Annotated[Path, typer.Option(help="A new folder.")],
    user: Annotated[str | None, typer.Option("--as", help="Who exports and signs; default: the login name.")] = None,
    as_json: Json = False,
) -> None:
    """Write a version's evidence: ledger entries, record, bundle, evaluation, code and keys, to be checked anywhere."""
    settings = settings_of(user)
    from flows.audit import export as write

    index = write(settings, version, to)
    text = f"{len(index.files)} files in {to}, signed by {index.signer}. Check: osteoflow audit verify --offline {to}"
    say(text, {"folder": str(to)} | index.model_dump(), as_json)
