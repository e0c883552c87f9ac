"""The guards of a roll-out: what holds a version, what takes it back, and how often they err."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from components.promotion.stages import following, judge
from components.serving.store import Comparison
from tests.protocols import AT_ONCE

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LOW, HIGH = 0.2, 0.6
NEEDED = 50


def case(number: int, champion: float | None = 0.3, candidate: float | None = 0.3, **changes) -> Comparison:
    """A case of a patient with two images; a score of None is a failure of the candidate."""
    row = {
        "stage": "5" * 64,
        "image_id": f"image-{number}",
        "patient_id": f"patient-{number // 2}",
        "time": NOON,
        "champion_hash": "a" * 64,
        "candidate_hash": "b" * 64,
        "answered": False,
        "champion_probability": champion,
        "champion_call": called(champion),
        "probability": candidate,
        "call": called(candidate),
        "milliseconds": 40.0,
        "error": "ValueError" if candidate is None else None,
    }
    return Comparison(**(row | changes))


def called(score: float | None) -> str | None:
    if score is None:
        return None
    return "no_fracture" if score < LOW else "fracture" if score >= HIGH else "review"


def verdict(cases: list[Comparison], **plan) -> str:
    return judge(cases, AT_ONCE.model_copy(update=plan), needed=NEEDED).verdict


def test_enough_cases_without_a_complaint_let_it_go_on():
    """One case before, it waits; the figures of the stage are what was met."""
    cases = [case(number) for number in range(NEEDED)]

    assert (verdict(cases[:-1]), verdict(cases)) == ("wait", "on")
    assert judge(cases, AT_ONCE, needed=NEEDED).seen.model_dump() == {
        "cases": 50, "patients": 25, "failed": 0, "errors": {}, "slow": 0, "latency_ms": 40.0, "compared": 50,
        "contradicted": 0, "score_shift": 0.0,
    }  # fmt: skip


def test_a_candidate_that_always_fails_is_taken_back_after_two_cases():
    """Under a limit of 2% two failures of two come once in 2,500 times."""
    cases = [case(number, candidate=None) for number in range(2)]
    found = judge(cases, AT_ONCE, needed=NEEDED)

    assert (verdict(cases[:1]), found.verdict, found.seen.errors) == ("wait", "back", {"ValueError": 2})
    assert found.reasons == ("2 of 2 cases failed; up to 2.0% are allowed",)


def test_what_may_be_chance_holds_it_and_takes_nothing_back():
    """Two failures of 50 are more than 2%, and shown to be nothing: more cases decide, and 100 let it go on."""
    cases = [case(number, candidate=None if number < 2 else 0.3) for number in range(100)]

    assert [verdict(cases[:many]) for many in (50, 99, 100)] == ["wait", "wait", "on"]


def test_slow_is_one_case_in_twenty_too_many():
    """The limit is on the 95th percentile."""
    cases = [case(number, milliseconds=2500 if number % 4 == 0 else 40) for number in range(32)]
    found = judge(cases, AT_ONCE, needed=NEEDED)

    assert found.verdict == "back"
    assert found.reasons == ("8 of 32 cases took longer than 2,000 ms; up to 5.0% are allowed",)


def test_opposite_calls_take_it_back_and_a_doubt_does_not():
    """`review` contradicts nobody: a person decides."""
    opposite = [case(number, *((0.1, 0.7) if number % 2 else (0.7, 0.1))) for number in range(20)]
    doubtful = [case(number, 0.1, 0.3) for number in range(20)]

    (reason,) = judge(opposite, AT_ONCE, needed=NEEDED).reasons
    assert reason == "20 of 20 cases are a fracture to one model alone; up to 10.0% are allowed"
    assert judge(doubtful, AT_ONCE, needed=NEEDED).seen.contradicted == 0


def test_scores_of_another_shape_take_it_back():
    """No call contradicts another, and the scores are apart all the same; ten patients could be chance, twelve not."""
    cases = [case(number, 0.21 + number / 1000, 0.5 + number / 1000) for number in range(24)]

    assert [verdict(cases[:many], max_contradicted=1) for many in (20, 24)] == ["wait", "back"]
    assert "lie 1.00 apart (Kolmogorov-Smirnov distance, 24 cases)" in judge(cases, AT_ONCE, needed=NEEDED).reasons[0]


def test_what_only_one_model_judged_is_not_compared():
    """The champion's failure in silence is no fault of the candidate."""
    cases = [case(number, champion=None) for number in range(NEEDED)]
    found = judge(cases, AT_ONCE, needed=NEEDED)

    assert (found.verdict, found.seen.compared, found.seen.score_shift) == ("on", 0, None)


