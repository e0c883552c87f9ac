"""The clinic pages: what comes first, what stays hidden, and that they work without scripts."""

from __future__ import annotations

import dataclasses
import re
import shutil
from datetime import timedelta

import pytest

from components.promotion.ledger import Ledger, SigningKey
from components.promotion.roles import give
from components.promotion.switch import stop
from components.serving.bundle import PredictionSet
from components.serving.caution import warnings
from components.serving.manifest import Manifest
from components.serving.store import PredictionLog

DICOM = {"Content-Type": "application/dicom"}
SETTLED = PredictionSet(labels=("fracture",), coverage=0.9)


@pytest.fixture
def case(clinic, xray) -> str:
    """The id of a case that any reader may see."""
    return clinic.post("/api/predictions", content=xray(), headers=DICOM).json()["id"]


def logged(config, *predictions) -> None:
    log = PredictionLog(config.log_url)
    log.create()
    for prediction in predictions:
        log.add_prediction(prediction)


def test_an_empty_worklist_says_what_to_do(clinic):
    page = clinic.get("/").text

    assert "Nothing to read yet." in page
    assert "not a medical device" in page


def test_what_needs_a_person_comes_first(config, said, running):
    """Uncertain cases, then blind reads, then the rest."""
    logged(
        config,
        said(image_id="i1", call="no_fracture", probability=0.01),
        said(image_id="i2", call="fracture", probability=0.9, audit=True),
        said(image_id="i3", call="fracture", probability=0.9),
        said(image_id="i4", call="review", probability=0.4),
    )
    with running(config) as client:
        rows = re.findall(r'<tr class="(\w+)', client.get("/").text)

    assert rows == ["review", "blind", "fracture", "no_fracture"]


def test_among_equal_calls_the_unsettled_come_first(config, said, noon, publish, running, tiny_bundle):
    """A set of both labels is for a person first, and so is a case without a set; of a blind one nothing shows."""
    publish(config.ledger.parent, tiny_bundle)
    both, one = (PredictionSet(labels=labels, coverage=0.9) for labels in (("fracture", "no_fracture"), ("fracture",)))
    cases = [
        said(image_id=f"i{n}", prediction_set=left, audit=n in (2, 3), time=noon + timedelta(minutes=n))
        for n, left in enumerate((both, one, both, one, None))
    ]
    logged(config, *cases)
    with running(config) as client:
        rows = re.findall(r"/cases/(\w+)", client.get("/").text)

    assert rows == [cases[n].id for n in (4, 0, 1, 3, 2)]


def test_a_case_that_was_read_steps_back(config, said, noon, running):
    first, second = said(image_id="i1"), said(image_id="i2")
    logged(config, first, second)
    PredictionLog(config.log_url).add_correction(first.id, reader="reader-1", label="fracture", time=noon)
    with running(config) as client:
        rows = re.findall(r"/cases/(\w+)", client.get("/").text)

    assert rows == [second.id, first.id]


def test_disagreement_comes_before_everything(config, said, noon, running):
    first, second = said(image_id="i1", call="review"), said(image_id="i2", call="no_fracture", probability=0.01)
    logged(config, first, second)
    for reader, label in (("reader-1", "fracture"), ("reader-2", "no_fracture")):
        PredictionLog(config.log_url).add_correction(second.id, reader=reader, label=label, time=noon)
    with running(config) as client:
        page = client.get("/").text

    assert re.findall(r"/cases/(\w+)", page) == [second.id, first.id]
    assert "they disagree" in page


def test_a_blind_case_with_one_read_still_waits(config, said, noon, running):
    """It keeps its place: another person has to read it."""
    blind, other = said(image_id="i1", audit=True), said(image_id="i2", call="fracture", probability=0.9)
    logged(config, blind, other)
    PredictionLog(config.log_url).add_correction(blind.id, reader="reader-1", label="fracture", time=noon, blinded=True)
    with running(config) as client:
        assert re.findall(r"/cases/(\w+)", client.get("/").text) == [blind.id, other.id]


def test_a_call_is_told_by_word_and_shape(config, said, running):
    logged(config, said(call="fracture", probability=0.9))
    with running(config) as client:
        page = client.get("/").text

    assert "▲</span>Fracture likely" in page
    assert "about 9 in 10 such images show a fracture" in page


def test_a_case_says_what_the_model_cannot_rule_out(config, said, running):
    """In words, with how often such sets are right; a case without a set says nothing of the kind."""
    both = PredictionSet(labels=("fracture", "no_fracture"), coverage=0.9)
    cases = said(image_id="i1", prediction_set=both), said(image_id="i2")
    logged(config, *cases)
    with running(config) as client:
        pages = [client.get(f"/cases/{case.id}").text for case in cases]

    assert "Cannot rule out either: fracture and no fracture both stay possible" in pages[0]
    assert "such sets hold the true answer for 90% of fractures and of the others." in pages[0]
    assert "rule out" not in pages[1]


