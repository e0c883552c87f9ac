"""Studies: several images of an examination are one case, one image is itself, and thresholds are frozen on studies."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dataset.rows import write_rows
from components.model import examples, measure, network
from components.model.calibrate import Calibrated, calibrate
from components.model.studies import Studies
from components.params import Calibrate, Evaluate
from components.serving.bundle import Attention, StudyThresholds, Threshold, Thresholds
from tests.sweeps import QUICK

PARAMS = Evaluate(resamples=200, prevalences=(0.05,), min_slice=10, robustness=QUICK, seed=0)
POINTS = Calibrate(high_sensitivity=0.95, high_specificity=0.95, conformal_alpha=0.1)
CUTS = Thresholds(
    high_sensitivity=Threshold(threshold=0.3, source_role="tune"),
    high_specificity=Threshold(threshold=0.7, source_role="tune"),
)


def table(study: list[str], label: list[float], patient: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"study_id": study, "patient_id": patient or study, "label": label})


def test_a_study_shows_a_fracture_when_any_of_its_images_does():
    found = Studies.of(table(["b", "a", "b", "c"], [0, 0, 1, 1], ["p", "q", "p", "p"]))

    assert found.labels.tolist() == [0, 1, 1]
    assert found.patients.tolist() == ["q", "p", "p"]
    assert found.images.tolist() == [1, 2, 1]
    assert found.mixed == 1


def test_both_rules():
    """Views of .5 and .2: the largest is .5, at least one of two independent ones 1 - .5 * .8."""
    found = Studies.of(table(["a", "a", "b"], [1, 1, 0]))
    p = np.array([0.5, 0.2, 0.1])

    assert found.maximum(p).tolist() == [0.5, 0.1]
    assert found.noisy_or(p) == pytest.approx([0.6, 0.1])


def test_certainty_of_one_view_is_certainty():
    """A probability of exactly 1 or 0 makes no number that is none."""
    found = Studies.of(table(["a", "a", "b", "b"], [1, 1, 0, 0]))

    assert found.noisy_or(np.array([1.0, 0.2, 0.0, 0.0])).tolist() == [1, 0]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1, width=32)), min_size=1, max_size=30), st.floats(0, 1))
def test_noisy_or_lies_between_the_largest_and_the_sum(rows, threshold):
    """So it calls at least what the largest calls, and the largest calls exactly where any image is called."""
    study, p = [str(n) for n, _ in rows], np.array([value for _, value in rows])
    found = Studies.of(table(study, [0.0] * len(rows)))
    highest, either = found.maximum(p), found.noisy_or(p)
    total = np.bincount(found.member, weights=p)
    called = np.bincount(found.member, weights=p >= threshold) > 0

    assert (either >= highest - 1e-12).all()
    assert (either <= np.minimum(total, 1) + 1e-12).all()
    assert np.array_equal(highest >= threshold, called)


def test_one_image_a_study_is_the_image():
    """Every figure of studies is then that of images, to the last digit."""
    random = np.random.default_rng(0)
    label = (np.arange(90) % 3 == 0).astype(float)
    p = 1 / (1 + np.exp(-random.normal(size=90) - 2 * label + 1))
    patients = np.array([f"p{n // 2:02d}" for n in range(90)])
    one = table([f"s{n:02d}" for n in range(90)], list(label), list(patients))
    found = measure.studies(Studies.of(one), p, CUTS, StudyThresholds(maximum=CUTS, noisy_or=CUTS), 0, PARAMS)
    image = measure.points(label, p, patients, CUTS, PARAMS)

    assert found.several == 0
    assert found.maximum.auroc == found.noisy_or.auroc == measure.ranking(label, p, patients, PARAMS)[0]
    for points in (found.as_served, found.maximum.points, found.noisy_or.points):
        assert points.high_sensitivity.sensitivity == image.high_sensitivity.sensitivity
        assert points.high_specificity.specificity == image.high_specificity.specificity


def test_several_images_call_more_at_the_thresholds_of_images():
    """Three healthy views at a specificity of .9 each clear .73 of studies; thresholds frozen on studies keep .9."""
    p = np.random.default_rng(1).random(6000)
    label = np.r_[np.ones(3), np.zeros(5997)]
    found = Studies.of(table([str(n // 3) for n in range(6000)], list(label)))
    cuts = Thresholds(
        high_sensitivity=Threshold(threshold=0.9, source_role="tune"),
        high_specificity=Threshold(threshold=0.9, source_role="tune"),
    )
    own = Thresholds(
        high_sensitivity=Threshold(threshold=0.9 ** (1 / 3), source_role="tune"),
        high_specificity=Threshold(threshold=0.9 ** (1 / 3), source_role="tune"),
    )
    figures = measure.studies(found, p, cuts, StudyThresholds(maximum=own, noisy_or=own), 0, PARAMS)

    assert figures.as_served.high_specificity.specificity.value == pytest.approx(0.729, abs=0.03)
    assert figures.maximum.points.high_specificity.specificity.value == pytest.approx(0.9, abs=0.02)


def test_one_kind_of_study_measures_nothing():
    """Every study with a fracture: there is no figure, and no error either."""
    one = Studies.of(table(["a", "a", "b"], [1, 0, 1]))

    assert measure.studies(one, np.array([0.1, 0.2, 0.3]), CUTS, None, 0, PARAMS) is None


def test_study_thresholds_keep_their_promise_on_tune(trained, make_archive, tmp_path):
    """On studies of two images, by either rule; where every study shows a fracture, none is frozen."""
    found = make_archive(tmp_path / "archive", {"tune": 48, "calibrate": 40})
    rows = pd.read_parquet(found.inputs["accepted"])
    for name, study in (("pairs", np.arange(88) // 4 * 2 + np.arange(88) % 2), ("mixed", np.arange(88) // 2)):
        write_rows(found.inputs["accepted"], rows.assign(study_id=[f"s{n}" for n in study]))
        calibrate(**found.inputs, trained=trained.trained, calibration=tmp_path / name, params=POINTS)
    curve, tune = Calibrated.read(tmp_path / "pairs"), examples.load(**found.inputs, roles=("tune",))
    p = curve.probability(network.logits(network.load(trained.trained / "model.keras"), tune.pixels))
    of = Studies.of(tune.table.assign(study_id=[f"s{n // 4 * 2 + n % 2}" for n in range(48)]))

    assert sorted(of.images) == [2] * 24
    for rule, said in (("maximum", of.maximum(p)), ("noisy_or", of.noisy_or(p))):
        points = getattr(curve.study_thresholds, rule)
        assert (said[of.labels == 1] >= points.high_sensitivity.threshold).mean() >= 0.95
        assert (said[of.labels == 0] < points.high_specificity.threshold).mean() >= 0.95
    assert (curve.study_thresholds.attention, curve.study_thresholds.no_attention[:34]) == (
        None,
        "`tune` has 12 studies of several i",
    )
    assert json.loads((tmp_path / "mixed").read_text())["study_thresholds"] is None


def several(seed: int, studies: int, *, spoilt: float) -> tuple[Studies, np.ndarray]:
    """Studies of one to four views; some views of any study are artefacts that score a little high, whoever it is."""
    random = np.random.default_rng(seed)
    images = random.integers(1, 5, studies)
    label = (np.arange(studies) % 2).astype(float)
    own = np.repeat(label, images)
    logits = random.normal(size=images.sum()) + np.where(own == 1, 2.5, -2.5)
    logits = np.where(random.random(len(logits)) < spoilt, random.normal(0.5, 0.3, len(logits)), logits)
    names = np.repeat([f"s{n:04d}" for n in range(studies)], images)
    return Studies.of(table(list(names), list(own))), 1 / (1 + np.exp(-logits))


def test_attention_leaves_a_study_of_one_image_as_it_is():
    found = Studies.of(table(["a", "b", "b"], [1, 0, 0]))
    p = np.array([0.37, 0.2, 0.9])

    assert found.attention(p, (2.0, -1.0, 0.5))[0] == 0.37


@given(st.lists(st.floats(0.001, 0.999), min_size=2, max_size=5))
def test_attention_has_the_mean_and_the_maximum_in_it(views):
    """No sharpness is the mean of the logits; much is the largest."""
    p = np.array(views)
    one = Studies.of(table(["a"] * len(p), [1.0] * len(p)))
    mean = 1 / (1 + np.exp(-np.mean(np.log(p / (1 - p)))))

    assert one.attention(p, (0.0, 0.0, 0.0)) == pytest.approx([mean])
    assert one.attention(p, (2000.0, 0.0, 0.0)) == pytest.approx([p.max()], abs=1e-3)


def test_attention_learns_which_views_matter():
    """Where unsure views are artefacts it weighs the sure ones: better than the maximum on studies it has not seen."""
    of, p = several(1, 200, spoilt=0.4)
    rule = of.fit(p)
    new, said = several(2, 1000, spoilt=0.4)
    attended = measure.ranking(new.labels, new.attention(said, rule), new.patients, PARAMS)[0]

    assert rule == of.fit(p)
    assert rule[1] > 0
    assert attended.low > measure.ranking(new.labels, new.maximum(said), new.patients, PARAMS)[0].high


def test_too_few_studies_of_several_images_fit_nothing_and_say_so():
    """Thirty of each kind are asked for; studies of one image do not count."""
    of = Studies.of(table([f"s{n}" for n in range(100)], [0.0, 1.0] * 50))

    assert of.fit(np.full(100, 0.5)) == (
        "`tune` has 0 studies of several images with and 0 without a fracture; attention needs 30 of each"
    )


def test_attention_is_reported_beside_the_others_with_its_gain():
    of, p = several(3, 300, spoilt=0.4)
    rule = Attention(
        sharpness=0.5, confidence=1.0, views=0.0, studies=200, source_role="tune", thresholds=CUTS
    )  # fmt: skip
    found = measure.studies(of, p, CUTS, StudyThresholds(maximum=CUTS, noisy_or=CUTS, attention=rule), 0, PARAMS)

    assert found.attention_gain.value == pytest.approx(found.attention.auroc.value - found.maximum.auroc.value)
    assert found.attention_gain.low > 0
    assert found.attention.points.high_sensitivity.threshold == 0.3
