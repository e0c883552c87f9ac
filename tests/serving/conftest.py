"""What the serving tests share: a log with one prediction in it, and a service with an approved model behind a port."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from components.promotion.ledger import Ledger, SigningKey
from components.radiograph.phantom import DETECTOR_A, draw
from components.serving.api import create_app
from components.serving.bundle import Bundle
from components.serving.service import ServiceConfig
from components.serving.store import LoggedPrediction, PredictionLog

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def said() -> Callable[..., LoggedPrediction]:
    """A prediction to log: `said(image_id="a", probability=0.9)`."""

    def make(**changes) -> LoggedPrediction:
        image_id, bundle_hash = changes.get("image_id", "image-1"), changes.get("bundle_hash", "b" * 64)
        row = {
            "id": LoggedPrediction.key(image_id, bundle_hash),
            "time": NOON,
            "image_id": image_id,
            "patient_id": "patient-1",
            "study_id": "study-1",
            "site": "site-a",
            "device": "device-a",
            "view": "frontal",
            "body_region": "wrist",
            "bundle_hash": bundle_hash,
            "version": "1",
            "probability": 0.25,
            "logit": -1.1,
            "call": "review",
            "audit": False,
            "inclusion_probability": 0.05,
            "quality": {"sharpness": 12.5, "polarity_ok": True, "phash": "00ff"},
            "embedding": (0.5, -0.5),
        }
        return LoggedPrediction(**(row | changes))

    return make


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    made = PredictionLog(f"sqlite:///{tmp_path / 'log' / 'serving.db'}")
    made.create()
    return made


def _publish(state: Path, bundle: Path, *, version: int = 1, signed: bool = True, signers: Any = 1) -> str:
    """Put `bundle` in place and on record as the champion; return its hash."""
    found = Bundle.open(bundle).hash
    if not (state / "bundles" / found).exists():
        shutil.copytree(bundle, state / "bundles" / found)
    ledger = Ledger(state / "ledger.jsonl")
    body = {"name": "osteoflow-fracture", "version": version, "bundle_hash": found}
    record = {"verdict": "passed", "proposer": "engineer", "protocol": {"signers": signers}}
    body["decision_hash"] = ledger.append("decision", body | record).hash
    key = SigningKey.open(state / "keys", "reviewer") if signed else None
    approval = ledger.append("approval", body | {"approver": "reviewer", "rationale": "margins hold"}, key=key)
    ledger.append("rollout", body | {"approval_hash": approval.hash})
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder without a model."""
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def config(state: Path) -> ServiceConfig:
    """A service over `state` that draws no audit cases."""
    return ServiceConfig(
        log_url=f"sqlite:///{state / 'serving.db'}",
        ledger=state / "ledger.jsonl",
        bundles=state / "bundles",
        images=state / "serving" / "images",
        key_dir=state / "keys",
        model="osteoflow-fracture",
        audit_share=0.0,
        readers=2,
        max_upload_mb=4,
    )


@contextmanager
def _running(config: ServiceConfig) -> Iterator[httpx.Client]:
    """The service on a free port of loopback, and a client that knows it."""
    server = uvicorn.Server(uvicorn.Config(create_app(config), log_level="error", lifespan="off", ws="none"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who calls before the server is up waits, and is not refused
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def approved(state: Path, tiny_bundle: Path) -> str:
    """The hash of an approved bundle that serves from `state`."""
    return _publish(state, tiny_bundle)


@pytest.fixture
def clinic(config: ServiceConfig, approved: str) -> Iterator[httpx.Client]:
    """A client of a running service with an approved model."""
    with _running(config) as client:
        yield client


@pytest.fixture
def audited(config: ServiceConfig, approved: str) -> Iterator[httpx.Client]:
    """The same, where every case is drawn for audit."""
    with _running(dataclasses.replace(config, audit_share=1.0)) as client:
        yield client


@pytest.fixture(scope="session")
def xray() -> Callable[..., bytes]:
    """A phantom's DICOM file: `xray(seed)`; each seed is a patient of its own."""
    return lambda seed=1: draw(seed, patient=seed, detector=DETECTOR_A, fracture=True).dicom


@pytest.fixture(scope="session")
def publish() -> Callable[..., str]:
    """`publish(state, bundle, version=1, signed=True, signers=1)`: see `_publish`."""
    return _publish


@pytest.fixture(scope="session")
def running() -> Callable[[ServiceConfig], AbstractContextManager[httpx.Client]]:
    """`with running(config) as client`: see `_running`."""
    return _running
