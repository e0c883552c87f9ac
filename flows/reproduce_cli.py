"""`osteoflow reproduce`: is a version what its record says it is?"""

from __future__ import annotations

from typing import Annotated

import typer

from flows.terminal import Json, say, settings_of


def reproduce(
    version: Annotated[int, typer.Argument(help="A model version that the gate has judged.")],
    tolerance: Annotated[
        float, typer.Option(help="The largest difference of a figure that counts as the same model.", min=0, max=1)
    ] = 0.02,
    as_json: Json = False,
) -> None:
    """Build a version again from its commit, its data and its lock, in a fresh clone, and compare. Registers nothing.

    Says "identical", "within tolerance" or "differs", and what differs first; exits with 1 when it differs.
    """
    settings = settings_of()
    from flows.progress import shown
    from flows.reproduce import reproduce as run

    with shown("reproduce", quiet=as_json):
        found = run(settings, version, tolerance=tolerance)
    body = found.model_dump() | {"verdict": found.verdict, "first_difference": found.first}
    say(found.text(), body, as_json)
    if found.verdict == "differs":
        raise typer.Exit(1)
