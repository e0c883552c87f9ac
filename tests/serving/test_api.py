"""The service over HTTP: what it answers, to whom, and when it must not."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2
import httpx
import numpy as np
import pydicom
import pytest

from components.promotion.ledger import Ledger, SigningKey
from components.promotion.switch import resume, stop
from components.serving.service import Service

DICOM = {"Content-Type": "application/dicom"}
REPOSITORY = Path(__file__).resolve().parents[2]


def send(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/api/predictions", content=data, headers=DICOM)


def test_a_radiograph_gets_an_answer(clinic, xray, approved):
    answer = send(clinic, xray()).json()

    assert 0 <= answer["probability"] <= 1
    assert answer["call"] in ("fracture", "no_fracture", "review")
    assert answer["confidence"].endswith("such images show a fracture")
    assert (answer["version"], answer["bundle_hash"], answer["audit"]) == ("1", approved, False)
    assert clinic.get(f"/api/predictions/{answer['id']}").json() == answer
    assert clinic.get("/api/predictions").json() == [answer]


def test_an_answer_says_which_labels_are_left(clinic, xray):
    """In the log too; the schema that the service publishes describes it."""
    answer = send(clinic, xray()).json()
    schema = clinic.get("/openapi.json").json()["components"]["schemas"]

    assert set(answer["prediction_set"]["labels"]) <= {"fracture", "no_fracture"}
    assert answer["prediction_set"]["coverage"] == 0.9
    assert "90%" in answer["not_ruled_out"]
    assert set(schema["PredictionSet"]["properties"]) == {"labels", "coverage"}
    assert "not ruled out" in schema["Answer"]["properties"]["prediction_set"]["description"]


def test_the_same_radiograph_is_the_same_case(clinic, xray):
    assert send(clinic, xray()).json() == send(clinic, xray()).json()
    assert clinic.get("/health").json()["predictions"] == 1


def test_a_form_works_as_well(clinic, xray):
    answer = clinic.post("/api/predictions", files={"file": ("x.dcm", xray(), "application/dicom")})

    assert answer.json() == send(clinic, xray()).json()


def test_a_form_without_a_file_is_refused(clinic):
    assert clinic.post("/api/predictions", files={"other": b"x"}).status_code == 422


@pytest.mark.parametrize("name", ["image.png", "overlay.png"])
def test_the_pictures_have_the_image_s_shape(clinic, xray, name):
    data = xray()
    picture = clinic.get(f"/api/predictions/{send(clinic, data).json()['id']}/{name}")
    source = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)

    assert picture.headers["content-type"] == "image/png"
    pixels = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape[:2] == (source.Rows, source.Columns)


def test_no_identity_is_kept(clinic, xray, state):
    """Nothing in the state folder holds the patient, the study or the instance as the source named them."""
    data = xray()
    send(clinic, data)
    source = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    secrets = [str(source.get(k)).encode() for k in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")]
    kept = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}

    assert all(secrets)
    assert [path for path, content in kept.items() for secret in secrets if secret in content] == []
    assert {oct(p.stat().st_mode & 0o777) for p in (state / "serving" / "images").iterdir()} == {"0o600"}


def test_what_is_no_radiograph_is_refused_in_a_sentence(clinic):
    refused = send(clinic, b"not a radiograph")

    assert refused.status_code == 422
    assert set(refused.json()) == {"reason", "detail"}
    assert clinic.get("/health").json()["predictions"] == 0


def test_a_refusal_names_nobody(clinic, xray):
    """A file without its patient is refused, and the refusal repeats nothing of it."""
    source = pydicom.dcmread(io.BytesIO(xray()))
    source.PatientID, source.PatientName = "", "SECRET^NAME"
    buffer = io.BytesIO()
    source.save_as(buffer)
    refused = send(clinic, buffer.getvalue())

    assert (refused.status_code, refused.json()["reason"]) == (422, "missing_patient")
    assert "SECRET" not in refused.text


def test_without_an_approved_model_nothing_is_answered(config, xray, running):
    with running(config) as client:
        refused = send(client, xray())

        assert (refused.status_code, refused.json()["reason"]) == (503, "no_champion")
        assert refused.json()["detail"].startswith("No model is approved")
        assert client.get("/health").json()["serving"] is False


def test_an_unsigned_approval_is_none(config, state, tiny_bundle, xray, running, publish):
    publish(state, tiny_bundle, signed=False)
    with running(config) as client:
        assert send(client, xray()).json()["reason"] == "unsigned"


def test_a_rollout_before_the_last_signature_serves_nothing(config, state, tiny_bundle, xray, running, publish):
    """The service counts for itself: one of two is not enough, and a signature after the rollout comes too late."""
    publish(state, tiny_bundle, signers=2)
    ledger = Ledger(config.ledger)
    first, moved = ledger.entries("approval")[0], ledger.entries("rollout")[0]
    second = first.body | {"approver": "reviewer-b"}
    with running(config) as client:
        assert send(client, xray()).json()["reason"] == "unsigned"
        late = ledger.append("approval", second, key=SigningKey.open(config.key_dir, "reviewer-b"))
        assert send(client, xray()).json()["reason"] == "unsigned"
        ledger.append("rollout", moved.body | {"approval_hash": late.hash})
        assert send(client, xray()).status_code == 200


def test_an_approval_of_another_bundle_is_none(config, state, tiny_bundle, xray, running, publish):
    """A rollout of a hash that no signature names serves nothing."""
    publish(state, tiny_bundle)
    ledger = Ledger(config.ledger)
    body = ledger.entries("rollout")[0].body | {"bundle_hash": "e" * 64}
    ledger.append("rollout", body)
    with running(config) as client:
        assert send(client, xray()).json()["reason"] == "unsigned"


def test_an_altered_bundle_does_not_serve(config, state, approved, xray, running):
    card = state / "bundles" / approved / "model_card.md"
    card.write_text(card.read_text() + "\nBetter than it is.")
    with running(config) as client:
        assert send(client, xray()).json()["reason"] == "bundle"


def test_a_bundle_that_arrives_late_is_found(config, state, approved, xray, running):
    shutil.move(state / "bundles" / approved, state / "elsewhere")
    with running(config) as client:
        assert send(client, xray()).json()["reason"] == "bundle"
        shutil.move(state / "elsewhere", state / "bundles" / approved)
        assert send(client, xray()).status_code == 200


def test_a_damaged_ledger_stops_the_answers(config, approved, xray, running):
    lines = config.ledger.read_text().replace("margins hold", "margins fail")
    config.ledger.write_text(lines)
    with running(config) as client:
        assert send(client, xray()).json()["reason"] == "ledger"


def press(config, what: str, reason: str = "new detector in room 2") -> None:
    """Use the stop switch as a person does, beside the running service."""
    act = {"stop": stop, "resume": resume}[what]
    act(ledger=Ledger(config.ledger), reason=reason, user="x", key=SigningKey.open(config.key_dir, "x"))


def test_the_stop_switch_works_at_once_until_somebody_resumes(clinic, config, state, tiny_bundle, xray, publish):
    """The next request is refused, without a restart; a roll-out lifts nothing; a resumption does."""
    press(config, "stop")
    refused = send(clinic, xray())
    publish(state, tiny_bundle, version=2)
    still = send(clinic, xray())
    press(config, "resume")

    assert [(r.status_code, r.json()["reason"]) for r in (refused, still)] == [(503, "stopped")] * 2
    assert "new detector in room 2" in refused.json()["detail"]
    assert send(clinic, xray()).json()["version"] == "2"


def test_a_stop_takes_earlier_answers_off_too(clinic, config, xray):
    """Cases stay, their AI output goes; a read meanwhile is no blind one, for the answer was there to see."""
    answer = send(clinic, xray()).json()
    where = f"/api/predictions/{answer['id']}"
    press(config, "stop")
    silent = clinic.get(where).json()

    assert [silent[name] for name in ("probability", "call", "prediction_set", "not_ruled_out")] == [None] * 4
    assert "AI output was switched off" in silent["confidence"]
    assert (clinic.get(f"{where}/overlay.png").status_code, clinic.get(f"{where}/image.png").status_code) == (503, 200)
    read = clinic.post(f"{where}/corrections", json={"reader": "reader-1", "label": "fracture"})
    assert read.json()["blinded"] is False
    press(config, "resume")
    assert clinic.get(where).json() == answer | {"reads": 1}


def test_an_answer_in_the_making_is_not_given_after_a_stop(config, approved, xray, running, monkeypatch):
    """The switch is pressed between the door and the answer: refused, though it was judged and logged."""

    def clock():
        press(config, "stop")
        return datetime.now(UTC)

    monkeypatch.setattr("components.serving.api.Service", partial(Service, clock=clock))
    with running(config) as client:
        refused = send(client, xray())
        health = client.get("/health").json()

    assert (refused.status_code, refused.json()["reason"]) == (503, "stopped")
    assert (health["reason"], health["predictions"]) == ("stopped", 1)


def test_a_read_is_kept(clinic, xray):
    id = send(clinic, xray()).json()["id"]
    box = {"x": 10, "y": 20, "width": 30, "height": 40}
    read = {"reader": "reader-1", "label": "fracture", "boxes": [box], "note": "distal radius"}
    made = clinic.post(f"/api/predictions/{id}/corrections", json=read)

    assert made.status_code == 201
    assert made.json()["label"] == "fracture"
    assert clinic.get(f"/api/predictions/{id}").json()["reads"] == 1


@pytest.mark.parametrize(
    "read",
    [
        {"reader": "reader-1", "label": "broken"},
        {"reader": "  ", "label": "fracture"},
        {"reader": "reader-1"},
        {"reader": "reader-1", "label": "fracture", "boxes": [{"x": -1, "y": 0, "width": 5, "height": 5}]},
        {"reader": "reader-1", "label": "fracture", "surprise": 1},
    ],
)
def test_a_read_outside_the_vocabulary_is_refused(clinic, xray, read):
    id = send(clinic, xray()).json()["id"]

    assert clinic.post(f"/api/predictions/{id}/corrections", json=read).status_code == 422
    assert clinic.get("/health").json()["corrections"] == 0


def test_a_visible_case_cannot_be_read_blind(clinic, xray):
    """Claiming it does not make it so: the output was there to see."""
    id = send(clinic, xray()).json()["id"]
    read = {"reader": "reader-1", "label": "fracture", "blinded": True}

    assert clinic.post(f"/api/predictions/{id}/corrections", json=read).json()["blinded"] is False


def test_an_audit_case_is_read_blind_first(audited, xray):
    """Neither the answer, the case nor the overlay shows AI output until two people agree without it."""
    answer = send(audited, xray()).json()
    where = f"/api/predictions/{answer['id']}"

    assert (answer["probability"], answer["call"], answer["withheld"]) == (None, None, True)
    assert (answer["prediction_set"], answer["not_ruled_out"]) == (None, None)
    assert answer["inclusion_probability"] == 1.0
    assert audited.get(f"{where}/overlay.png").status_code == 403
    for reader in ("reader-1", "reader-2"):
        read = audited.post(f"{where}/corrections", json={"reader": reader, "label": "fracture"})
        assert read.json()["blinded"] is True
    assert audited.get(where).json()["probability"] is not None
    assert audited.get(f"{where}/overlay.png").status_code == 200
    late = audited.post(f"{where}/corrections", json={"reader": "reader-3", "label": "fracture"})
    assert late.json()["blinded"] is False


def test_the_audit_draw_takes_its_share(config, approved):
    """Of 4,000 images a share of 5% is drawn: within four standard errors, and the same ones each time."""
    from components.serving.service import Service

    service = Service(dataclasses.replace(config, audit_share=0.05))
    drawn = [service.drawn(f"image-{number}") for number in range(4000)]

    assert abs(np.mean(drawn) - 0.05) < 4 * (0.05 * 0.95 / 4000) ** 0.5
    assert drawn[:100] == [service.drawn(f"image-{number}") for number in range(100)]


def test_what_is_too_large_is_refused(clinic):
    """By its announced length, and while it comes when it announces none."""

    def endless():
        for _ in range(64):
            yield b"0" * 131072

    assert send(clinic, b"0" * (5 << 20)).status_code == 413
    assert clinic.post("/api/predictions", content=endless(), headers=DICOM).status_code == 413


def test_unknown_things_are_not_found(clinic):
    for path in ("/api/predictions/nothing", "/api/predictions/nothing/image.png", "/cases/nothing", "/docs"):
        assert clinic.get(path).status_code == 404


def test_another_host_name_is_not_answered(clinic):
    """A name that was rebound to loopback reads nothing."""
    assert clinic.get("/", headers={"Host": "attacker.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://attacker.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
def test_another_site_cannot_write(clinic, xray, headers):
    refused = clinic.post("/api/predictions", content=xray(), headers=DICOM | headers)

    assert (refused.status_code, refused.json()["reason"]) == (403, "origin")


def test_its_own_page_can_write(clinic, xray):
    own = {"Origin": str(clinic.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}

    assert clinic.post("/api/predictions", content=xray(), headers=DICOM | own).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/static/clinic.css", "/api/predictions/nothing"])
def test_every_answer_is_closed(clinic, path):
    headers = clinic.get(path).headers

    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_serving_needs_no_training_library():
    """The service imports neither TensorFlow, MLflow nor Prefect."""
    script = (
        "import sys, components.serving.api, components.serving.__main__, components.serving.results\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'prefect', 'evidently'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)

    assert done.stdout.strip() == "[]"


@contextmanager
def program(state: Path, port: int):
    """`python -m components.serving` over `state`, as `osteoflow up` starts it."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(state),
        "PYTHONPATH": str(REPOSITORY),
        "OSTEOFLOW_WORKSPACE": str(REPOSITORY),
        "OSTEOFLOW_STATE_DIR": str(state),
        "OSTEOFLOW_KEY_DIR": str(state / "keys"),
        "OSTEOFLOW_SERVICE_PORT": str(port),
    }
    with (state / "program.log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "components.serving"], env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            deadline = time.monotonic() + 60
            while child.poll() is None and time.monotonic() < deadline:
                try:
                    client.get("/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        child.terminate()
        child.wait(20)


def test_a_restart_forgets_nothing(state, approved, xray):
    """The program starts, answers, takes a correction, is stopped; the next one shows both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with program(state, port) as client:
        answer = send(client, xray()).json()
        client.post(f"/api/predictions/{answer['id']}/corrections", json={"reader": "reader-1", "label": "fracture"})
    with program(state, port) as client:
        again = client.get(f"/api/predictions/{answer['id']}").json()

    assert again == answer | {"reads": 1}
