"""What every command does: read the environment, answer as text or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from components.settings import Settings

As = Annotated[str | None, typer.Option("--as", help="Who acts, as written into the ledger; default: the login name.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def settings_of(user: str | None = None) -> Settings:
    """The environment of this command: silent dependencies, the running stack's Prefect server when there is one."""
    from components.settings import load_settings
    from flows.environment import prepare
    from flows.stack import join

    settings = load_settings()
    if user:
        settings = settings.model_copy(update={"user": user})
    prepare(settings, log_level="CRITICAL")
    join(settings)
    return settings


def say(text: str, body: dict[str, Any], as_json: bool) -> None:
    """Print `text`, or `body` where a machine reads."""
    print(json.dumps(body, indent=2, sort_keys=True, default=str) if as_json else text)
