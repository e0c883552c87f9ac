"""Half states of an archive, each made for real: the doctor names them, mends the safe ones, and leaves the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset.batches import BatchRecord, write_record
from components.dataset.store import write_catalog
from components.errors import DataError, Unavailable
from components.settings import Settings, load_settings
from components.workspace import Workspace
from flows import clients
from flows.doctor import examine, repair
from flows.doors import door
from flows.halves import halves
from tests.processes import path_with_hook

REPOSITORY = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.slow  # DVC starts several times in each


@pytest.fixture
def site(tmp_path) -> tuple[Settings, Workspace]:
    """One shard, versioned and pushed to a folder."""
    return opened(tmp_path)


@pytest.fixture
def site_on_s3(tmp_path, bucket) -> tuple[Settings, Workspace]:
    """One shard, versioned and pushed to a store."""
    return opened(tmp_path, dvc_remote=f"{bucket.url}/team/dvc", s3_endpoint_url=bucket.store.endpoint)


def opened(tmp_path, **settings_: str) -> tuple[Settings, Workspace]:
    root = tmp_path / "clone"
    (root / "data" / "studies").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / ".gitignore").write_text(".osteoflow\ndata/studies\ndata/labels\ndata/catalog\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    settings = load_settings(root).model_copy(update={"user": "a"} | settings_)
    home = clients.workspace(settings)
    (root / "data/studies/one.parquet").write_bytes(shard("one"))
    write_catalog(root / "data/studies", root / "data/catalog")
    home.commit_data([Path("data/studies"), Path("data/catalog")], "first")
    return settings, home


def shard(name: str) -> bytes:
    """A file with one image, which has a name and no picture."""
    whole = pa.BufferOutputStream()
    pq.write_table(pa.table({"image_id": [name], "pixels": [b"picture"]}), whole)
    return whole.getvalue().to_pybytes()


def seen(settings: Settings) -> str:
    return " / ".join(half.what for half in halves(settings))


def test_a_whole_archive_has_no_halves(site):
    assert seen(site[0]) == ""


def test_shards_of_a_killed_run_are_versioned(site):
    """Killed before `dvc add`, with a file half-written."""
    settings, home = site
    (home.root / "data/studies/two.parquet").write_bytes(shard("two"))
    (home.root / "data/studies/.three.parquet.x.part").write_bytes(b"th")
    assert "1 half-written" in seen(settings)
    assert "1 shard(s) are in no version" in seen(settings)
    repair(settings)

    assert seen(settings) == ""
    assert home.listing(home.pointer("HEAD", "data/studies.dvc")).keys() == {"one.parquet", "two.parquet"}


def test_a_pointer_that_was_never_committed_is_committed_and_its_bytes_pushed(site):
    """Killed between `dvc add` and `dvc push`."""
    settings, home = site
    (home.root / "data/studies/two.parquet").write_bytes(shard("two"))
    home._dvc("add", "--quiet", "data/studies")
    assert "2 named file(s) are not in the remote" in seen(settings)
    assert "the pointer moved and was not committed" in seen(settings)
    repair(settings)

    assert seen(settings) == ""
    assert not home.dirty("data/studies.dvc")


def test_a_shard_without_an_entry_is_entered(site):
    """An archive of before there was a catalog; or killed between the shards and their entries."""
    settings, home = site
    (home.root / "data/catalog/one.parquet").unlink()
    (home.root / "data/studies/two.parquet").write_bytes(shard("two"))
    assert "data/catalog: 2 shard(s) have no entry" in seen(settings)
    repair(settings)

    assert seen(settings) == ""
    assert home.listing(home.pointer("HEAD", "data/catalog.dvc")).keys() == {"one.parquet", "two.parquet"}


def test_a_remote_and_a_clone_that_lost_bytes_get_them_back(site):
    settings, home = site
    shutil.rmtree(settings.remote_url)
    (home.root / "data/studies/one.parquet").unlink()
    repair(settings)

    assert seen(settings) == ""
    assert (home.root / "data/studies/one.parquet").read_bytes() == shard("one")
    assert Path(settings.remote_url).is_dir()


def test_a_folder_that_lost_one_file_gets_it_back(site):
    """`dvc push` would send nothing: the folder's list is still there."""
    settings, home = site
    lose(Path(settings.remote_url), home)
    assert "1 named file(s) are not in the remote" in seen(settings)
    repair(settings)

    assert seen(settings) == ""


def test_a_file_damaged_in_the_cache_is_not_sent(site):
    settings, home = site
    md5 = lose(Path(settings.remote_url), home)
    home.cached(md5).chmod(0o644)
    home.cached(md5).write_bytes(b"two")

    with pytest.raises(DataError, match="damaged in the cache"):
        repair(settings)


