"""A candidate beside the champion, in the real service on DICOM bytes: it harms no answer, and is taken for none."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from components.promotion.ledger import Ledger, SigningKey
from components.radiograph.phantom import DETECTOR_A, draw
from components.serving import candidate as module
from components.serving.bundle import Bundle
from components.serving.manifest import MANIFEST, Manifest
from components.serving.service import Service

NAME = "osteoflow-fracture"
PLAN = {
    "shadow_cases": 4, "canary_share": 0.5, "canary_cases": 4, "max_error_rate": 0.02, "max_latency_ms": 2000,
    "max_contradicted": 0.1, "max_score_shift": 0.35,
}  # fmt: skip


@pytest.fixture(scope="module")
def rival(tiny_bundle, tmp_path_factory):
    """Another release of the same network that calls every case a fracture."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("rival") / "bundle")
    manifest = Manifest.decode((folder / MANIFEST).read_bytes(), where="rival")
    point = manifest.thresholds.high_sensitivity.model_copy(update={"threshold": 0.0})
    points = manifest.thresholds.model_copy(update={"high_sensitivity": point, "high_specificity": point})
    (folder / MANIFEST).write_bytes(manifest.model_copy(update={"thresholds": points}).encode())
    return folder


@pytest.fixture
def staged(state, approved, rival):
    """`staged("canary", share=1)` approves the rival and brings it into a stage; its hash."""

    def act(stage, *, share=0.5, signed=True, **plan):
        found = Bundle.open(rival).hash
        if not (state / "bundles" / found).exists():
            shutil.copytree(rival, state / "bundles" / found)
        ledger = Ledger(state / "ledger.jsonl")
        body = {"name": NAME, "version": 2, "bundle_hash": found}
        body["decision_hash"] = ledger.append("decision", body | {"verdict": "passed", "proposer": "engineer"}).hash
        key = SigningKey.open(state / "keys", "reviewer") if signed else None
        approval = ledger.append("approval", body | {"approver": "reviewer", "rationale": "fewer misses"}, key=key)
        more = {"approval_hash": approval.hash, "stage": stage, "plan": PLAN | {"canary_share": share} | plan}
        return ledger.append("stage", body | more).hash

    return act


@pytest.fixture
def service(config, approved):
    return Service(config)


def judge(service, data):
    """What the service answers to one file."""
    return service.predict(data, service.champion.current())


def compared(service, stage, many):
    """The comparisons of a stage once there are so many."""
    for _ in range(1200):
        if len(rows := service.log.comparisons(stage)) >= many:
            return rows
        time.sleep(0.05)
    raise AssertionError(f"{len(rows)} comparisons of {many}")


def healthy(number):
    return draw(number, patient=number, detector=DETECTOR_A, fracture=False).dicom


def test_in_shadow_the_champion_answers_and_the_candidate_is_logged_apart(service, staged, approved, rival):
    """No prediction, count, frame, trace or case of the log has the silent word; its own table has it."""
    stage = staged("shadow", share=1)
    answers = [judge(service, healthy(number)) for number in range(3)]
    rows = compared(service, stage, 3)

    assert {answer.bundle_hash for answer in answers} == {approved}
    assert [(row.image_id, row.champion_probability, row.champion_call, row.answered) for row in rows] == [
        (answer.image_id, answer.probability, answer.call, False) for answer in answers
    ]
    assert {(row.candidate_hash, row.call, row.error) for row in rows} == {(Bundle.open(rival).hash, "fracture", None)}
    assert all(row.probability == row.champion_probability and row.milliseconds > 0 for row in rows)
    assert service.log.count() == (3, 0)
    assert set(service.log.frame()["bundle_hash"]) == {approved}
    assert [len(service.log.of_image(answer.image_id)) for answer in answers] == [1, 1, 1]
    assert service.log.count_of_patients({answers[0].patient_id, "nobody"}) == (1, 1)


def test_in_canary_a_patient_meets_one_model(service, staged, approved):
    """A keyed share of patients, the same for every image of theirs; the champion judges those in silence."""
    stage = staged("canary", share=0.5)
    models = {}
    for number in range(24):
        data = draw(100 + number, patient=number % 8, detector=DETECTOR_A, fracture=False).dicom
        answer = judge(service, data)
        models.setdefault(answer.patient_id, set()).add(answer.version)
    by_candidate = sum(p.version == "2" for p in service.log.predictions())
    rows = compared(service, stage, by_candidate)

    assert {len(versions) for versions in models.values()} == {1}
    assert {next(iter(versions)) for versions in models.values()} == {"1", "2"}
    assert len(rows) == by_candidate
    assert all(row.answered and row.champion_call is not None and row.champion_hash == approved for row in rows)
    assert {p.call for p in service.log.predictions() if p.version == "2"} == {"fracture"}


def test_the_share_is_a_share_and_another_candidate_draws_others(service, staged):
    """Of 4,000 patients a quarter, within four standard errors; the next candidate's are not the same ones."""
    staged("canary", share=0.25)
    first = service.champion.current().candidate
    other = replace(first, entry=first.entry.model_copy(update={"body": first.entry.body | {"bundle_hash": "e" * 64}}))
    drawn = np.array([[c.answers(service._pseudonyms, f"p-{n}") for n in range(4000)] for c in (first, other)])

    assert np.abs(drawn.mean(axis=1) - 0.25).max() < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert abs((drawn[0] & drawn[1]).mean() - 0.0625) < 0.02


def raising(pixels):
    raise RuntimeError("out of tensors")


