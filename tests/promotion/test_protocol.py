"""The gate's rules: what passes, what fails, what cannot be told, and how often chance fools them."""

from __future__ import annotations

import numpy as np
import pytest

from components.model.comparison import Difference, holm, paired_difference, positives_needed
from components.model.statistics import Estimate
from components.promotion import protocol
from components.promotion.decision import Figures, Threshold
from tests.protocols import protocol_of

PARAMS = protocol_of(
    auroc_floor=0.8, sensitivity_floor=0.75, specificity_floor=0.85, margin=0.03, min_positives=60,
    min_negatives=60, look_budget=3,
)  # fmt: skip


def at(value: float, low: float, high: float, n: int = 400) -> Estimate:
    return Estimate(value, low, high, n)


def figures(auroc: Estimate, sensitivity: Estimate, specificity: Estimate) -> Figures:
    both = {"high_sensitivity": sensitivity, "high_specificity": sensitivity}
    other = {"high_sensitivity": specificity, "high_specificity": specificity}
    cut = {"high_sensitivity": Threshold(threshold=0.2, source_role="tune")}
    return Figures(bundle_hash="b", thresholds=cut, auroc=auroc, brier=auroc, sensitivity=both, specificity=other)


def difference(sensitivity: Estimate, specificity: Estimate, *, balanced: Estimate, matched: Estimate) -> Difference:
    return Difference(sensitivity, specificity, balanced, matched, (0.08, 0.08), (0.01, 0.01, 0.01))


GOOD = figures(at(0.93, 0.9, 0.95), at(0.9, 0.85, 0.94), at(0.95, 0.92, 0.97))
SAME = at(0.0, -0.01, 0.01)


def test_a_first_champion_clears_the_floors_by_its_lower_bounds():
    """AUROC, sensitivity and specificity, each by the lower end of its interval."""
    assert protocol.floors(GOOD, PARAMS, first=True).verdict == "passed"


def test_a_wide_interval_is_no_pass():
    """Above the floor, but not by the interval: inconclusive, with the number of images that would tell."""
    wide = figures(at(0.93, 0.9, 0.95), at(0.8, 0.7, 0.88, n=60), at(0.95, 0.92, 0.97))
    ruling = protocol.floors(wide, PARAMS, first=True)

    assert ruling.verdict == "inconclusive"
    assert ruling.reasons == (
        "Sensitivity at the high-sensitivity point is .800 (.700-.880) on 60 images: above the floor of 0.75, "
        "but not by its interval; about 241 images would show it.",
    )


def test_below_the_floor_fails():
    """The figure itself is below: more images would not help."""
    poor = figures(at(0.75, 0.7, 0.82), at(0.9, 0.85, 0.94), at(0.95, 0.92, 0.97))

    assert protocol.floors(poor, PARAMS, first=True).verdict == "failed"


def test_too_few_images_decide_nothing():
    """Not even a failure: the number that is missing is named."""
    poor = figures(at(0.5, 0.4, 0.6), at(0.5, 0.4, 0.6), at(0.5, 0.4, 0.6))
    ruling = protocol.enough(20, 100, PARAMS) + protocol.floors(poor, PARAMS, first=True)

    assert ruling.verdict == "inconclusive"
    assert ruling.reasons[0] == "The test set has 20 fractures, the protocol asks for 60: 40 more are needed."


def test_an_equal_challenger_passes():
    """Both rates shown to be within the margin."""
    found = difference(SAME, SAME, balanced=SAME, matched=SAME)

    assert protocol.judge_point("high_sensitivity", found, at(0.95, 0.9, 0.98), PARAMS).verdict == "passed"


def test_a_promise_kept_at_any_price_fails():
    """Calling everything a fracture keeps sensitivity; the specificity it costs is compared as well."""
    found = difference(
        at(0.05, 0.02, 0.08), at(-0.6, -0.65, -0.55), balanced=at(-0.28, -0.3, -0.25), matched=at(0, -0.01, 0.01)
    )
    ruling = protocol.judge_point("high_sensitivity", found, at(1, 0.98, 1), PARAMS)

    assert ruling.verdict == "failed"
    assert ruling.reasons == (
        "At the high-sensitivity point the challenger's specificity is worse by .600 (.550-.650); "
        "up to 0.03 is allowed.",
    )


def test_a_drifted_champion_can_be_replaced():
    """Champion 1.00/.10, challenger .94/.85: the sensitivity given up was bought with false alarms."""
    found = difference(
        at(-0.06, -0.1, -0.03), at(0.75, 0.7, 0.8), balanced=at(0.345, 0.3, 0.38), matched=at(0.2, 0.1, 0.3)
    )
    ruling = protocol.judge_point("high_sensitivity", found, at(0.94, 0.9, 0.97), PARAMS)

    assert ruling.verdict == "passed"
    assert "trade-off is repaired: sensitivity changes by -.060 (-.100 to -.030)" in ruling.reasons[0]


@pytest.mark.parametrize(
    ("matched", "kept"),
    [
        (at(-0.13, -0.18, -0.08), at(0.80, 0.76, 0.84)),  # below the champion's own ROC curve
        (at(0.02, -0.01, 0.05), at(0.70, 0.65, 0.74)),  # below the floor of a first champion
    ],
)
def test_a_loss_that_nothing_excuses_fails(matched, kept):
    """A better balance does not buy missed fractures that the champion would have found at the same price."""
    found = difference(at(-0.19, -0.25, -0.13), at(0.3, 0.25, 0.35), balanced=at(0.055, 0.02, 0.09), matched=matched)

    assert protocol.judge_point("high_sensitivity", found, kept, PARAMS).verdict == "failed"


