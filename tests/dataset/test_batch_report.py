"""The page of a batch: the numbers that came in, refusals by reason and label, and nobody's name."""

from __future__ import annotations

import json

import pytest

from components.dataset.batch_report import lean, report_batch
from components.dataset.inputs import judge_batch
from components.dataset.intake import Batch
from components.dataset.limits import Limits
from components.dataset.quarantine import entries
from tests.dataset.tables import OPEN

NOTHING = {
    "batch": "000001-0123456789ab", "added": 0, "duplicates": 0, "copies": 0, "refused": {}, "refused_by_label": {},
    "refused_first": {}, "labels": {}, "sites": {}, "disagreements": 0, "label_events": 0,
    "passed_over": {},
}  # fmt: skip

IMAGES = OPEN.model_copy(
    update={"min_side_px": 96, "max_saturation": 0.6, "min_grey_levels": 64, "min_field_fraction": 0.05}
)


def batch(**changes) -> Batch:
    return Batch.model_validate(NOTHING | changes)


def test_refusals_of_one_label_alone_are_loud():
    """FracAtlas's own numbers: 30 truncated files, all without a fracture, of 2,095."""
    found = lean(batch(refused_by_label={"no_fracture": 30}, labels={"fracture": 438, "no_fracture": 2065}))

    assert found.p_value == pytest.approx(0.0068, abs=0.001)
    assert found.loud
    assert found.text().startswith("Refusals depend on the label: refused 0 of 438 with a fracture, 30 of 2095 without")


def test_refusals_of_both_labels_alike_are_not():
    found = lean(
        batch(refused_by_label={"fracture": 5, "no_fracture": 20}, labels={"fracture": 95, "no_fracture": 380})
    )

    assert found.p_value == pytest.approx(1.0)
    assert not found.loud


@pytest.mark.parametrize(
    "labels", [{"fracture": 10}, {"unknown": 10}, {}], ids=["one label", "no label", "nothing added"]
)
def test_where_nothing_can_be_compared_nothing_is_claimed(labels):
    assert lean(batch(refused_by_label={"fracture": 3}, labels=labels)).p_value is None


@pytest.fixture
def reported(home, make, tmp_path):
    shots = [make.shot(n, make.jpeg(make.picture(n)), "01"[n % 2]) for n in range(1, 7)]
    shots[0].data = shots[0].data[:900]
    shots[3].data = b"nobody's picture"
    done = home.take_in(make.fracatlas(tmp_path / "DOE_JANE", shots))
    inputs = judge_batch(studies=home.studies, batch=done.batch, limits=Limits(), params=IMAGES)
    report(home, done, inputs, tmp_path / "report")
    return tmp_path / "report", done, inputs


def report(home, done, inputs, folder) -> None:
    report_batch(done, entries(home.quarantine), inputs, folder, studies=home.studies, labels=home.labels)


def test_the_page_names_every_refusal_by_its_hash(reported, home):
    folder, _, _ = reported
    page = (folder / "index.html").read_text()

    assert [line.sha256 in page for line in entries(home.quarantine)] == [True, True]
    assert "copy it again from where it came" in page


def test_the_page_names_no_file_and_no_folder(reported):
    folder, _, _ = reported
    text = (folder / "index.html").read_text() + (folder / "results.json").read_text()

    assert [word for word in ("IMG0000001", "DOE_JANE", "IMG0000004") if word in text] == []


def test_results_say_what_the_batch_said(reported):
    folder, done, _ = reported
    results = json.loads((folder / "results.json").read_text())

    assert results["batch"] == done.model_dump()
    assert {group["reason"]: group["refused"] for group in results["reasons"]} == done.refused


def test_the_same_batch_makes_the_same_page(reported, home, tmp_path):
    folder, done, inputs = reported
    report(home, done, inputs, tmp_path / "again")

    for name in ("index.html", "results.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
