"""Intake from a real S3-compatible store: pages, kills, damage, and what is not fetched a second time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from components.dataset.bucket import Prefix, part_sizes
from components.dataset.spool import Fetched
from components.errors import ConfigError, DataError, Unavailable

REPOSITORY = Path(__file__).resolve().parents[2]
# Fetches, and dies for real when it has written its n-th file.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import boto3
from components.dataset.bucket import Prefix
from components.dataset.spool import Fetched
from components.radiograph.deidentify import Pseudonyms

endpoint, bucket, state, number = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
seen = 0
def die(event, arguments):
    global seen
    if event == "os.rename" and "/parts/" in str(arguments[0]):
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
client = boto3.client("s3", endpoint_url=endpoint)
remote, key = Prefix(client, bucket, "", parallel=1), Pseudonyms(bytes(range(32)))
Fetched(remote, state / "spool", state / "taken.txt", key).bring()
"""


class Counting:
    """boto3's client, and how often each of its calls was made."""

    def __init__(self, client):
        self.client, self.calls = client, []

    def __getattr__(self, name):
        call = getattr(self.client, name)
        if name != "get_object":
            return call

        def counted(**arguments):
            self.calls.append(arguments["Key"])
            return call(**arguments)

        return counted


@pytest.fixture
def door(bucket, home, tmp_path):
    """Makers of doors to a prefix of the bucket; every one has the same state, as every run of intake has."""

    def make(prefix="", client=None, **options):
        remote = Prefix(client or bucket.client, bucket.name, prefix, **options)
        return Fetched(remote, tmp_path / "state" / "spool", tmp_path / "state" / "taken.txt", home.pseudonyms)

    return make


def through(door, home):
    """One run of intake: bring, take in, let go."""
    door.bring()
    batch = home.take_in(door.path, may_be_empty=door.may_be_empty)
    door.landed()
    return batch


