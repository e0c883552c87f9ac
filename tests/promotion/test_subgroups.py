"""Slices: a loss that is shown fails, chance is blamed in 5% of test sets at most, what is too small is named."""

from __future__ import annotations

import numpy as np
import pandas as pd

from components.model.statistics import Estimate
from components.promotion.decision import Figures, Threshold
from components.promotion.protocol import Beside
from components.promotion.subgroups import Sliced, subgroups
from tests.protocols import protocol_of

SURE = Estimate(0.9, 0.85, 0.95, 400)
RATES = {"high_sensitivity": SURE, "high_specificity": SURE}
FIGURES = Figures(
    bundle_hash="b", thresholds=dict.fromkeys(RATES, Threshold(threshold=0.5, source_role="tune")), auroc=SURE,
    brier=SURE, sensitivity=RATES, specificity=RATES,
)  # fmt: skip
BY_SITE = {"columns": ("site",), "margin": 0.05, "insufficient": "warn"}
PARAMS = protocol_of(slices=BY_SITE)


def probabilities(labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.where(right == (labels == 1), 0.9, 0.1)


def world(random, sites: dict[str, int], lost: dict[str, float], *, win: float = 0.02, images: int = 2):
    """Two bundles on `sites`: patients of either class, `images` each, half of which share the patient's fate.

    Args:
        lost: by how much the challenger's rates lie below the champion's, in truth.
    """
    tables, mine, theirs = [], [], []
    for site, patients in sites.items():
        size = (2 * patients, images + 1)
        loss = lost.get(site, 0.0) + win
        fate = random.choice([-1, 0, 1], p=[loss, 1 - loss - win, win], size=size)
        shared = np.where(random.random((size[0], images)) < 0.5, fate[:, :1], fate[:, 1:]).ravel()
        labels = np.repeat([1.0, 0.0], patients * images)
        whose = [f"{site}{n}" for n in np.repeat(np.arange(2 * patients), images)]
        tables.append(pd.DataFrame({"site": site, "patient_id": whose, "label": labels}))
        mine.append(probabilities(labels, shared >= 0))
        theirs.append(probabilities(labels, shared <= 0))
    table = pd.concat(tables, ignore_index=True)
    return table, (np.concatenate(mine), FIGURES), (np.concatenate(theirs), FIGURES)


def judged(table, challenger, champion, *, params=PARAMS, resamples=200, repaired=frozenset()):
    of = Sliced(table, table["label"].to_numpy(), table["patient_id"].to_numpy(), 30, resamples, 0)
    beside = [Beside("champion", champion[0], champion[1], repaired)] if champion else []
    ruling, (compared,) = subgroups(of, challenger, beside, params)
    return ruling, compared


def blamed(found) -> set[str]:
    return {part.value for part in found[1] if part.verdict == "worse"}


def test_chance_blames_some_slice_in_at_most_5_percent():
    """Every slice loses just the margin, in both rates: eight comparisons, images correlated, a fourth discordant."""
    random, runs = np.random.default_rng(0), 150
    sites = {"a": 20, "b": 30, "c": 60, "d": 30}
    hits = [blamed(judged(*world(random, sites, dict.fromkeys(sites, 0.05), win=0.1))) for _ in range(runs)]

    assert sum(map(bool, hits)) / runs <= 0.05


def test_a_site_that_loses_20_percent_is_found_in_four_of_five():
    """Fifty patients of either class there, two images each; three sites without a loss beside it."""
    random, runs = np.random.default_rng(1), 60
    sites = {"a": 50, "b": 30, "c": 30, "d": 30}
    hits = [blamed(judged(*world(random, sites, {"a": 0.2}))) for _ in range(runs)]

    assert sum("a" in hit for hit in hits) / runs >= 0.8
    assert not any(hit - {"a"} for hit in hits)


def test_a_loss_is_told_with_its_figures():
    """The check fails, the sentence says where, which rate and by how much; the record has every slice."""
    ruling, parts = judged(*world(np.random.default_rng(2), {"a": 100, "b": 100}, {"b": 0.3}), resamples=2000)

    assert ruling.checks[0].verdict == ruling.verdict == "failed"
    assert ruling.checks[0].found.startswith("1 of 2 judged (Holm, 0.05); 0 insufficient")
    assert ruling.reasons[0].startswith("site b: sensitivity changes by -.3")
    assert ruling.reasons[0].endswith("on 200 fractures, beyond doubt a loss of more than 0.05.")
    assert [(part.value, part.verdict) for part in parts] == [("a", "kept"), ("b", "worse")]


def test_a_small_slice_is_named_and_not_passed():
    """As a warning, or, where the protocol requires to know, as inconclusive."""
    found = world(np.random.default_rng(3), {"a": 60, "b": 10}, {"b": 0.3})
    ruling, parts = judged(*found)
    strict, _ = judged(*found, params=protocol_of(slices=BY_SITE | {"insufficient": "require"}))

    assert ruling.warnings == ("Too few to judge (fractures/non-fractures): site b (20/20).",)
    assert (ruling.checks[1].found, ruling.checks[1].verdict, ruling.verdict) == ("1 of 2", "warned", "passed")
    assert (parts[1].verdict, parts[1].sensitivity, strict.verdict) == ("insufficient", None, "inconclusive")


def test_where_no_slice_is_judged_none_is_passed():
    """Nothing was seen to be worse, because nothing was looked at."""
    ruling, _ = judged(*world(np.random.default_rng(8), {"a": 10, "b": 10}, {}))

    assert [check.verdict for check in ruling.checks] == ["warned", "warned"]


def test_a_column_that_no_image_states_is_named():
    """Nothing is known of it: no green tick."""
    by_view = protocol_of(slices=BY_SITE | {"columns": ("site", "view")})
    ruling, _ = judged(*world(np.random.default_rng(4), {"a": 60, "b": 60}, {}), params=by_view)

    assert ruling.warnings == ("Slices by view are not judged: no image says.",)
    assert ruling.checks[1].found == "2 of 2; none by view"


def test_a_first_champions_slice_below_the_floor_fails():
    """Sensitivity .55 at one site where .75 is asked; a site at .9 stays, and chance alone is not blamed."""
    random = np.random.default_rng(5)
    table, challenger, _ = world(random, {"a": 100, "b": 100}, {"a": 0.08, "b": 0.43})
    ruling, parts = judged(table, challenger, None)

    assert [(part.value, part.verdict) for part in parts] == [("a", "kept"), ("b", "worse")]
    assert "beyond doubt below the floor of 0.75." in ruling.reasons[0]
    assert ruling.verdict == "failed"


def test_a_first_champion_at_the_floors_is_blamed_in_at_most_5_percent():
    """Both rates of every site are exactly what is asked, of correlated images."""
    random, runs = np.random.default_rng(6), 300
    sites, params = {"a": 20, "b": 30, "c": 60}, protocol_of(slices=BY_SITE, specificity_floor=0.75)
    hits = 0
    for _ in range(runs):
        table, challenger, _ = world(random, sites, dict.fromkeys(sites, 0.23))
        hits += bool(blamed(judged(table, challenger, None, params=params)))

    assert hits / runs <= 0.05


def test_a_repair_is_not_forbidden_slice_by_slice():
    """The champion calls nearly everything a fracture: its sensitivity is 1 and no honest model keeps that."""
    random = np.random.default_rng(7)
    table, _, _ = world(random, {"a": 100, "b": 100}, {})
    labels = table["label"].to_numpy()
    right = random.random(len(labels)) < 0.85
    champion = (1 / (1 + np.exp(-3 - 1.5 * labels - random.normal(size=len(labels)))), FIGURES)
    found = (table, (probabilities(labels, right), FIGURES), champion)

    assert blamed(judged(*found)) == {"a", "b"}
    assert blamed(judged(*found, repaired=frozenset({"high_sensitivity"}))) == set()
