"""`osteoflow testset ...`: the sealed test patients, and when they have been looked at often enough."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.terminal import Json, say, settings_of

testset_app = typer.Typer(help="The sealed test patients that judge a model.", no_args_is_help=True)


@testset_app.callback()
def testset() -> None:
    """The sealed test patients that judge a model."""


@testset_app.command()
def refresh(
    reason: Annotated[str, typer.Option(help="Why; it is signed with your name.")],
    rev: Annotated[str, typer.Option(help="The git revision whose data holds the new test patients.")] = "HEAD",
    user: Annotated[str | None, typer.Option("--as", help="Who acts; default: the login name.")] = None,
    as_json: Json = False,
) -> None:
    """Retire the test patients that were looked at: from now on those decide that nobody has looked at."""
    settings = settings_of(user)
    from flows.progress import shown
    from flows.testset import refresh as run

    with shown("testset refresh", quiet=as_json):
        done = run(settings, reason, rev)
    say(done.text(), done.model_dump(), as_json)
