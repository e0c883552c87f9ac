"""Where the readers of a case stand, and whether their word changes what the model said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from components.feedback.corrections import Standing, standings
from components.serving.store import LoggedPrediction, PredictionLog

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def log(tmp_path) -> PredictionLog:
    made = PredictionLog(f"sqlite:///{tmp_path / 'serving.db'}")
    made.create()
    return made


def stand(log: PredictionLog, call: str, *labels: str, bundle: str = "b") -> Standing:
    """Where one image stands whose bundle said `call` and whose readers said `labels`."""
    prediction = log.add_prediction(
        LoggedPrediction(
            id=LoggedPrediction.key("image-1", bundle), time=NOON, image_id="image-1", patient_id="p", study_id="s",
            site="a", device="d", view="frontal", body_region="wrist", bundle_hash=bundle, version="1",
            probability=0.1, logit=-2.0, call=call, audit=False, inclusion_probability=0.05, quality={}, embedding=(),
        )
    )  # fmt: skip
    for number, label in enumerate(labels):
        log.add_correction(prediction.id, reader=f"reader-{number}", label=label, time=NOON + timedelta(minutes=number))
    (found,) = standings(log, readers=2)
    return found


@pytest.mark.parametrize(("call", "overturns"), [("fracture", False), ("no_fracture", True), ("review", True)])
def test_a_settled_case_overturns_what_it_contradicts(log, call, overturns):
    """Where the model could not tell, any truth is news."""
    assert stand(log, call, "fracture", "fracture").overturns is overturns


def test_an_open_case_overturns_nothing(log):
    found = stand(log, "no_fracture", "fracture")

    assert (found.label, found.overturns, len(found.pending)) == (None, False, 1)


def test_nothing_pending_is_nothing(log):
    assert standings(log, readers=2) == []
