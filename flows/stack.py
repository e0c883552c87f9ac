"""`osteoflow up`: MLflow behind its guard, Prefect with the deployments, the clinic page and the DICOM node, as child
processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from components.errors import ConfigError, Unavailable
from components.settings import Settings

START_SECONDS = 180


@dataclass
class Part:
    """One server of the stack.

    Attributes:
        name: for people and for the log file.
        command: what starts it.
        host: where it listens.
        port: None for a worker.
        path: the page that answers once it is ready; None for what speaks no HTTP.
        env: variables of its own.
        stop: the signal that ends it in good order.
    """

    name: str
    command: list[str]
    port: int | None = None
    path: str | None = "/"
    host: str = "127.0.0.1"
    env: dict[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM


def choose(settings: Settings, *, demo: bool) -> Settings:
    """The workspace to serve: the one asked for; the demo's where this clone holds no state of its own.

    Raises:
        ConfigError: the demo was asked for and never ran.
    """
    demo_root = settings.workspace / ".osteoflow" / "demo"
    own = settings.ledger_path.exists() or (settings.workspace / "data" / "studies.dvc").exists()
    if demo and not (demo_root / ".git").exists():
        raise ConfigError("the demo has not run here; run `osteoflow demo` first")
    if demo or (not own and (demo_root / ".git").exists()):
        from flows.demo import settings_of

        Console(stderr=True).print(f"Serving the demo's workspace, {demo_root}.")
        return settings_of(demo_root)
    return settings


def parts(settings: Settings) -> list[Part]:
    """The stack of one machine, in starting order."""
    from components.promotion.registry_guard import server_command

    prefect_api = f"http://{settings.host}:{settings.prefect_port}/api"
    mlflow, mlflow_env = server_command(settings)
    python, host = sys.executable, settings.host
    clinic = [python, "-m", "components.serving"]
    node = Part("dicom", [*clinic, "dicom"], settings.dicom_port, None, settings.dicom_host)
    return [
        Part(
            "prefect",
            [python, "-m", "prefect", "server", "start", "--host", host, "--port", str(settings.prefect_port)],
            settings.prefect_port,
            "/api/health",
            host,
            {"PREFECT_UI_API_URL": prefect_api, "PREFECT_API_URL": prefect_api},
        ),
        Part("mlflow", mlflow, settings.mlflow_port, "/health", host, mlflow_env),
        Part("clinic", clinic, settings.service_port, "/health", host),
        *([node] if settings.dicom_port else []),
        Part("deployments", [python, "-m", "flows"], env={"PREFECT_API_URL": prefect_api}, stop=signal.SIGINT),
    ]


def serve(settings: Settings) -> None:
    """Run the stack until it is interrupted or a part of it dies.

    Raises:
        ConfigError: a port is taken.
        Unavailable: a part did not start, or died.
    """
    stack = parts(settings)
    for part in stack:
        if part.port and _answers(part.host, part.port):
            raise ConfigError(f"port {part.port} is taken; set OSTEOFLOW_{_variable(part.name)}_PORT to another")
    logs = settings.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    marker = settings.state / "stack.json"
    children: dict[str, subprocess.Popen[bytes]] = {}
    # SIGTERM ends the stack the way Ctrl-C does, so that no child is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        servers = [part for part in stack if part.port]
        for part in servers:
            children[part.name] = _start(part, settings, logs)
        for part in servers:
            _await(part, children[part.name], logs)
        for part in stack:  # what has no port of its own talks to those that have
            if part not in servers:
                children[part.name] = _start(part, settings, logs)
        marker.write_text(
            json.dumps({"pid": os.getpid(), "prefect": f"http://{settings.host}:{settings.prefect_port}/api"})
        )
        _announce(settings, stack)
        while True:
            time.sleep(1)
            for name, child in children.items():
                if child.poll() is not None:
                    raise Unavailable(f"{name} stopped with exit code {child.returncode}; see {logs / f'{name}.log'}")
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopping.")
    finally:
        for again in (signal.SIGINT, signal.SIGTERM):  # an impatient second Ctrl-C must not leave servers behind
            signal.signal(again, signal.SIG_IGN)
        marker.unlink(missing_ok=True)
        _stop(stack, children)


def join(settings: Settings) -> None:
    """Let this process use the running stack's Prefect server, so that its runs show in the same UI."""
    marker = settings.state / "stack.json"
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, httpx.HTTPError, KeyError):
        url = json.loads(marker.read_text())["prefect"]
        if httpx.get(f"{url}/health", timeout=2).is_success:
            os.environ.setdefault("PREFECT_API_URL", url)


def _start(part: Part, settings: Settings, logs: Path) -> subprocess.Popen[bytes]:
    with (logs / f"{part.name}.log").open("wb") as log:
        return subprocess.Popen(  # its own session: Ctrl-C reaches us alone, and we stop the children in order
            part.command,
            cwd=settings.workspace,
            env=os.environ | part.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await(part: Part, child: subprocess.Popen[bytes], logs: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        if part.path is None and _answers(part.host, part.port or 0):
            return
        with contextlib.suppress(httpx.HTTPError):
            if part.path and httpx.get(f"http://{part.host}:{part.port}{part.path}", timeout=5).status_code < 500:
                return
        time.sleep(0.3)
    raise Unavailable(f"{part.name} did not start; see {logs / f'{part.name}.log'}")


def _stop(stack: list[Part], children: dict[str, subprocess.Popen[bytes]]) -> None:
    """End every child that runs, those that depend on others first; none outlives this."""
    running = [(part, children[part.name]) for part in reversed(stack) if part.name in children]
    for part, child in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, part.stop)
    for _, child in running:
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _variable(name: str) -> str:
    return {"clinic": "SERVICE"}.get(name, name.upper())


def _announce(settings: Settings, stack: list[Part]) -> None:
    table = Table(title="Osteoflow is up", title_justify="left")
    table.add_column("page")
    table.add_column("address")
    for part in stack:
        if part.port:
            called = f" (AE title {settings.dicom_ae_title})" if part.path is None else ""
            table.add_row(part.name, f"{'dicom' if part.path is None else 'http'}://{part.host}:{part.port}{called}")
    console = Console()
    console.print(table)
    console.print(
        f"MLflow's first users and passwords: {settings.state / 'mlflow-users.json'} (readable by you alone); "
        f"`osteoflow users` names others. Logs: {settings.state / 'logs'}. Ctrl-C stops everything.",
        soft_wrap=True,
    )