@pytest.mark.parametrize(
    ("shadow", "canary", "way"),
    [(9, 9, ["shadow", "canary"]), (0, 9, ["canary"]), (9, 0, ["shadow"]), (0, 0, [])],
)
def test_a_stage_without_cases_is_skipped(shadow, canary, way):
    plan, found = AT_ONCE.model_copy(update={"shadow_cases": shadow, "canary_cases": canary}), []
    while stage := following(plan, found[-1] if found else None):
        found.append(stage)

    assert found == way


# What a candidate says where the champion says x (logits); noise is what two honest builds differ by.
def honest(x, noise):
    return x + noise


BROKEN = {
    "a constant": lambda x, noise: np.zeros_like(x),
    "upside down": lambda x, noise: -x,
    "of other cases": lambda x, noise: np.roll(x, 7),
    "far too sure of fractures": lambda x, noise: x + 3,
}


def stage(dice: np.random.Generator, candidate, many: int = NEEDED, failing: float = 0, slow: float = 0):
    """`many` cases of patients with two images alike; three in ten patients have a fracture."""
    truth = np.repeat(dice.random(many // 2) < 0.3, 2)
    x = np.where(truth, 1.5, -1.5) + np.repeat(dice.normal(0, 1, many // 2), 2) + dice.normal(0, 0.7, many)
    said = 1 / (1 + np.exp(-np.stack([x, candidate(x, dice.normal(0, 0.5, many))])))
    fails, late = dice.random(many) < failing, dice.random(many) < slow
    return [
        case(n, float(said[0, n]), None if fails[n] else float(said[1, n]), milliseconds=9999 if late[n] else 40)
        for n in range(many)
    ]


def ends(runs: int, candidate=honest, **options) -> dict[str, float]:
    """How stages end, as shares, when the flow looks after every patient; "wait": not within the cases."""
    dice = np.random.default_rng(20261123)
    found = []
    for _ in range(runs):
        cases = stage(dice, candidate, **options)
        looks = (verdict(cases[:many]) for many in range(2, len(cases) + 1, 2))
        found.append(next((look for look in looks if look != "wait"), "wait"))
    return {end: found.count(end) / runs for end in ("on", "wait", "back")}


def test_a_version_without_fault_goes_on_and_is_not_taken_back():
    """Another honest build: nearly all go on with the first 50 cases, the rest with a few more."""
    found = ends(100, many=100)

    assert (found["on"] >= 0.99, found["back"]) == (True, 0)


def test_what_fails_and_is_slow_exactly_as_often_as_allowed_is_rarely_taken_back():
    assert ends(60, many=100, failing=AT_ONCE.max_error_rate, slow=0.05)["back"] <= 0.05


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_version_is_taken_back(broken):
    """Silently, in the shadow; scores of other cases than the one at hand take a hundred or two, and do not go on."""
    assert ends(20, BROKEN[broken], many=300)["back"] >= 0.95


def test_a_version_that_often_fails_or_is_often_slow_is_taken_back():
    assert ends(40, many=100, failing=0.25)["back"] >= 0.95
    assert ends(40, many=100, slow=0.35)["back"] >= 0.95
