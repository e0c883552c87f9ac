"""The planted-identifier scan behind the doors that other machines use: a store, a PACS, and the service's HTTP API.

Their names are planted too: keys, prefixes, filters, file names and headers of uploads, and what a PACS says when it
fails. All three peers are real; between the PACS and us stands a proxy, which fails in the words of a talkative one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import httpx
import pyarrow.parquet as pq
import pytest

from tests import servers
from tests.privacy import planted
from tests.privacy.hospital import INTAKES, REPOSITORY, Hospital, publish, start

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def hospital(object_store, pacs_server, tiny_bundle, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Two images through each door, and broken ones beside them."""
    folder = tmp_path_factory.mktemp("doors")
    workspace, home = folder / "clone", folder / "home"
    for path in (workspace, home):
        path.mkdir()
    plants = planted.Plants()
    start(workspace)
    publish(workspace / ".osteoflow", home, tiny_bundle)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "OSTEOFLOW_WORKSPACE": str(workspace),
        "OSTEOFLOW_S3_ENDPOINT_URL": object_store.endpoint,
        "PYTHONPATH": str(REPOSITORY),
    } | object_store.environment
    file = planted.dicom(plants, 3)
    sources = [*in_the_store(object_store, plants, file)]
    with talkative(pacs_server, plants) as address:
        sources += in_the_pacs(pacs_server, address, plants, file)
        done = subprocess.run(
            [sys.executable, "-c", INTAKES, *sources],
            cwd=workspace, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    said = done.stdout + done.stderr
    said += uploaded(workspace, environment, plants, file)
    return Hospital(plants.kinds, folder, workspace, home, said)


def in_the_store(store: servers.ObjectStore, plants: planted.Plants, file: bytes) -> Iterator[str]:
    """Objects whose keys and metadata name the person, under such a prefix; then a prefix and a bucket of nothing."""
    access = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
    client = boto3.client("s3", endpoint_url=store.endpoint, region_name="us-east-1", **access)
    bucket, prefix = f"site-{uuid.uuid4().hex[:12]}", plants.word("S3 prefix")
    client.create_bucket(Bucket=bucket)
    for data in (file, planted.another(file, 4), *planted.broken(file, plants)):
        client.put_object(
            Bucket=bucket, Key=f"{prefix}/{plants.word('S3 folder')}/{plants.word('S3 key')}.dcm", Body=data,
            Metadata={"patient": plants.word("S3 metadata")},
        )  # fmt: skip
    yield f"s3://{bucket}/{prefix}"
    yield f"s3://{bucket}/{plants.word('S3 prefix of nothing')}"
    yield f"s3://{plants.word('S3 bucket of nobody').lower()}/{prefix}"


def in_the_pacs(pacs: servers.Pacs, address: str, plants: planted.Plants, file: bytes) -> Iterator[str]:
    """Studies that name the person in every attribute; then filters that do, one of them refused."""
    for study in httpx.get(f"{pacs.rest}/studies").json():
        httpx.delete(f"{pacs.rest}/studies/{study}").raise_for_status()
    for number in (5, 6, 7):
        httpx.post(f"{pacs.rest}/instances", content=planted.another(file, number)).raise_for_status()
    yield f"dicomweb+{address}"
    yield f"dicomweb+{address}?StudyDescription={plants.word('filter')}"
    yield f"dicomweb+{address}?PatientName={plants.word('filter of a name')}"
    yield f"dicomweb+{address}/{plants.word('path of a PACS')}"


@contextlib.contextmanager
def talkative(pacs: servers.Pacs, plants: planted.Plants) -> Iterator[str]:
    """A proxy before the PACS; of every study list one instance fails, and the answer says whose it is."""
    words = f"{plants.word('PACS error')}^{plants.word('PACS error, given')} is locked"
    failing: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, ask = self.path, {"Accept": self.headers.get("Accept", "*/*")}
            single = "/instances/" in path
            if single and (not failing or path in failing):
                failing.append(path)
                status, body, kind = 500, words.encode(), "text/plain"
            else:
                answer = httpx.get(f"{pacs.url}{path}", headers=ask, timeout=60)
                status, body, kind = answer.status_code, answer.content, answer.headers.get("Content-Type", "")
            self.send_response(status, words if status >= 400 else None)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the proxy is no part of what is tested."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
    assert failing


def uploaded(workspace: Path, environment: dict[str, str], plants: planted.Plants, file: bytes) -> str:
    """Files sent to the clinic service by HTTP, named and described after the person; what the service wrote on it."""
    [port] = servers.free_ports(1)
    command = [sys.executable, "-m", "components.serving"]
    address = f"http://127.0.0.1:{port}"
    heard = ""
    with subprocess.Popen(
        command, cwd=workspace, env=environment | {"OSTEOFLOW_SERVICE_PORT": str(port)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as service, httpx.Client(base_url=address, timeout=60) as client:  # fmt: skip
        try:
            while not answers(client):
                assert service.poll() is None
                time.sleep(0.2)
            told = {
                "User-Agent": plants.word("user agent"), "Referer": f"{address}/{plants.word('referer')}",
                "X-Patient": plants.word("header"), "Cookie": f"patient={plants.word('cookie')}",
            }  # fmt: skip
            for data in (file, *planted.broken(file, plants)):
                form = {"file": (f"{plants.word('file name of an upload')}.dcm", data, plants.word("content type"))}
                heard += client.post("/api/predictions", files=form, headers=told).text
            heard += client.post("/api/predictions", content=planted.another(file, 9), headers=told).text
            heard += client.post(f"/api/predictions?patient={plants.word('query')}", content=file).text
            heard += client.get(f"/api/predictions/{plants.word('id of a case')}").text
            heard += client.get(f"/api/predictions?limit={plants.word('limit')}").text
            heard += client.get(f"/cases/{plants.word('page of a case')}?name={plants.word('query of a page')}").text
        finally:
            service.send_signal(signal.SIGINT)
        return heard + service.communicate(timeout=30)[0]


def answers(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False


def test_images_came_in_by_every_door(hospital):
    """Two from the store and two from the PACS, one of whose three failed; the service judged two."""
    shards = sorted((hospital.workspace / "data" / "studies").glob("*.parquet"))

    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == 4
    assert "server_error" in hospital.said
    assert len(list((hospital.state / "serving" / "images").glob("*.overlay.png"))) == 2


def test_no_identifier_is_written_anywhere(hospital):
    """Data, git, DVC, Prefect, the service's log and database, its answers, and the terminal of every command."""
    assert hospital.hits() == []
