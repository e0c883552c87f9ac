"""`osteoflow up` on the demo's state: three pages, five deployments, an approval in the UI's own words, a clean end."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pynetdicom import AE
from selenium.webdriver.support.ui import WebDriverWait

from components.radiograph.phantom import DETECTOR_A, draw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")  # Prefect's states of a run that is over


@dataclass(frozen=True)
class Stack:
    """The running stack and where it listens."""

    process: subprocess.Popen[str]
    clinic: str
    mlflow: str
    prefect: str
    dicom: int
    passwords: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def stack(demo) -> Iterator[Stack]:
    ports = {name: free_port() for name in ("SERVICE", "MLFLOW", "PREFECT", "DICOM")}
    environment = demo.environment | {f"OSTEOFLOW_{name}_PORT": str(port) for name, port in ports.items()}
    process = subprocess.Popen(["osteoflow", "up", "--demo"], cwd=demo.clone, env=environment, text=True)
    deadline = time.monotonic() + 240
    while not (demo.state / "stack.json").exists():
        assert process.poll() is None, "the stack stopped while it started"
        assert time.monotonic() < deadline, "the stack did not start"
        time.sleep(0.5)
    yield Stack(
        process=process,
        clinic=f"http://127.0.0.1:{ports['SERVICE']}",
        mlflow=f"http://127.0.0.1:{ports['MLFLOW']}",
        prefect=f"http://127.0.0.1:{ports['PREFECT']}/api",
        dicom=ports["DICOM"],
        passwords=json.loads((demo.state / "mlflow-users.json").read_text()),
    )
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)


def test_the_clinic_page_serves_the_second_champion(stack):
    assert httpx.get(f"{stack.clinic}/health").json()["version"] == "2"


def test_the_dicom_node_fills_the_inbox(stack, demo):
    """A modality's C-STORE to the stack lies in the inbox that the scheduled intake empties."""
    phantom = dcmread(io.BytesIO(draw(1, patient=1, detector=DETECTOR_A, fracture=False).dicom))
    sender = AE(ae_title="MODALITY")
    sender.add_requested_context(phantom.SOPClassUID, phantom.file_meta.TransferSyntaxUID)
    association = sender.associate("127.0.0.1", stack.dicom, ae_title="OSTEOFLOW")
    status = association.send_c_store(phantom).Status
    association.release()
    arrived = list((demo.state / "inbox").glob("*.dcm"))

    assert (status, len(arrived)) == (0x0000, 1)
    arrived[0].unlink()  # other tests share this archive


def test_mlflow_asks_who_you_are(stack):
    address = f"{stack.mlflow}/api/2.0/mlflow/registered-models/get?name=osteoflow-fracture"

    assert httpx.get(address).status_code == 401
    assert httpx.get(address, auth=("reviewer", stack.passwords["reviewer"])).status_code == 200


def test_the_alias_cannot_be_moved_to_an_overtaken_version(stack):
    """The first champion's decision is older than the second champion: the UI's gesture is refused, with a reason."""
    answer = httpx.post(
        f"{stack.mlflow}/ajax-api/2.0/mlflow/registered-models/alias",
        json={"name": "osteoflow-fracture", "alias": "champion", "version": "1"},
        auth=("reviewer", stack.passwords["reviewer"]),
        timeout=60,
    )

    assert answer.status_code == 403
    assert answer.json()["error_code"] == "PERMISSION_DENIED"


def test_five_deployments_wait_for_their_time(stack):
    deadline = time.monotonic() + 120
    while True:
        found = httpx.post(f"{stack.prefect}/deployments/filter", json={}, timeout=30).json()
        if len(found) == 5 or time.monotonic() > deadline:
            break
        time.sleep(1)

    assert sorted(row["entrypoint"].rsplit(":", 1)[-1] for row in found) == [
        "feedback", "intake", "monitor", "promote", "retrain",
    ]  # fmt: skip
    assert [len(row["schedules"]) for row in found] == [1, 1, 1, 1, 1]


def test_a_flow_runs_where_people_see_it(stack):
    """The promote flow, started as its schedule would, completes under the served deployments."""
    found = httpx.post(f"{stack.prefect}/deployments/filter", json={}, timeout=30).json()
    promote = next(row for row in found if row["entrypoint"].endswith(":promote"))
    deadline = time.monotonic() + 240

    def asked(method, path, **more):
        """As Prefect's own client asks: again, while the server says that its database is busy."""
        while (answer := httpx.request(method, f"{stack.prefect}/{path}", timeout=30, **more)).is_server_error:
            assert time.monotonic() < deadline, answer.text
            time.sleep(1)
        assert answer.is_success, answer.text
        return answer.json()

    run = asked("POST", f"deployments/{promote['id']}/create_flow_run", json={})
    while (state := asked("GET", f"flow_runs/{run['id']}")["state"])["type"] not in ENDED:
        assert time.monotonic() < deadline, state
        time.sleep(1)

    assert (state["type"], state["message"]) == ("COMPLETED", None)


@pytest.mark.browser
def test_a_clinician_answers_in_the_browser(stack, browser, demo):
    """Tonight's first case is opened from the worklist, read with one click, and the answer is in the log."""
    before = httpx.get(f"{stack.clinic}/health").json()["corrections"]
    browser.get(stack.clinic)
    browser.find_element("css selector", "tbody a").click()
    browser.find_element("id", "reader").send_keys("reader-3")
    browser.find_element("css selector", "button[value=fracture]").click()
    WebDriverWait(browser, 20).until(lambda _: httpx.get(f"{stack.clinic}/health").json()["corrections"] > before)

    assert httpx.get(f"{stack.clinic}/health").json()["corrections"] == before + 1
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert errors == []


def test_stopping_leaves_no_child(stack, demo):
    """Ctrl-C ends every server of the stack, and the marker that says it is up."""
    children = subprocess.run(["pgrep", "-P", str(stack.process.pid)], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in children.stdout.split()]
    stack.process.send_signal(signal.SIGINT)
    stack.process.wait(timeout=60)

    assert len(pids) == 5
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert not (demo.state / "stack.json").exists()
