"""Rows are quarantined with a reason; a set that breaks its contract stops the pipeline and says why."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from components.dataset.facts import effect
from components.dataset.shortcuts import shortcuts
from components.errors import DataError, ExpectationsFailed
from tests.dataset.tables import PARAMS, Tables


@pytest.fixture
def tables(tmp_path, make):
    return Tables(tmp_path, make.squares)


def test_a_good_set_is_accepted_whole(tables):
    accepted = tables.run()

    assert accepted["accepted"].all()
    assert set(accepted["reasons"]) == {""}
    assert tables.results["passed"]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("saturation", 0.7, "max_saturation"),
        ("grey_levels", 12.0, "min_grey_levels"),
        ("field_fraction", 0.01, "min_field_fraction"),
        ("sharpness", 0.2, "min_sharpness"),
        ("sharpness", np.nan, "measured"),
        ("noise", 0.1, "max_noise"),
        ("clutter", 60.0, "max_clutter"),
        ("polarity_ok", False, "polarity_ok"),
    ],
)
def test_a_bad_image_is_quarantined_with_its_reason(tables, column, value, reason):
    tables.features.loc[7, column] = value

    accepted = tables.run()

    assert list(accepted.loc[~accepted["accepted"], "image_id"]) == ["image-07"]
    assert accepted.loc[7, "reasons"] == reason
    assert tables.results["quarantined"]["by_reason"] == {reason: 1}


def test_a_strip_is_quarantined(tables):
    tables.splits.loc[7, ["rows", "columns"]] = [1600, 300]

    accepted = tables.run()

    assert accepted.loc[7, "reasons"] == "min_aspect"


def test_a_small_image_is_quarantined(tables):
    tables.splits.loc[3, "columns"] = 95

    assert tables.run().loc[3, "reasons"] == "min_side_px"


def test_an_image_keeps_all_its_reasons_and_its_role(tables):
    tables.features.loc[5, ["saturation", "polarity_ok"]] = [0.9, False]

    row = tables.run().loc[5]

    assert (row["reasons"], row["role"]) == ("max_saturation;polarity_ok", "tune")


def test_one_picture_with_opposite_labels_is_not_learned_from(tables):
    """The whole group goes, its unlabelled member too; a group that agrees stays."""
    tables.splits.loc[[4, 6, 8], "picture_id"] = "image-00"  # 0 and 6 show a fracture, 4 and 8 do not
    tables.splits.loc[8, "label"] = np.nan
    tables.splits.loc[[5, 7], "picture_id"] = "image-05"  # neither shows one

    accepted = tables.run()

    assert list(accepted.loc[~accepted["accepted"], "image_id"]) == ["image-00", "image-04", "image-06", "image-08"]
    assert set(accepted.loc[~accepted["accepted"], "reasons"]) == {"label_conflict"}


def test_images_with_opposite_labels_stand_side_by_side(tables):
    tables.splits.loc[4, "picture_id"] = "image-00"  # 0 shows a fracture, 4 does not
    tables.run()

    page = (tables.folder / "validation" / "index.html").read_text()
    [block] = re.findall(r"<h3>one picture, opposite labels</h3>(.*?)</div>", page, re.DOTALL)
    assert re.findall(r"<figcaption>(.*?)<br><code>(.*?)</code>", block) == [
        ("fracture", "image-00"),
        ("no fracture", "image-04"),
    ]
    assert block.count('src="data:image/png;base64,') == 2


def test_the_page_shows_offending_images_and_no_others(tables):
    tables.features.loc[range(20, 30), "saturation"] = 0.7
    tables.run()

    page = (tables.folder / "validation" / "index.html").read_text()
    shown = re.findall(r"<figcaption>.*?<code>(.*?)</code>", page)
    assert shown == [f"image-{n}" for n in range(20, 28)]  # eight a reason; the list names all ten


def test_withdrawn_images_are_counted_and_not_shown(tables):
    """They are told in the findings; no picture of them stands on the page, whatever is wrong with it."""
    tables.features.loc[[20, 21], "saturation"] = 0.7
    tables.splits.loc[[20, 24], ["role", "withdrawn"]] = ["excluded", True]
    tables.run()
    page = (tables.folder / "validation" / "index.html").read_text()

    assert {
        "name": "withdrawn",
        "found": "2 images of withdrawn patients, and copies of them under other ids; excluded",
    } in (tables.results["findings"])
    assert re.findall(r"<figcaption>.*?<code>(.*?)</code>", page) == ["image-21"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda t: t.splits.loc[t.splits["label"] == 1, "label"].index[:7],
            "dataset.min_positives expected at least 8",
        ),
        (lambda t: t.splits.index[t.splits["role"] == "test"], "found train 4, tune 3, calibrate 3, test 0"),
    ],
)
def test_a_set_without_enough_labels_stops(tables, spoil, said):
    tables.splits.loc[spoil(tables), "label"] = np.nan

    with pytest.raises(ExpectationsFailed, match=said):
        tables.run()


def test_a_failure_names_expected_found_and_what_to_do(tables):
    tables.features.loc[:14, "saturation"] = 0.9

    with pytest.raises(
        ExpectationsFailed, match=r"max_quarantined expected at most 0.25, found 0.375 \(see the reasons"
    ):
        tables.run()


def test_a_failure_leaves_the_report_and_no_accepted_set(tables):
    tables.run()
    tables.features["saturation"] = 0.9

    with pytest.raises(ExpectationsFailed):
        tables.run()

    assert not (tables.folder / "accepted").exists()
    assert tables.results["passed"] is False
    assert "failed" in (tables.folder / "validation" / "index.html").read_text()


def test_a_leak_between_roles_stops(tables):
    tables.splits.loc[1, "patient_id"] = "p0"

    with pytest.raises(ExpectationsFailed, match=r"splits.patient_overlap expected at most 0, found 1"):
        tables.run()


def test_look_alikes_in_two_roles_stop(tables):
    tables.splits.loc[1, "near_duplicate_of"] = "image-00"

    with pytest.raises(ExpectationsFailed, match=r"splits.near_duplicate_overlap expected at most 0, found 1"):
        tables.run()


def test_roles_of_different_prevalence_stop(tables):
    tables.splits.loc[tables.splits["role"] == "test", "label"] = [1.0] * 9 + [0.0]

    with pytest.raises(ExpectationsFailed, match=r"splits\.prevalence_effect"):
        tables.run()


def test_excluded_rows_count_for_no_role(tables):
    tables.splits.loc[1, ["patient_id", "role"]] = ["p0", "excluded"]

    assert tables.run()["accepted"].all()


def test_equal_sets_give_equal_reports(tables):
    tables.features.loc[7, "saturation"] = 0.9
    tables.run()
    before = tables.pages()
    tables.run()

    assert tables.pages() == before
    assert {"index.html", "results.json", "data_docs/images/index.html", "data_docs/set/index.html"} <= before.keys()


def test_data_docs_fetch_nothing(tables):
    tables.run()

    pages = b"".join(data for name, data in tables.pages().items() if name.startswith("data_docs"))
    assert b"saturation" in pages
    assert not re.findall(rb"<(?:script|link|img)[^>]*(?:src|href)=\s*[\"']?https?:", pages)


def test_the_page_shows_the_balance_of_every_stratum(tables):
    tables.run()

    assert tables.results["balance"]["sex"] == [
        {"value": "F", "images": 20, "positives": 7, "negatives": 13},
        {"value": "not stated", "images": 20, "positives": 7, "negatives": 13},
    ]
    assert [row["value"] for row in tables.results["balance"]["age"]] == ["18-39", "not stated"]


def test_images_without_features_name_the_step(tables):
    tables.features = tables.features.iloc[:30]

    with pytest.raises(DataError, match="10 of 40 images lack features; run `inspect`"):
        tables.run()


def test_a_shortcut_is_a_warning_that_stops_nothing(tables):
    """Hardware in every fracture and in nothing else tells the label without the picture, and is named."""
    tables.splits["hardware"] = tables.splits["label"] == 1

    assert tables.run()["accepted"].all()
    found = {finding["name"]: finding["found"] for finding in tables.results["findings"]}
    assert found["hardware shortcut"] == "AUC without the picture: hardware 1.000"
    assert "resolution shortcut" not in found
    assert tables.results["passed"]


def test_a_shortcut_is_named_by_what_carries_it(tables):
    tables.splits.loc[tables.splits["label"] == 1, "rows"] = 400

    tables.run()

    found = {finding["name"]: finding["found"] for finding in tables.results["findings"]}
    assert found["resolution shortcut"] == "AUC without the picture: rows 1.000, aspect 1.000"


def test_a_rare_fact_does_not_hide_among_frequent_ones(tables):
    """Metal in 3 of 50 fractures, and in nothing else: 6% / 2 above chance."""
    label = np.tile([0.0, 1.0], 2000)
    rows = tables.splits.iloc[np.zeros(4000, dtype=int)].reset_index(drop=True)
    rows = rows.assign(label=label, group_id=np.arange(4000), hardware=(label == 1) & (np.arange(4000) % 100 < 6))

    assert shortcuts(rows).set_index("fact").loc["hardware", "auc"] == pytest.approx(0.53, abs=0.002)


def test_metadata_that_know_nothing_tell_nothing(tables):
    """Labels dealt independently of every fact: nothing but chance, for each fact and for all of them."""
    rng = np.random.default_rng(3)
    n = 4000
    rows = pd.DataFrame(
        {
            "label": rng.integers(0, 2, n).astype(float), "group_id": rng.integers(0, 900, n), "hardware": None,
            "rows": rng.integers(300, 500, n), "columns": 300, "bits_stored": 8, "age_years": rng.normal(50, 9, n),
            "hour": np.nan, "site": rng.choice(["a", "b"], n), "device": "d", "body_region": "hand", "view": None,
            "sex": rng.choice(["F", "M"], n),
        }
    )  # fmt: skip

    auc = shortcuts(rows).set_index("fact")["auc"]

    assert auc.between(0.46, 0.54).all()
    assert auc["device"] == 0.5


def test_the_groups_that_are_fitted_on_are_not_judged(tables):
    """A fact that is a patient's own says nothing about other patients."""
    groups = np.repeat(np.arange(200), 10)
    label = np.random.default_rng(5).integers(0, 2, 200)[groups].astype(float)
    rows = tables.splits.iloc[np.zeros(2000, dtype=int)].reset_index(drop=True)
    rows = rows.assign(label=label, group_id=groups, rows=1000 + 7 * groups)

    assert shortcuts(rows).set_index("fact").loc["rows", "auc"] < 0.6