def lose(place: Path, home: Workspace, folder: str = "data/studies") -> str:
    """Remove the one file of `folder` from a folder in DVC's layout; return its MD5."""
    [md5] = home.listing(home.standing(f"{folder}.dvc")).values()
    (place / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    return md5


def objects(bucket) -> list[str]:
    found = bucket.client.list_objects_v2(Bucket=bucket.name).get("Contents", [])
    return sorted(row["Key"] for row in found)


def test_a_store_that_lost_an_object_gets_it_back(site_on_s3, bucket):
    """DVC itself calls this state in sync."""
    settings, home = site_on_s3
    before = objects(bucket)
    [md5] = home.listing(home.standing("data/studies.dvc")).values()
    [key] = [key for key in before if key.endswith(f"{md5[:2]}/{md5[2:]}")]
    bucket.client.delete_object(Bucket=bucket.name, Key=key)
    assert "1 named file(s) are not in the remote" in seen(settings)
    repair(settings)

    assert (seen(settings), objects(bucket)) == ("", before)
    assert bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read() == shard("one")


def test_an_object_that_nobody_has_is_explained(site_on_s3, bucket):
    settings, home = site_on_s3
    for folder in ("data/studies", "data/catalog"):
        lose(home.state / "cache", home, folder)
    for key in objects(bucket):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)

    assert "the bytes of 1 named file(s) are neither in the cache nor in the remote" in seen(settings)
    assert repair(settings) == []
    assert objects(bucket) == []  # not the list, which the cache has: it would say that the shard is there


def test_a_store_that_does_not_answer_is_said(site_on_s3):
    settings, _ = site_on_s3

    with pytest.raises(Unavailable, match="the store does not answer"):
        halves(settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"}))


def test_an_empty_cache_is_filled_from_the_remote(site):
    settings, home = site
    shutil.rmtree(home.state / "cache")
    (home.root / "data/studies/one.parquet").unlink()
    repair(settings)

    assert (home.root / "data/studies/one.parquet").read_bytes() == shard("one")


def test_bytes_that_nobody_has_are_explained_and_nothing_is_touched(site):
    settings, home = site
    for place in (home.state / "cache", Path(settings.remote_url)):
        lose(place, home)
    (home.root / "data/studies/one.parquet").unlink()
    before = home.head()

    assert "neither in the cache nor in the remote" in seen(settings)
    assert repair(settings) == []
    assert home.head() == before


FETCH = """
import sys
from pathlib import Path
from components.settings import load_settings
from flows.doors import door
door(load_settings(Path(sys.argv[1])), sys.argv[2]).bring()
"""


def test_what_a_killed_fetch_left_is_named_and_removed(site_on_s3, bucket, tmp_path):
    """Two of three objects had come; the next intake fetches all three."""
    settings, home = site_on_s3
    for number in range(3):
        bucket.put(f"site/{number}", bytes([number]) * 1_000_000)
    killed = {
        "PYTHONPATH": path_with_hook(tmp_path / "hook", REPOSITORY),
        "DIE_AT": json.dumps(["os.rename", "/parts/", 3]),
        "OSTEOFLOW_S3_ENDPOINT_URL": str(settings.s3_endpoint_url),
    }
    command = [sys.executable, "-c", FETCH, str(home.root), f"{bucket.url}/site"]
    death = subprocess.run(command, env=os.environ | killed, capture_output=True, text=True, start_new_session=True)
    assert death.returncode == -signal.SIGKILL, death.stderr[-1000:]
    assert "a killed intake fetched 3 file(s) (3.0 MB), identities included" in seen(settings)
    repair(settings)

    assert seen(settings) == ""
    assert list((home.state / "spool").iterdir()) == []
    assert door(settings, f"{bucket.url}/site").bring() == "3 there, 0 of them not fetched again"


def test_what_was_claimed_from_the_inbox_is_named_and_stays(site):
    """Nobody else has it."""
    settings, home = site
    settings.inbox_folder.mkdir(parents=True)
    (settings.inbox_folder / "image").write_bytes(b"image")
    door(settings, None).bring()

    assert "a killed intake claimed 1 file(s) from the inbox" in seen(settings)
    assert repair(settings) == []
    assert (home.state / "spool" / "inbox" / "files" / "image").read_bytes() == b"image"


def test_drafts_in_the_quarantine_and_of_a_page_are_removed(site):
    settings, home = site
    (home.state / "quarantine").mkdir()
    (home.state / "quarantine" / ".refused.jsonl.x.part").write_bytes(b"{")
    (home.state / "reports" / ".intake-000001.x.part").mkdir(parents=True)
    assert seen(settings).count("1 half-written file(s)") == 2
    repair(settings)

    assert seen(settings) == ""


def test_a_record_that_was_not_committed_is_committed(site):
    settings, home = site
    write_record(home.root / "data" / "batches", BatchRecord(batch="000001-a", refused={}, copies=1, disagreements=0))
    assert "a batch's record was not committed" in seen(settings)
    repair(settings)

    assert (seen(settings), home.dirty("data/batches")) == ("", False)


def test_a_lock_of_git_is_explained_and_stays(site):
    settings, home = site
    lock = home.root / ".git" / "index.lock"
    lock.touch()

    assert "git is locked (index.lock)" in seen(settings)
    assert repair(settings) == []
    assert lock.exists()


def test_nothing_is_half_done_while_a_writer_is_at_work(site):
    settings, home = site
    (home.root / "data/studies/.three.parquet.x.part").write_bytes(b"th")
    with home.writing():
        [archive] = [finding for finding in examine(settings).findings if finding.check == "archive"]

    assert archive.detail == "a writer is at work here; look again when it is done"


def test_clones_of_the_earlier_layout_are_removed(site):
    settings, home = site
    (home.state / "builds" / "0123456789ab").mkdir(parents=True)
    (home.state / "builds" / "1").mkdir()
    repair(settings)

    assert [path.name for path in (home.state / "builds").iterdir()] == ["1"]
