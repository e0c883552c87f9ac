"""The demo's hospital: the service as a process of its own, a modality that sends, and readers who answer over HTTP."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from components.errors import Unavailable
from components.settings import Settings

START_SECONDS = 60
# Readers err now and then; a disagreement goes to an adjudicator.
READER_ERROR = 0.03


@contextmanager
def service(settings: Settings) -> Iterator[httpx.Client]:
    """Run the clinic service on a free loopback port; yield a client of it.

    Raises:
        Unavailable: it did not start.
    """
    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        port = probe.getsockname()[1]
    logs = settings.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "demo-clinic.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "components.serving"],
            cwd=settings.workspace,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OSTEOFLOW_SERVICE_PORT": str(port)},
        )
    try:
        with httpx.Client(base_url=f"http://{settings.host}:{port}", timeout=60) as client:
            deadline = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(httpx.TransportError):
                    client.get("/health")
                    break
                if child.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(f"the clinic service did not start; see {logs / 'demo-clinic.log'}")
                time.sleep(0.1)
            yield client
    finally:
        child.terminate()
        child.wait(timeout=20)


def send(client: httpx.Client, files: Iterable[Path], advance: Callable[[], None]) -> list[dict[str, Any]]:
    """POST each DICOM file as a modality would; return the service's answers, in order.

    Raises:
        Unavailable: the service refused a phantom, which it must not.
    """
    answers = []
    for file in files:
        answer = client.post(
            "/api/predictions", content=file.read_bytes(), headers={"Content-Type": "application/dicom"}
        )
        if answer.status_code not in (200, 201):
            raise Unavailable(f"the service answered {answer.status_code} to a phantom: {answer.text[:200]}")
        answers.append(answer.json())
        advance()
    return answers


def read(client: httpx.Client, cases: dict[str, str], seed: int, advance: Callable[[], None]) -> int:
    """Two readers answer every case, an adjudicator where they disagree.

    Args:
        cases: prediction id -> what the phantom really shows.

    Returns:
        How many cases went to the adjudicator.
    """
    dice = random.Random(seed)
    adjudicated = 0
    for prediction, truth in cases.items():
        first, second = (_seen(truth, dice) for _ in range(2))
        for reader, label in (("reader-1", first), ("reader-2", second)):
            _answer(client, prediction, reader=reader, label=label, adjudicator=False)
        if first != second:
            adjudicated += 1
            _answer(client, prediction, reader="adjudicator-1", label=truth, adjudicator=True)
        advance()
    return adjudicated


def _seen(truth: str, dice: random.Random) -> str:
    if dice.random() >= READER_ERROR:
        return truth
    return "no_fracture" if truth == "fracture" else "fracture"


def _answer(client: httpx.Client, prediction: str, *, reader: str, label: str, adjudicator: bool) -> None:
    body = {"reader": reader, "label": label, "adjudicator": adjudicator}
    client.post(f"/api/predictions/{prediction}/corrections", json=body).raise_for_status()
