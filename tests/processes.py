"""Processes of a test: SIGKILL at a place that is named, and who the children are."""

from __future__ import annotations

import os
from pathlib import Path

# Read by every Python process that finds it on its path: it dies, with its process group, at the n-th event (of those
# that the interpreter audits) whose arguments hold a text. DIE_AT: a JSON list of the three.
HOOK = """
import json, os, signal, sys
seen = 0
def watch(event, arguments):
    global seen
    at = os.environ.get("DIE_AT")
    if at and event in at:
        wanted, text, number = json.loads(at)
        if event == wanted and text in repr(arguments):
            seen += 1
            if seen == number:
                os.killpg(0, signal.SIGKILL)
sys.addaudithook(watch)
"""


def path_with_hook(folder: Path, *more: Path) -> str:
    """A PYTHONPATH, with `more` on it, whose processes die where DIE_AT says; the hook is written into `folder`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    return os.pathsep.join(map(str, (folder, *more)))


def children(process: int, called: str = "") -> list[int]:
    """The children of a process whose command line holds `called`."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(one) for one in found if called in Path(f"/proc/{one}/cmdline").read_text()]


def decoders() -> list[int]:
    """The processes that look at files for this one."""
    return [one for server in children(os.getpid(), "forkserver") for one in children(server)]