@pytest.mark.parametrize("call", ["fracture", "review", "no_fracture"])
def test_a_blind_case_gives_nothing_away(config, said, noon, call, running):
    """Its page and row are the same whatever the model said, and hold no other reader's opinion."""
    probability = {"fracture": 0.97, "review": 0.5, "no_fracture": 0.03}[call]
    seen = {"familiar": call != "review", "region_seen": "hip" if call == "fracture" else None}
    prediction = said(audit=True, call=call, probability=probability, prediction_set=SETTLED, quality=seen)
    logged(config, prediction)
    PredictionLog(config.log_url).add_correction(
        prediction.id, reader="reader-1", label="unknown", time=noon, blinded=True, note="callus?"
    )
    with running(config) as client:
        pages = [client.get("/").text, client.get(f"/cases/{prediction.id}").text]

    for page in pages:
        shown = page.split("<main", 1)[1].replace("Cannot tell</button>", "")
        assert not re.search(
            r"\d%|97|Fracture likely|No fracture seen|Not certain|overlay|callus|reader-1 |Fits|rule out|About", shown
        )


@pytest.fixture
def mapless(config, state, tiny_bundle, tmp_path, publish, running):
    """A client of a service whose model's heat map failed its checks."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = Manifest.decode((bundle / "manifest.json").read_bytes(), where="m")
    failed = manifest.heat_map.model_copy(update={"shown": False, "reasons": ("it points <nowhere>",)})
    (bundle / "manifest.json").write_bytes(manifest.model_copy(update={"heat_map": failed}).encode())
    publish(state, bundle)
    with running(config) as client:
        yield client


def test_a_heat_map_that_failed_its_checks_is_not_shown(mapless, xray, state):
    """Neither on the page nor behind its address, and no such picture is kept; asked again, the case is the same."""
    answers = [mapless.post("/api/predictions", content=xray(), headers=DICOM).json() for _ in range(2)]
    page = mapless.get(f"/cases/{answers[0]['id']}").text

    assert answers[0] == answers[1]
    assert mapless.get(f"/api/predictions/{answers[0]['id']}/overlay.png").status_code == 404
    assert list(state.rglob("*.overlay.png")) == []
    assert ("overlay" in page, "There is no heat map of this case." in page) == (False, True)
    assert answers[0]["probability"] is not None


def test_the_model_page_says_why_the_heat_map_is_hidden(mapless):
    assert "hidden: it points &lt;nowhere&gt;" in mapless.get("/model").text


def test_a_read_from_the_page(clinic, case):
    done = clinic.post(f"/cases/{case}/reads", data={"label": "fracture", "reader": "reader-1", "note": "distal"})

    assert (done.status_code, done.headers["location"]) == (303, f"/cases/{case}")
    page = clinic.get(f"/cases/{case}").text
    assert "reader-1" in page
    assert "Waiting for another reader." in page


def test_a_read_without_a_name_is_asked_for_it(clinic, case):
    refused = clinic.post(f"/cases/{case}/reads", data={"label": "fracture", "reader": " "})

    assert refused.status_code == 422
    assert "A read needs its reader" in refused.text


def test_disagreement_asks_for_an_adjudicator(clinic, case):
    for reader, label in (("reader-1", "fracture"), ("reader-2", "no_fracture")):
        clinic.post(f"/cases/{case}/reads", data={"label": label, "reader": reader})
    assert "The readers disagree" in clinic.get(f"/cases/{case}").text

    clinic.post(f"/cases/{case}/reads", data={"label": "fracture", "reader": "reader-3", "adjudicator": "true"})
    assert "The readers agree: <strong>Fracture</strong>" in clinic.get(f"/cases/{case}").text


def test_what_readers_type_is_text(clinic, case):
    clinic.post(f"/cases/{case}/reads", data={"label": "fracture", "reader": "<script>x</script>", "note": "<b>"})
    page = clinic.get(f"/cases/{case}").text

    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_one_file_from_the_form_leads_to_its_case(clinic, xray):
    done = clinic.post("/cases", files=[("file", ("a.dcm", xray(), "application/dicom"))])

    assert done.status_code == 303
    assert clinic.get(done.headers["location"]).status_code == 200


def test_several_files_are_judged_one_by_one(clinic, xray):
    """A file that is no radiograph does not stop the others, and is named by its place, not its name."""
    files = [("file", (f"Doe_John_{n}.dcm", data)) for n, data in enumerate([xray(1), b"nonsense", xray(2)])]
    page = clinic.post("/cases", files=files)

    assert page.status_code == 422
    assert "File 2 of 3 was not judged" in page.text
    assert "Doe" not in page.text
    assert clinic.get("/health").json()["predictions"] == 2


def test_no_file_is_said_kindly(clinic):
    assert "No file was chosen." in clinic.post("/cases", files=[("file", ("", b""))]).text


def test_alerts_come_from_the_ledger(clinic, config):
    assert "All quiet." in clinic.get("/alerts").text

    Ledger(config.ledger).append(
        "alert",
        {
            "severity": "warning",
            "reasons": ["`sharpness` drifted by 0.41"],
            "findings": ["drift:sharpness"],
            "cases": 80,
        },
    )
    page = clinic.get("/alerts").text
    assert "Warning: cases are no longer like" in page
    assert "sharpness drifted by 0.41" in page
    assert "<dt>cases</dt><dd>80</dd>" in page


def test_the_model_page_names_who_approved(clinic, approved):
    page = clinic.get("/model").text

    assert "Approved by <strong>reviewer</strong>" in page
    assert "margins hold" in page
    assert approved in page
    assert clinic.get("/model/card").status_code == 200


def test_the_model_page_names_everybody_who_approved(config, state, tiny_bundle, publish, running):
    publish(state, tiny_bundle, signers=2)
    ledger = Ledger(config.ledger)
    said = ledger.entries("approval")[0].body | {"approver": "reviewer-b", "rationale": "misses read, agree"}
    last = ledger.append("approval", said, key=SigningKey.open(config.key_dir, "reviewer-b"))
    ledger.append("rollout", ledger.entries("rollout")[0].body | {"approval_hash": last.hash})
    with running(config) as client:
        page = client.get("/model").text

    assert re.findall(r"Approved by <strong>([\w-]+)</strong>", page) == ["reviewer", "reviewer-b"]
    assert "margins hold" in page
    assert "misses read, agree" in page


def test_once_readers_are_named_nobody_else_answers(clinic, config, case):
    """Before, any name does; afterwards a typing slip is told, and one reader spelt in two ways stays one."""
    key = SigningKey.open(config.key_dir, "operator")
    for reader in ("reader-1", "reader-2"):
        give(ledger=Ledger(config.ledger), person=reader, roles=("reader",), user="operator", key=key)

    strange = clinic.post(f"/cases/{case}/reads", data={"reader": "reader1", "label": "fracture"})
    assert strange.status_code == 422
    assert "&#39;reader1&#39; is no reader here" in strange.text
    assert clinic.post(f"/cases/{case}/reads", data={"reader": "Reader-1 ", "label": "fracture"}).status_code == 303
    strange = SigningKey.open(config.key_dir.parent / "elsewhere", "stranger")  # who names a reader has to be known
    give(ledger=Ledger(config.ledger), person="reader-9", roles=("reader",), user="stranger", key=strange)
    answer = clinic.post(f"/api/predictions/{case}/corrections", json={"reader": "reader-9", "label": "fracture"})
    assert (answer.status_code, answer.json()["reason"]) == (422, "reader")
    read = {"reader": "READER-2", "label": "fracture"}
    assert clinic.post(f"/api/predictions/{case}/corrections", json=read).json()["reader"] == "reader-2"


def test_without_a_model_every_page_says_so(config, running):
    with running(config) as client:
        pages = [client.get(path).text for path in ("/", "/alerts", "/model")]

    assert all("No model is approved" in page for page in pages)


@pytest.mark.parametrize("call", ["fracture", "review", "no_fracture"])
def test_while_stopped_every_page_says_so_and_none_shows_ai_output(config, said, call, running):
    """Row and case are the same whatever the model had said."""
    probability = {"fracture": 0.97, "review": 0.5, "no_fracture": 0.03}[call]
    seen = {"familiar": call != "review", "region_seen": "hip" if call == "fracture" else None}
    prediction = said(call=call, probability=probability, prediction_set=SETTLED, quality=seen)
    logged(config, prediction)
    key = SigningKey.open(config.key_dir, "reviewer")
    stop(ledger=Ledger(config.ledger), reason="misses hips", user="reviewer", key=key)
    with running(config) as client:
        pages = [client.get(path).text for path in ("/", f"/cases/{prediction.id}", "/alerts", "/model")]

    assert all("AI output is off.</strong> AI output was switched off: misses hips." in page for page in pages)
    for page in pages:
        shown = page.split("<main", 1)[1]
        assert not re.search(r"\d%|97|Fracture likely|No fracture seen|Not certain|overlay|Fits|rule out|About", shown)


def test_nothing_is_loaded_from_elsewhere(clinic, config, case, running):
    """No page names another host, inline script or inline style."""
    with running(dataclasses.replace(config, registry_url=None)) as client:
        for path in ("/", f"/cases/{case}", "/alerts", "/model"):
            page = client.get(path).text
            assert not re.search(r"https?://|//\w|style=|onclick|<style|<script>", page), path


@pytest.mark.parametrize(
    ("quality", "sentences"),
    [
        ({}, []),
        ({"saturation": 0.01, "polarity_ok": True, "deviation_index": None, "motion": 1.0}, []),
        ({"saturation": 0.3}, ["Large parts are at the limit of the detector's range."]),
        ({"polarity_ok": False}, ["Light and dark may be reversed."]),
        ({"deviation_index": -3.5}, ["Strongly underexposed."]),
        ({"motion": 7.0, "clutter": 13.0}, []),
        ({"motion": 9.0}, ["The picture may be blurred by movement."]),
        ({"clutter": 60.0}, ["This does not look like a radiograph."]),
    ],
)
def test_quality_in_sentences(quality, sentences):
    assert warnings(quality) == sentences
