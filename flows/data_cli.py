"""`osteoflow data ...`: the archive's versions, what changed between them, and what waits outside."""

from __future__ import annotations

import typer

data_app = typer.Typer(help="What is in the archive, since when, and what waits outside.", no_args_is_help=True)


@data_app.callback()
def data() -> None:
    """What is in the archive, since when, and what waits outside."""