def upload(bucket, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_dicoms_and_their_labels_land(bucket, door, home, make, tmp_path):
    upload(bucket, make.dicoms(tmp_path / "source", [1, 2, 3], labels={1: "fracture", 2: "no_fracture"}), "site/")

    batch = through(door("site"), home)

    assert (batch.added, batch.labels) == (3, {"fracture": 1, "no_fracture": 1, "unknown": 1})


def test_a_second_run_fetches_and_adds_nothing(bucket, door, home, make, tmp_path):
    upload(bucket, make.dicoms(tmp_path / "source", [1, 2], labels={1: "fracture"}), "")
    client = Counting(bucket.client)
    through(door(client=client), home)
    first, client.calls = client.calls, []

    batch = through(door(client=client), home)

    assert (len(first), client.calls) == (3, [])
    assert (batch.added, batch.duplicates, batch.label_events) == (0, 0, 0)


def test_what_is_new_is_fetched_alone(bucket, door, home, make, tmp_path):
    upload(bucket, make.dicoms(tmp_path / "source", [1, 2]), "")
    through(door(), home)
    upload(bucket, make.dicoms(tmp_path / "more", [3]), "")
    client = Counting(bucket.client)

    assert through(door(client=client), home).added == 1
    assert client.calls == ["3-0"]


def test_exports_of_one_name_in_many_folders_are_not_fetched_again(bucket, door, home, make, tmp_path):
    """PACS exports call every first image IM0001: a new study is no reason to fetch the old ones."""
    first, second = (make.dicoms(tmp_path / str(n), [n]) / f"{n}-0" for n in (1, 2))
    bucket.put("study-1/IM0001", first.read_bytes())
    through(door(), home)
    bucket.put("study-2/IM0001", second.read_bytes())
    client = Counting(bucket.client)

    assert through(door(client=client), home).added == 1
    assert client.calls == ["study-2/IM0001"]


def test_a_new_picture_brings_its_table_and_a_corrected_note_its_picture(bucket, door):
    """Boxes by themselves say nothing: their picture's size does. Other pictures stay where they are."""
    for key in ("dataset.csv", "images/a.png", "labels/a.txt", "images/b.png", "labels/b.txt"):
        bucket.put(key, key.encode())
    entrance = door()
    entrance.bring()
    entrance.landed()
    bucket.put("labels/a.txt", b"corrected")
    client = Counting(bucket.client)
    door(client=client).bring()

    assert sorted(client.calls) == ["dataset.csv", "images/a.png", "labels/a.txt"]


def test_a_folder_that_claims_to_be_a_spool_is_said(home, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / ".osteoflow-spool.json").write_text("[]")

    with pytest.raises(DataError, match="is not ours; remove that file"):
        home.take_in(tmp_path / "source")


def test_a_corrected_label_is_heard(bucket, door, home, make, tmp_path):
    source = make.dicoms(tmp_path / "source", [1], labels={1: "no_fracture"})
    upload(bucket, source, "")
    through(door(), home)
    table = source / "labels.csv"
    bucket.put("labels.csv", table.read_bytes().replace(b"no_fracture", b"fracture"))

    batch = through(door(), home)

    assert (batch.added, batch.label_events) == (0, 1)


def test_more_than_a_page_is_listed_whole(bucket, door):
    """1,001 objects: the store itself cuts a list at 1,000."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bucket.put(f"many/{number:04d}", b""), range(1001)))

    assert len({offer.name for offer in door("many").remote.offers()}) == 1001
    assert len({offer.name for offer in door("many/", page=300).remote.offers()}) == 1001


def test_a_prefix_is_a_folder(bucket, door):
    """`site` is not `site-b`, and a marker of a folder is no file; a key of that very name is one."""
    for key in ("site/a", "site-b/a", "site/", "one.zip"):
        bucket.put(key, b"x")

    assert [offer.name for offer in door("site").remote.offers()] == ["a"]
    assert [offer.name for offer in door("site/").remote.offers()] == ["a"]
    assert [offer.name for offer in door("one.zip").remote.offers()] == ["one.zip"]


def test_a_zip_and_an_archive_s_own_layout_land(bucket, door, home, make, tmp_path):
    folder = make.dicoms(tmp_path / "source", [1, 2])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    bucket.put("zips/a.zip", (tmp_path / "a.zip").read_bytes())
    atlas = make.fracatlas(tmp_path / "atlas", [make.shot(n, make.jpeg(make.picture(n)), "01"[n % 2]) for n in (1, 2)])
    upload(bucket, atlas, "atlas/")

    assert through(door("zips"), home).added == 2
    assert through(door("atlas"), home).labels == {"fracture": 1, "no_fracture": 1}


def test_names_that_lead_elsewhere_lead_nowhere(bucket, door, home, make, tmp_path):
    [path] = make.dicoms(tmp_path / "source", [1]).iterdir()
    for key in ("../../evil", "a", "a/b", "x/" + "y" * 300):
        bucket.put(key, path.read_bytes())
    entrance = door()
    entrance.bring()

    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len([path for path in files if path.is_relative_to(entrance.path / "files")]) == 4
    assert home.take_in(entrance.path).added == 1
    assert not list(tmp_path.rglob("evil"))


def test_the_spool_is_private_and_does_not_stay(bucket, door, home, make, tmp_path):
    upload(bucket, make.dicoms(tmp_path / "source", [1]), "")
    entrance = door()
    entrance.bring()
    mode = oct(entrance.folder.stat().st_mode & 0o777)
    entrance.landed()

    assert (mode, entrance.folder.exists()) == ("0o700", False)
    assert bucket.name not in (tmp_path / "state" / "taken.txt").read_text()


@pytest.mark.parametrize("file", [2, 4])
def test_killed_while_it_fetches_and_repeated_equals_one_run(bucket, door, home, make, tmp_path, file):
    """The rerun does not fetch again what the killed one had."""
    upload(bucket, make.dicoms(tmp_path / "source", [1, 2, 3, 4]), "")
    command = [sys.executable, "-c", SCRIPT, bucket.store.endpoint, bucket.name, str(tmp_path / "state"), str(file)]
    death = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True)
    client = Counting(bucket.client)

    batch = through(door(client=client), home)

    assert death.returncode == -signal.SIGKILL, death.stderr[-500:]
    assert len(client.calls) == 4 - file  # the last one had arrived, and only lacked its name
    assert (batch.added, batch.refused) == (4, {})


def test_a_partial_object_is_continued(bucket, door):
    """Half of it lies in the spool: the other half is asked for, and the whole is verified."""
    data = os.urandom(100_000)
    bucket.put("a", data)
    entrance = door()
    [offer] = entrance.remote.offers()
    entrance.folder.mkdir(parents=True)
    target, part = entrance.folder / "a", entrance.folder / "part"
    part.write_bytes(data[:60_000])

    entrance.remote.fetch(offer, target, part)

    assert target.read_bytes() == data


def test_a_corrupted_part_is_fetched_afresh(bucket, door):
    data = os.urandom(100_000)
    bucket.put("a", data)
    entrance = door()
    [offer] = entrance.remote.offers()
    entrance.folder.mkdir(parents=True)
    target, part = entrance.folder / "a", entrance.folder / "part"
    part.write_bytes(bytes(60_000))

    entrance.remote.fetch(offer, target, part)

    assert target.read_bytes() == data


def test_a_corrupted_spool_is_noticed(bucket, door, home, make, tmp_path):
    upload(bucket, make.dicoms(tmp_path / "source", [1]), "")
    door().bring()
    [path] = (tmp_path / "state" / "spool" / "files").iterdir()
    path.write_bytes(bytes(path.stat().st_size))

    assert through(door(), home).added == 1


class Damaging(Counting):
    """A network that turns one byte of every object over."""

    def __getattr__(self, name):
        call = super().__getattr__(name)
        if name != "get_object":
            return call

        def damaged(**arguments):
            answer = call(**arguments)
            data = bytearray(answer["Body"].read())
            data[0] ^= 1
            answer["Body"] = type("Body", (), {"iter_chunks": staticmethod(lambda size: [bytes(data)])})
            return answer

        return damaged


def test_an_object_that_does_not_match_its_etag_is_a_refusal(bucket, door, home, make, tmp_path):
    """It is recorded, never stored, and asked for again by the next run."""
    upload(bucket, make.dicoms(tmp_path / "source", [1]), "")

    assert through(door(client=Damaging(bucket.client)), home).refused == {"etag_mismatch": 1}
    assert through(door(), home).added == 1


def test_a_multipart_upload_is_verified_part_by_part(bucket, door):
    data = os.urandom((5 << 20) + 1000)
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="a")["UploadId"]
    where = {"Bucket": bucket.name, "Key": "a", "UploadId": upload}
    parts = []
    for number, piece in enumerate((data[: 5 << 20], data[5 << 20 :]), start=1):
        etag = bucket.client.upload_part(**where, PartNumber=number, Body=piece)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    bucket.client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    entrance = door()
    [offer] = entrance.remote.offers()
    entrance.folder.mkdir(parents=True)
    target = entrance.folder / "a"

    entrance.remote.fetch(offer, target, entrance.folder / "part")

    assert offer.key.endswith("-2")
    assert target.read_bytes() == data
    target.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not entrance.remote.intact(offer, target)


@pytest.mark.parametrize(
    ("size", "count", "first"),
    [(20 << 20, 3, 8 << 20), (10 << 20, 2, 8 << 20), (12_000_000, 2, 8 << 20), (7, 1, 7), (100, 3, 34)],
)
def test_parts_are_guessed_from_the_usual(size, count, first):
    assert part_sizes(size, count)[0] == first


def test_an_object_that_vanishes_is_a_refusal_and_the_rest_lands(bucket, door, home, make, tmp_path):
    upload(bucket, make.dicoms(tmp_path / "source", [1, 2]), "")
    entrance = door()
    offers = list(entrance.remote.offers())
    bucket.client.delete_object(Bucket=bucket.name, Key="1-0")
    object.__setattr__(entrance, "remote", Listed(entrance.remote, offers))

    batch = through(entrance, home)

    assert (batch.added, batch.refused) == (1, {"vanished": 1})


class Listed:
    """A prefix as it was listed earlier."""

    def __init__(self, remote, offers):
        self.remote, self.found = remote, offers

    def __getattr__(self, name):
        return getattr(self.remote, name)

    def offers(self):
        return self.found


def test_an_empty_prefix_is_said(bucket, door):
    with pytest.raises(DataError, match="nothing is there; check the bucket and prefix"):
        door("nowhere").bring()


def client(bucket, **changes):
    """A client as the flows build it, with something wrong."""
    settings = {
        "endpoint_url": bucket.store.endpoint,
        "config": Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=5),
    }
    return boto3.client("s3", **settings | changes)


@pytest.mark.parametrize(
    ("changes", "name", "error", "said"),
    [
        ({}, "no-such-bucket", ConfigError, "there is no such bucket"),
        ({"aws_secret_access_key": "wrong"}, None, ConfigError, "the secret key does not fit"),
        ({"aws_access_key_id": "test:nobody"}, None, ConfigError, "access"),
        ({"endpoint_url": "http://127.0.0.1:9"}, None, Unavailable, "does not answer"),
        ({"endpoint_url": "https://127.0.0.1:{port}"}, None, ConfigError, "no TLS with the endpoint"),
    ],
)
def test_what_is_wrong_with_a_store_is_one_line(bucket, changes, name, error, said):
    port = bucket.store.endpoint.rpartition(":")[2]
    changes = {key: value.format(port=port) for key, value in changes.items()}
    secret = {"aws_access_key_id": bucket.store.access_key, "aws_secret_access_key": bucket.store.secret_key}

    with pytest.raises(error, match=said) as caught:
        list(Prefix(client(bucket, **secret | changes), name or bucket.name, "").offers())
    assert "\n" not in str(caught.value)


def test_no_credentials_are_said(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    boto3.setup_default_session()

    with pytest.raises(ConfigError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        list(Prefix(client(bucket), bucket.name, "").offers())