def test_a_small_test_set_says_how_many_would_tell():
    """Discordance .08 at margin .03: 698."""
    wide = at(0.0, -0.06, 0.06, n=80)
    ruling = protocol.judge_point(
        "high_sensitivity", difference(wide, SAME, balanced=SAME, matched=SAME), at(0.95, 0.9, 0.98), PARAMS
    )

    assert ruling.verdict == "inconclusive"
    assert "about 698 fractures would tell" in ruling.reasons[0]


@pytest.mark.parametrize(
    ("margin", "power", "expected"), [(0.03, 0.8, 698), (0.03, 0.9, 934), (0.05, 0.8, 252), (0.05, 0.9, 337)]
)
def test_positives_needed(margin, power, expected):
    """The reference's table at discordance .08."""
    assert positives_needed(margin, 0.08, power=power) == expected


def test_holm_stops_at_the_first_that_stands():
    """.01 and .013 are below .05/4 and .05/3, .04 is not below .05/2; what follows stands as well."""
    assert holm([0.04, 0.01, 0.9, 0.013], 0.05).tolist() == [False, True, False, True]


def judged(labels, patients, challenger, champion, *, resamples=300):
    return paired_difference(
        labels, patients, challenger=(challenger, 0.5), champion=(champion, 0.5), promise="sensitivity",
        resamples=resamples, seed=0,
    )  # fmt: skip


def test_identical_bundles_do_not_differ():
    """Zero, but with an interval: 80 fractures without a disagreement do not exclude a loss of 3%."""
    labels, p = np.tile([1.0, 0.0], 80), np.tile([0.9, 0.1], 80)
    found = judged(labels, np.arange(160), p, p, resamples=2000)

    assert (found.sensitivity.value, found.discordant) == (0.0, (0.0, 0.0))
    assert -0.05 < found.sensitivity.low < -0.03


def test_matched_compares_with_the_champions_curve():
    """Champion calls all: at the challenger's specificity of .5 its curve finds one of two, the challenger both."""
    labels = np.array([1.0, 1.0, 0.0, 0.0] * 10)
    champion = np.array([0.9, 0.6, 0.8, 0.7] * 10)
    challenger = np.array([0.9, 0.8, 0.7, 0.1] * 10)
    found = judged(labels, np.arange(40), challenger, champion)

    assert found.matched.value == 0.5
    assert found.specificity.value == 0.5
    assert found.balanced.value == 0.25


@pytest.mark.parametrize(("patients", "images"), [(60, 1), (80, 3), (300, 1)])
def test_a_challenger_that_is_worse_by_the_margin_rarely_passes(patients, images):
    """Type I error of non-inferiority in sensitivity is at most 5%, with few fractures and with correlated ones."""
    random, passed, runs = np.random.default_rng(patients), 0, 400
    for _ in range(runs):
        # Loss .055, win .025: worse by .03; half of a patient's images share one fate.
        fate = random.choice([-1, 0, 1], p=[0.055, 0.92, 0.025], size=(patients, images + 1))
        shared = np.where(random.random((patients, images)) < 0.5, fate[:, :1], fate[:, 1:]).ravel()
        labels = np.concatenate([np.ones(shared.size), np.zeros(shared.size)])
        whose = np.tile(np.repeat(np.arange(patients), images), 2)
        challenger = np.concatenate([np.where(shared < 0, 0.1, 0.9), np.full(shared.size, 0.1)])
        champion = np.concatenate([np.where(shared > 0, 0.1, 0.9), np.full(shared.size, 0.1)])
        passed += judged(labels, whose, challenger, champion, resamples=250).sensitivity.low > -0.03

    assert passed / runs <= 0.05


def simulated(random, *, sensitivity: tuple[float, float], specificity: tuple[float, float], images: int = 300) -> str:
    """The verdict at the high-sensitivity point; each pair is how often the challenger loses and wins an image."""

    def turned(kind: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        fate = random.choice([-1, 0, 1], p=[kind[0], 1 - sum(kind), kind[1]], size=images)
        both_right = random.random(images) < 0.95
        return np.where(fate == 0, both_right, fate > 0), np.where(fate == 0, both_right, fate < 0)

    found, clear = turned(sensitivity), turned(specificity)
    labels = np.repeat([1.0, 0.0], images)
    mine, other = (np.concatenate([np.where(found[k], 0.9, 0.1), np.where(clear[k], 0.1, 0.9)]) for k in (0, 1))
    difference = judged(labels, np.arange(2 * images) // 2, mine, other, resamples=250)
    kept = Estimate(found[0].mean(), found[0].mean() - 0.03, 1, images)
    return protocol.judge_point("high_sensitivity", difference, kept, PARAMS).verdict


def test_a_point_passes_a_worse_challenger_in_at_most_5_percent():
    """Both roads together: sensitivity lower by the margin, specificity the same."""
    random = np.random.default_rng(3)
    verdicts = [simulated(random, sensitivity=(0.055, 0.025), specificity=(0.04, 0.04)) for _ in range(400)]

    assert verdicts.count("passed") / 400 <= 0.05


def test_a_point_passes_a_repair():
    """Champion's specificity collapsed to .3, its sensitivity .04 above the challenger's: nearly always passed."""
    random = np.random.default_rng(4)
    verdicts = [simulated(random, sensitivity=(0.05, 0.01), specificity=(0.02, 0.65)) for _ in range(100)]

    assert verdicts.count("passed") >= 95
