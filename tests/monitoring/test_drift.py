"""Drift: silent on what did not move, loud and readable on what did, and honest when it cannot know."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from components.dataset.inputs import judge_predictions
from components.dataset.limits import Limits
from components.errors import DataError
from components.monitoring.alerts import findings
from components.monitoring.drift import _judge, drift
from tests.dataset.tables import OPEN
from tests.monitoring.windows import MONITOR, reference, window


def judge(table, known=None):
    """The verdict alone; the report is tested in test_report."""
    known = window(seed=1, patients=300) if known is None else known
    return _judge(known.drop(columns=["time", "device"]), table, MONITOR, 0)


def test_windows_of_the_same_law_raise_no_alarm_more_often_than_promised():
    """25 windows of 40 patients without drift; nominal is q, 5%: at most one of them alarms."""
    known = window(seed=1, patients=300)
    alarms = [judge(window(seed=100 + seed, patients=40), known).drifted for seed in range(25)]

    assert sum(alarms) <= 1


def test_a_reference_without_patients_is_read_as_clustered_as_the_window():
    """A reference need not say whose images they are: evidence is not overstated for that."""
    known, table = window(seed=1, patients=300), window(seed=21, patients=60, shift={"noise": 0.4})

    with_ids, without = judge(table, known), judge(table, known.drop(columns="patient_id"))

    assert [f.p for f in without.features] == pytest.approx([f.p for f in with_ids.features])


def test_more_legs_than_usual_is_a_change_of_mix_and_nothing_else():
    found = judge(window(seed=5, patients=80, hands=0.15))

    assert [f.name for f in found.tested if f.drifted] == ["body_region"]
    assert (
        found.reasons == ("the mix of `body_region` changed for 50% of the cases",) or "body_region" in found.reasons[0]
    )


@pytest.mark.parametrize("name", ["noise", "sharpness", "probability"])
def test_a_planted_shift_is_found_and_named(name):
    """One standard deviation in 60 patients, and nothing else is accused."""
    found = judge(window(seed=7, patients=60, shift={name: 1.0}))

    assert found.drifted
    assert [f.name for f in found.tested if f.drifted] == [name]
    assert found.reasons[0].startswith(f"`{name}` rose: median ")


def test_a_shift_that_only_the_model_sees_is_found():
    found = judge(window(seed=8, patients=60, embedding_shift=1.5))

    assert [f.name for f in found.tested if f.drifted] == ["embedding"]
    assert "images look different to the model" in found.reasons[0]


def test_a_significant_but_small_shift_is_not_drift():
    """With 2,000 patients a quarter of a standard deviation is certain, and below the effect floor."""
    found = judge(window(seed=9, patients=2000, shift={"noise": 0.25}))
    noise = next(f for f in found.features if f.name == "noise")

    assert noise.q_rejected
    assert not noise.drifted
    assert found.status == "stable"


def test_few_cases_are_insufficient_not_fine():
    found = judge(window(seed=10, patients=20, shift={"noise": 5.0}))

    assert (found.status, found.drifted, found.tested) == ("insufficient", False, ())
    assert found.reasons == ("only 40 cases in the window; 50 are needed to judge drift",)


def test_an_empty_window_is_insufficient():
    assert judge(window(seed=11, patients=1).iloc[:0]).status == "insufficient"


def test_a_site_the_reference_never_saw_is_named():
    table = pd.concat([window(seed=12, patients=40), window(seed=13, patients=20, site="site-b")], ignore_index=True)

    found = judge(table)

    assert found.new_sites == ("site-b",)
    assert "site site-b is not in the reference (40 of 120 cases)" in found.reasons
    assert [(s.site, s.cases, s.reference_cases) for s in found.sites] == [("site-a", 80, 600), ("site-b", 40, 0)]


def test_a_feature_without_values_is_untested_not_drifted():
    table = window(seed=14, patients=60).assign(deviation_index=np.nan, noise=None)

    found = judge(table)

    assert {"deviation_index", "noise"} & {f.name for f in found.features} == set()
    assert found.untested[0] == "`noise`: 0 comparable values in the window, 600 in the reference"
    assert found.status == "stable"


def test_a_feature_column_may_be_absent():
    assert judge(window(seed=14, patients=60).drop(columns="cnr")).status == "stable"


def test_embeddings_of_another_size_are_untested():
    table = window(seed=15, patients=60)
    table["embedding"] = [v[:5] for v in table["embedding"]]

    assert judge(table).untested == ("`embedding`: missing, or of another size than the reference's",)


def test_equal_inputs_give_equal_verdicts_and_are_left_alone():
    table = window(seed=16, patients=60, shift={"noise": 1.0})
    before = table.copy(deep=True)

    assert judge(table) == judge(table.copy())
    pd.testing.assert_frame_equal(table, before)


def test_predictions_of_two_bundles_are_refused(tmp_path):
    """Scores and embeddings of different models do not compare."""
    table = window(seed=17, patients=30).assign(bundle_hash=["a", "b"] * 30)

    with pytest.raises(DataError, match="expected predictions of one bundle, found 2"):
        drift(reference=reference(tmp_path), current=table, report=tmp_path / "report", params=MONITOR)


def test_a_missing_reference_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="export it again"):
        drift(reference=tmp_path / "none", current=window(1, 30), report=tmp_path / "report", params=MONITOR)


def test_an_insufficient_window_still_has_a_report(tmp_path):
    drift(reference=reference(tmp_path), current=window(18, 10), report=tmp_path / "report", params=MONITOR)

    written = json.loads((tmp_path / "report" / "drift.json").read_text())
    assert written["status"] == "insufficient"
    assert "only 20 cases in the window" in (tmp_path / "report" / "drift.html").read_text()


IMAGES = OPEN.model_copy(
    update={
        "min_side_px": 96,
        "max_saturation": 0.6,
        "min_grey_levels": 64,
        "min_field_fraction": 0.25,
        "min_sharpness": 1.0,
    }
)


def watched(tmp_path, *, failing: int, patients: int = 60):
    """A calm window whose first `failing` images are overexposed; a quarter of them may be."""
    good = {"saturation": 0.01, "grey_levels": 200.0, "field_fraction": 0.9, "sharpness": 50.0, "noise": 0.01}
    good |= {"clutter": 1.0, "polarity_ok": True}
    table = window(seed=19, patients=patients).assign(**good)
    table.loc[: failing - 1, "saturation"] = 0.9
    inputs = judge_predictions(table, limits=Limits(), params=IMAGES)
    known = window(seed=1, patients=300).assign(**good)
    return drift(
        reference=reference(tmp_path, known), current=table, report=tmp_path / "report", params=MONITOR,
        inputs=inputs, max_failing=0.25,
    )  # fmt: skip


def test_images_that_no_training_set_would_have_are_told_and_are_no_drift(tmp_path):
    found = watched(tmp_path, failing=6)

    assert found.reasons == ("Quality: 6 of 120 images fail the suite `images` (max_saturation 6).",)
    assert (found.unusable, findings(found, None)) == (False, ())


def test_more_of_them_than_a_data_set_may_have_are_an_alert(tmp_path):
    found = watched(tmp_path, failing=36)

    assert "Quality: 36 of 120 images fail the suite `images` (max_saturation 36). A data set may have 25%." in (
        found.reasons
    )
    assert "inputs:images" in findings(found, None)
    assert "Quality: 36 of 120 images" in (tmp_path / "report" / "drift.html").read_text()


def test_a_few_cases_alarm_nobody_however_bad(tmp_path):
    assert not watched(tmp_path, failing=20, patients=10).unusable
