"""`osteoflow data ...`: the archive's versions, what changed between them, and what waits outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import Json, say, settings_of

data_app = typer.Typer(help="What is in the archive, since when, and what waits outside.", no_args_is_help=True)


@data_app.callback()
def data() -> None:
    """What is in the archive, since when, and what waits outside."""


@data_app.command("merge-patients")
def merge_patients(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV with patient_id, same_as, and issuer where ids have one; asked for when left out.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    issuer: Annotated[str, typer.Option(help="Issuer of the patient ids, where the rows do not say.")] = "",
    as_json: Json = False,
) -> None:
    """Record that two patient ids of a site are one person: pseudonyms only, committed; nobody is moved."""
    settings = settings_of()
    from flows.merges import merge_patients as record
    from flows.merges import pair, read_pairs

    if file:
        pairs = read_pairs(file, issuer=issuer)
    else:
        # Asked for, not given as arguments: a shell keeps those.
        pairs = [pair(typer.prompt("patient id"), typer.prompt("is the same person as"), issuer)]
    merged = record(settings, pairs)
    say(merged.text(), merged.model_dump(), as_json)


@data_app.command()
def limits(
    site: Annotated[str, typer.Option(help="The site, as the archive names it (`data diff` lists them).")],
    again: Annotated[bool, typer.Option("--again", help="Replace limits that the site has learned before.")] = False,
    as_json: Json = False,
) -> None:
    """Learn a site's thresholds for single images from its first thousand images, and commit them."""
    settings = settings_of()
    from flows.limits import learn_limits

    learned = learn_limits(settings, site, again=again)
    say(learned.text(), learned.model_dump(), as_json)


@data_app.command()
def log(
    limit: Annotated[int, typer.Option("-n", help="How many versions to show.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List the data versions, newest first: when, which commit, what came in, what was refused."""
    settings = settings_of()
    from flows import clients
    from flows.versions import history

    shown = history(clients.workspace(settings), clients.params(settings), limit=limit)
    say(shown.text(), shown.model_dump(), as_json)


@data_app.command()
def diff(
    earlier: Annotated[str, typer.Argument(metavar="A", help="A git revision, for instance from `data log`.")],
    later: Annotated[str, typer.Argument(metavar="B", help="A later one.")] = "HEAD",
    as_json: Json = False,
) -> None:
    """Say what B has more than A: images by site, region and label, label events, labels that changed. No pixels."""
    settings = settings_of()
    from flows import clients
    from flows.versions import difference

    change = difference(clients.workspace(settings), clients.params(settings), earlier, later)
    say(change.text(), change.model_dump(), as_json)


@data_app.command()
def quarantine(as_json: Json = False) -> None:
    """List the files that were refused, by reason, with what to do; what came in later counts as settled."""
    settings = settings_of()
    from components.dataset.quarantine import entries, waiting
    from components.dataset.store import read_catalog
    from flows import clients
    from flows.tables import quarantine_table

    folder = clients.quarantine(settings)
    archive = read_catalog(settings.workspace / clients.params(settings).paths.catalog)
    groups = waiting(entries(folder), set(archive["image_id"]))
    body = {"folder": str(folder), "reasons": [group.model_dump() for group in groups]}
    say(quarantine_table(folder, groups), body, as_json)
