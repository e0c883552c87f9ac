"""Monitoring reads what the service wrote: the real prediction log, from an empty one to audited cases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from components.monitoring.drift import _judge, _window
from components.monitoring.performance import audited
from components.serving.store import LoggedPrediction, PredictionLog, Truth
from tests.monitoring.windows import FEATURES, MONITOR, window

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(f"sqlite:///{tmp_path / 'serving.db'}")
    log.create()
    return log


def fill(log, table):
    """Log `table` as one bundle's predictions; every case is audited, every score above .5 is called a fracture."""
    for i, row in enumerate(table.to_dict("records")):
        log.add_prediction(
            LoggedPrediction(
                id=LoggedPrediction.key(row["image_id"], "b" * 64),
                time=START + timedelta(hours=i),
                study_id="study",
                bundle_hash="b" * 64,
                version="1",
                logit=0.0,
                call="fracture" if row["probability"] > 0.5 else "no_fracture",
                audit=True,
                inclusion_probability=1.0,
                quality={name: row[name] for name in FEATURES} | {"polarity_ok": True, "phash": "0" * 16},
                embedding=tuple(float(v) for v in row["embedding"]),
                **{
                    k: row[k]
                    for k in ("image_id", "patient_id", "site", "device", "view", "body_region", "probability")
                },
            )
        )


def test_an_empty_log_is_insufficient_and_unknown(log):
    known = window(seed=1, patients=300).drop(columns=["time", "device"])

    found = _judge(known, _window(log.frame()), MONITOR, 0)
    audit = audited(cases=log.frame(), params=MONITOR)

    assert (found.status, found.cases) == ("insufficient", 0)
    assert (audit.cases, audit.sensitivity, audit.alarm) == (0, None, False)


def test_a_shift_in_the_log_is_found(log):
    known = window(seed=1, patients=300).drop(columns=["time", "device"])
    fill(log, window(seed=40, patients=50, shift={"noise": 1.0}))

    found = _judge(known, _window(log.frame()), MONITOR, 0)

    assert [f.name for f in found.tested if f.drifted] == ["noise"]
    assert found.since == "2026-03-01T00:00:00+00:00"


def test_blind_truths_in_the_log_are_the_audit(log):
    """Ten fractures read blind, of which the call found those above .5; two more were read with the AI in sight."""
    table = window(seed=41, patients=20).sort_values("probability", ignore_index=True)
    fill(log, table)
    images = [*table["image_id"][:4], *table["image_id"][-8:]]
    truths = [Truth(image_id=image, time=START, label="fracture", ai_visible=i < 2, batch="1")
              for i, image in enumerate(images)]  # fmt: skip
    log.settle(truths, [], batch="1")

    found = audited(cases=log.frame(), params=MONITOR)

    assert (found.read, found.positives) == (10, 10)
    assert found.sensitivity.value == 0.8
    assert found.naive_sensitivity.value == pytest.approx(8 / 12)
