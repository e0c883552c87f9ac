"""Objects that a store lists and does not give. Swift knows neither cold storage nor objects closed to one user, so a
small server says what S3 says, byte for byte as far as boto3 looks: the client and everything behind it are real.

Source: Amazon S3 API Reference, ListObjectsV2, GetObject, Error Responses.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import boto3
import pytest

from components.dataset.bucket import Prefix
from components.dataset.quarantine import entries
from components.dataset.spool import Fetched

ERRORS = {"archived": "InvalidObjectState", "forbidden": "AccessDenied"}


class S3(BaseHTTPRequestHandler):
    """A bucket. objects: by key, with what the store answers to GET instead of the content, if anything.

    kind: the storage class of everything; a restored object keeps its own.
    """

    objects: dict[str, tuple[bytes, str | None]]
    kind: str
    asked: list[str]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "list-type=2" in url.query:
            return self._answer(200, f"<ListBucketResult>{''.join(map(self._row, self.objects))}</ListBucketResult>")
        key = url.path.removeprefix("/bucket/")
        self.asked.append(key)
        content, refused = self.objects[key]
        if refused:
            return self._answer(403, f"<Error><Code>{ERRORS[refused]}</Code><Message>no</Message></Error>")
        return self._answer(200, content, ETag=f'"{hashlib.md5(content).hexdigest()}"')

    def _row(self, key: str) -> str:
        content, _ = self.objects[key]
        return (
            f"<Contents><Key>{key}</Key><ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag>"
            f"<Size>{len(content)}</Size><StorageClass>{self.kind}</StorageClass></Contents>"
        )

    def _answer(self, status: int, body: str | bytes, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def store() -> Iterator[tuple[type[S3], str]]:
    handler = type("Store", (S3,), {"objects": {}, "asked": [], "kind": "GLACIER"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def take_in(store, home, make, tmp_path):
    """Fill the bucket with three images, of which the store refuses the first for a reason; take them in."""
    images = [path.read_bytes() for path in sorted(make.dicoms(tmp_path / "source", [1, 2, 3]).iterdir())]
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=store[1], **keys)

    def run(refused: str | None):
        store[0].objects = {f"{n}": (data, refused if n == 0 else None) for n, data in enumerate(images)}
        state = tmp_path / "state"
        entrance = Fetched(Prefix(client, "bucket", ""), state / "spool", state / "taken.txt", home.pseudonyms)
        entrance.bring()
        batch = home.take_in(entrance.path, may_be_empty=True)
        entrance.landed()
        return batch

    return run


@pytest.mark.parametrize("reason", ERRORS)
def test_an_object_that_is_not_given_is_refused_with_its_reason_and_the_rest_lands(take_in, home, reason):
    batch = take_in(reason)

    assert (batch.added, batch.refused) == (2, {reason: 1})
    assert [line.reason for line in entries(home.quarantine)] == [reason]


@pytest.mark.parametrize("reason", ERRORS)
def test_restored_or_opened_it_is_fetched_alone_and_lands(take_in, store, reason):
    take_in(reason)
    store[0].asked.clear()

    assert take_in(None).added == 1
    assert store[0].asked == ["0"]
