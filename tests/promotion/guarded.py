"""The guarded server as people meet it: started for real, asked over HTTP."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from components.promotion.ledger import Ledger
from components.promotion.register import Registry
from components.promotion.registry_guard import first_people, server_command
from components.settings import Settings
from tests.servers import free_ports

NAME = "osteoflow-fracture"
DOORS = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")
START_SECONDS = 150


@dataclass(frozen=True)
class Server:
    """A running guarded server, its passwords, and the store behind it."""

    settings: Settings
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.mlflow_port}"

    @property
    def store(self) -> Registry:
        return Registry(self.settings.tracking_uri, artifact_root=self.settings.artifact_root)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger_path)

    def ask(self, user: str | None, method: str, call: str, *, door: str = DOORS[0], **body: Any) -> httpx.Response:
        login = (user, self.passwords[user]) if user else None
        return httpx.request(method, f"{self.url}{door}/{call}", json=body, auth=login, timeout=60)

    def make_champion(self, user: str | None, version: int, *, door: str = DOORS[0]) -> httpx.Response:
        body = {"name": NAME, "alias": "champion", "version": str(version)}
        return self.ask(user, "POST", "registered-models/alias", door=door, **body)

    def set_tag(self, user: str, version: int, key: str, value: str) -> httpx.Response:
        return self.ask(user, "POST", "model-versions/set-tag", name=NAME, version=str(version), key=key, value=value)


@contextlib.contextmanager
def running(root: Path, empty_store: Path) -> Iterator[Server]:
    """The server of `server_command` in `root`, on a free port, until the context ends."""
    (port,) = free_ports(1)
    settings = Settings(
        workspace=root, state_dir=root / "state", key_dir=root / "keys", mlflow_port=port, user="operator"
    )
    settings.state.mkdir()
    shutil.copy(empty_store, settings.state / "mlflow.db")
    argv, env = server_command(settings)
    with (root / "server.log").open("wb") as log:
        child = subprocess.Popen(
            argv, env=os.environ | env, cwd=root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        server = Server(settings, first_people(settings))
        deadline = time.monotonic() + START_SECONDS
        while not _answers(server):
            assert child.poll() is None, (root / "server.log").read_text()
            assert time.monotonic() < deadline, (root / "server.log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _answers(server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{server.url}/health", timeout=5).is_success
    return False


def refused(answer: httpx.Response, reason: str) -> bool:
    """Whether the answer is a 403 in MLflow's own form that gives this reason."""
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (403, "PERMISSION_DENIED"), body
    assert reason in body["message"], body
    return True
