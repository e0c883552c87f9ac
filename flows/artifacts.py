"""What a run leaves in the Prefect UI for a person: a few lines of Markdown, and where the whole page lies."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_markdown_artifact


def show(key: str, title: str, summary: str, page: Path) -> None:
    """Attach a summary to the running flow.

    Args:
        key: lower case letters, digits and dashes; the same key shows a history in the UI.
        summary: Markdown; pseudonyms and counts only.
        page: the report; named, not linked: browsers open no files from a server's page.
    """
    create_markdown_artifact(key=key, description=title, markdown=f"# {title}\n\n{summary}\n\nReport: `{page}`\n")
