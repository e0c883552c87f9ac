"""Other programs' command lines: their output as log records, their failures as the errors they stand for."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from components import errors
from components.errors import DataError, OsteoflowError, Unavailable

log = logging.getLogger("osteoflow.workspace")

# What git or DVC prints when another process holds its lock, or the remote does not answer: waiting helps.
TRANSIENT = (
    "Unable to acquire lock", "is being blocked by", ".lock': File exists",
    "Timeout", "Could not connect", "EndpointConnectionError", "timed out",
)  # fmt: skip


def run(
    command: list[str],
    *,
    name: str,
    root: Path,
    level: int,
    environment: Mapping[str, str],
    handles: Collection[int] = (),
) -> str:
    """Run `command` in `root`, logging its lines at `level` as they come; return what it printed.

    Args:
        name: what messages call it.
        environment: beyond this process's own.
        handles: open files that it inherits.

    Raises:
        OsteoflowError: it failed; of the class that a step of ours printed, else by what helps.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages say `python`
    ours = {"PATH": path, "PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0"}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, **ours, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=handles,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            log.log(level, "%s", line.rstrip())
        if process.wait() < 0:
            raise Unavailable(f"{name}: killed (signal {-process.returncode}), most likely out of memory; repeat")
    output = "".join(lines)
    if process.returncode:
        raise _as_error(name, command, output)
    return output


def _as_error(name: str, command: list[str], output: str) -> OsteoflowError:
    """The error a failed command stands for: a stage's own class where it printed one, else by what helps."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in reversed(lines):
        word, _, message = line.partition(": ")
        kind = getattr(errors, word, None)
        if isinstance(kind, type) and issubclass(kind, OsteoflowError):
            return kind(message)
    tail = " / ".join(lines[-3:])[:600] or "no output"
    if any(sign in output for sign in TRANSIENT):
        return Unavailable(f"{name}: {tail}")
    verb = next((word for word in command[1:] if not word.startswith("-") and word != "dvc"), "")
    return DataError(f"{name} {verb} failed: {tail}")
