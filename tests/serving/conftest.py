"""What the serving tests share: a log with one prediction in it, and a service with an approved model behind a port."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

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
