"""What a waiting person sees: the step that runs now, and each step done with its time."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

STAGE = re.compile(r"^Running stage '(?P<name>\w+)'")
SKIPPED = re.compile(r"^Stage '(?P<name>[\w./]+)' (didn't change|is cached)")

console = Console(stderr=True, highlight=False)


class _Follower(logging.Handler):
    """Turns the workspace's log lines into one status line and one durable line a finished stage."""

    def __init__(self, title: str, status: Status) -> None:
        super().__init__(level=logging.INFO)
        self.title, self.status = title, status
        self.stage: str | None = None
        self.started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().strip()
        if match := STAGE.match(line):
            self.finish()
            self.stage, self.started = match["name"], time.monotonic()
        elif SKIPPED.match(line):
            return
        if line:
            self.status.update(f"{self.title}  {self.stage or ''}  [dim]{_short(line)}[/dim]")

    def finish(self) -> None:
        """Close the running stage with its time."""
        if self.stage:
            console.print(f"  [green]✓[/green] {self.stage:<10} [dim]{time.monotonic() - self.started:5.1f} s[/dim]")
        self.stage = None


@contextmanager
def shown(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show the progress of what runs inside on standard error; `quiet` shows nothing.

    Args:
        title: what is running, in a word or two.
    """
    if quiet:
        yield
        return
    logger = logging.getLogger("osteoflow")
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Prefect's console handler sits at the root and would print every line again
    with console.status(title) as status:
        follower = _Follower(title, status)
        logger.addHandler(follower)
        try:
            yield
            follower.finish()
        finally:
            logger.removeHandler(follower)
            logger.propagate = True


def _short(line: str, width: int = 90) -> str:
    text = line if len(line) <= width else line[: width - 1] + "…"
    return text.replace("[", r"\[")
