"""`osteoflow intake` from the command line, in a clone of its own, through doors with real peers behind them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from components.errors import ConfigError
from components.radiograph.phantom import DETECTOR_A, draw
from components.settings import Settings
from flows.doors import Here, door
from tests.servers import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def osteoflow(tmp_path):
    """Run the command line in a fresh clone; return its JSON."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)

    def run(*arguments: str, **variables: str):
        command = [str(Path(sys.executable).parent / "osteoflow"), *arguments, "--json"]
        environment = os.environ | variables | {"OSTEOFLOW_WORKSPACE": str(clone)}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    run.state = clone / ".osteoflow"
    run.clone = clone
    return run


def phantoms(numbers) -> list[bytes]:
    return [draw(3, patient=number, detector=DETECTOR_A, fracture=False).dicom for number in numbers]


def send(workspace: Path, file: Path) -> None:
    """Start the DICOM node as `osteoflow up` does, send `file` to it by DCMTK, and stop the node."""
    [port] = free_ports(1)
    environment = os.environ | {"OSTEOFLOW_DICOM_PORT": str(port), "OSTEOFLOW_WORKSPACE": str(workspace)}
    command = [sys.executable, "-m", "components.serving", "dicom"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout.readline() == f"DICOM node OSTEOFLOW on 127.0.0.1:{port}\n"
            storescu = [shutil.which("storescu"), "-aec", "OSTEOFLOW", "127.0.0.1", str(port), str(file)]
            subprocess.run(storescu, check=True)
        finally:
            node.send_signal(signal.SIGTERM)
    assert node.returncode == 0


@pytest.mark.slow
def test_one_path_behind_every_door(osteoflow, bucket, pacs, servers_required, tmp_path):
    """A store, a PACS and a modality send an image each, and the first one's again: three images, no file left over."""
    servers_required(["storescu"])
    stored, held, sent = phantoms([1, 2, 3])
    bucket.put("site-a/one", stored)
    for data in (stored, held):
        httpx.post(f"{pacs.rest}/instances", content=data).raise_for_status()
    (tmp_path / "sent.dcm").write_bytes(sent)
    send(osteoflow.clone, tmp_path / "sent.dcm")

    arrivals = [
        osteoflow("intake", f"{bucket.url}/site-a", OSTEOFLOW_S3_ENDPOINT_URL=bucket.store.endpoint),
        osteoflow("intake", f"dicomweb+{pacs.url}?ModalitiesInStudy=DX"),
        osteoflow("intake"),
    ]

    assert [arrival["batch"]["added"] for arrival in arrivals] == [1, 1, 1]
    assert [arrival["batch"]["duplicates"] for arrival in arrivals] == [0, 1, 0]
    assert [(a["inputs"]["images"], len(a["inputs"]["failures"])) for a in arrivals] == [(1, 0)] * 3
    left = [path for name in ("inbox", "spool") for path in (osteoflow.state / name).rglob("*") if path.is_file()]
    assert [path.name for path in left if path.name != ".osteoflow-spool.json"] == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ftp://host/folder", "ftp:// is no door; expected a path, s3://BUCKET/PREFIX, or dicomweb"),
        ("s3:///prefix", "expected s3://BUCKET/PREFIX"),
        ("s3://key:secret@bucket/prefix", "without query or credentials"),
        ("dicomweb+https://reader:secret@host/dicom-web", "no credentials in the URL"),
        ("dicomweb+https:///dicom-web", "no address in the source"),
        ("dicomweb+https://host/dicom-web?limit=5", "'limit' is no filter"),
    ],
)
def test_a_source_that_is_none_is_one_line_without_secrets(tmp_path, source, said):
    with pytest.raises(ConfigError) as caught:
        door(Settings(workspace=tmp_path, key_dir=tmp_path / "keys"), source)

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_endpoint_that_is_none_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="see OSTEOFLOW_S3_ENDPOINT_URL"):
        door(Settings(workspace=tmp_path, key_dir=tmp_path / "keys", s3_endpoint_url="no url"), "s3://bucket/a")


def test_labels_in_a_file_go_with_a_pacs_only(tmp_path):
    with pytest.raises(ConfigError, match="--labels goes with a DICOMweb source"):
        door(Settings(workspace=tmp_path), str(tmp_path), tmp_path / "labels.csv")


def test_a_path_is_read_where_it_lies(tmp_path):
    assert door(Settings(workspace=tmp_path), str(tmp_path / "source")) == Here(tmp_path / "source")