def test_strata_out_of_balance_and_missing_metadata_warn(tables):
    tables.splits["view"] = ["frontal" if label else "lateral" for label in tables.splits["label"]]
    tables.splits["device"] = "unknown"

    assert tables.run()["accepted"].all()
    failing = {v["check"]["name"]: v["failing"] for v in tables.results["verdicts"] if not v["success"]}
    assert failing["balance_by_stratum"] == ["view frontal", "view lateral"]
    assert failing["missing_metadata"] == ["device"]
    found = {finding["name"]: finding["found"] for finding in tables.results["findings"]}
    assert found["one-sided: view frontal"] == "100.0% of its images show a fracture"


def test_weak_grouping_is_a_finding(tables):
    tables.splits["grouping"] = "weak"

    tables.run()

    found = {finding["name"]: finding["found"] for finding in tables.results["findings"]}
    assert found["missing patient ids"] == "40 of 40 images (weak grouping: metrics may be flattered)"


def test_another_threshold_is_another_version_of_that_suite_only(tables):
    tables.run()
    before = tables.results["suites"]
    tables.run(PARAMS.model_copy(update={"images": PARAMS.images.model_copy(update={"min_side_px": 97})}))
    after = tables.results["suites"]

    assert before["images"] != after["images"]
    assert (before["dataset"], before["splits"]) == (after["dataset"], after["splits"])


@pytest.mark.parametrize(
    ("shares", "h"), [([0.5, 0.5], 0.0), ([0.0, 1.0], 3.1416), ([0.5, 0.25], 0.5236), ([0.3], 0.0)]
)
def test_cohens_h_of_two_shares(shares, h):
    assert effect(shares) == pytest.approx(h, abs=1e-4)