def nonsense(bundle):
    return lambda pixels: replace(Bundle.predict(bundle, pixels), logit=float("nan"))


def hanging(pixels):
    threading.Event().wait(30)


@pytest.mark.parametrize("stage", ["shadow", "canary"])
@pytest.mark.parametrize("how", ["raises", "nonsense", "hangs"])
def test_a_candidate_that_fails_costs_no_answer(service, staged, approved, monkeypatch, stage, how):
    """The champion answers, within the time the plan allows; what the candidate did is on record as its error."""
    monkeypatch.setattr(module, "STUCK", 0.0)
    entry = staged(stage, share=1, max_latency_ms=300)
    broken = service.champion.current().candidate.bundle
    ways = {"raises": raising, "nonsense": nonsense(broken), "hangs": hanging}
    monkeypatch.setattr(broken, "predict", ways[how])
    files = [healthy(number) for number in range(7)]
    judge(service, files[0])
    started = time.monotonic()
    answers = [judge(service, data) for data in files[1:]]
    seconds = time.monotonic() - started
    rows = compared(service, entry, 1)

    assert {answer.bundle_hash for answer in answers} == {approved}
    assert seconds < 6 * 3
    wanted = {"raises": "RuntimeError", "nonsense": "ValueError", "hangs": "TimeoutError"}[how]
    assert {(row.error, row.probability, row.answered) for row in rows} == {(wanted, None, False)}
    assert judge(service, files[1]) == answers[0]


def test_a_candidate_that_does_not_open_is_a_failure_of_every_case(service, staged, state, approved, rival):
    """And one whose files come back is tried again."""
    stage = staged("shadow")
    folder = state / "bundles" / Bundle.open(rival).hash
    shutil.move(folder, state / "elsewhere")
    assert judge(service, healthy(1)).bundle_hash == approved
    (row,) = compared(service, stage, 1)
    shutil.move(state / "elsewhere", folder)
    judge(service, healthy(2))

    assert row.error == "BundleCorrupt"
    assert compared(service, stage, 2)[1].error is None


def test_a_stage_that_nobody_signed_for_is_none(service, staged, approved):
    staged("canary", share=1, signed=False)

    assert judge(service, healthy(1)).bundle_hash == approved
    assert service.champion.current().candidate is None


def test_the_same_image_again_is_the_same_answer(service, staged, approved):
    """Also one that the champion judged before its patient became the candidate's; nothing is compared twice."""
    before = judge(service, healthy(1))
    stage = staged("canary", share=1)
    during = judge(service, healthy(2))
    rows = compared(service, stage, 1)

    assert (judge(service, healthy(1)), judge(service, healthy(2))) == (before, during)
    assert (before.version, during.version) == ("1", "2")
    assert service.log.comparisons(stage) == rows


def test_after_a_restart_the_stage_goes_on(config, staged, service):
    """Another process reads the ledger and meets the same patients."""
    stage = staged("canary", share=0.5)
    chosen = [judge(service, healthy(number)).version for number in range(8)]
    again = Service(config)
    fresh = [
        again.champion.current().candidate.answers(again._pseudonyms, p.patient_id) for p in again.log.predictions()
    ]

    assert [("2" if drawn else "1") for drawn in reversed(fresh)] == chosen
    assert again.champion.current().candidate.entry.hash == stage


def test_a_rollback_takes_the_candidate_off_from_the_next_request_on(service, staged, state, approved):
    staged("canary", share=1)
    assert judge(service, healthy(1)).version == "2"
    ledger = Ledger(state / "ledger.jsonl")
    body = {"name": NAME, "version": 1, "bundle_hash": approved, "reason": "drill", "user": "reviewer"}
    ledger.append("rollback", body, key=SigningKey.open(state / "keys", "reviewer"))

    assert judge(service, healthy(2)).version == "1"


def test_the_model_page_and_health_say_who_is_on_the_way(config, staged, running, xray):
    """The champion is who answers; the other is named with its stage, its share and how far it has come."""
    staged("canary", share=0.5)
    with running(config) as client:
        page = " ".join(client.get("/model").text.split())
        health = client.get("/health").json()

    assert "Version <strong>1</strong> answers." in page
    assert "Version <strong>2</strong> is on its way, in <strong>canary</strong>" in page
    assert "it answers the new cases of 50% of the patients. 0 of at least 4 cases so far." in page
    assert (health["version"], health["candidate"]) == ("1", {"version": "2", "stage": "canary", "opened": True})


def test_a_plan_of_another_version_costs_no_answer(service, staged, approved):
    """The champion answers as if nobody were on the way."""
    staged("canary", share=1, surprise=1)

    assert judge(service, healthy(1)).bundle_hash == approved
    assert service.champion.current().candidate is None


def test_the_model_page_says_who_was_taken_back(config, staged, state, running):
    ledger, stage = Ledger(state / "ledger.jsonl"), staged("shadow")
    said = {"name": NAME, "version": 2, "stage": "shadow", "stage_hash": stage, "reasons": ["2 of 2 cases failed"]}
    ledger.append("return", said)
    with running(config) as client:
        page = " ".join(client.get("/model").text.split())

    assert "Version <strong>2</strong> was taken back from <strong>shadow</strong> on" in page
    assert "UTC</time>: 2 of 2 cases failed.</p>" in page


def test_a_log_of_before_gets_its_table(service):
    """An older log has no comparisons; opening it makes the table and touches nothing else."""
    with service.log._transaction() as connection:
        connection.exec_driver_sql("drop table comparisons")
    service.log.create()

    assert service.log.comparisons("5" * 64) == []
