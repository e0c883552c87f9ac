"""Data versions as a person reads them: from a real repository with real DVC pointers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from components.dataset.store import write_catalog, write_images, write_labels
from components.errors import ConfigError, DataError
from components.params import Params, load
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.labels import LabelEvent
from components.workspace import Workspace
from flows.versions import difference, history

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDERS = [Path("data/studies"), Path("data/labels"), Path("data/catalog")]


def image(name: str) -> Radiograph:
    meta = ImageMeta(
        image_id=name,
        patient_id=f"patient-{name}",
        study_id=f"study-{name}",
        source="test",
        grouping="patient",
        site="north",
        device="d",
        view="frontal",
        body_region="wrist",
        photometric="MONOCHROME2",
        bits_stored=8,
        rows=4,
        columns=4,
    )
    return Radiograph(meta=meta, pixels=np.full((4, 4), sum(name.encode()) % 256, np.uint8))


def said(name: str, label: str, provenance: str = "archive", day: int = 1) -> LabelEvent:
    time = f"2026-01-{day:02d}T12:00:00+00:00"
    return LabelEvent.new(image_id=name, time=time, label=label, reader="r", provenance=provenance)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Workspace, Params, list[str]]:
    """Two intakes and one feedback, and the commits that version them."""
    root = tmp_path_factory.mktemp("versions") / "clone"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / ".gitignore").write_text(".osteoflow\ndata/studies\ndata/labels\ndata/catalog\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    home = Workspace(root, root / ".osteoflow", str(root.parent / "remote"), "engineer").open()
    commits = []
    for batch, names in (("000001-aa", ["one", "two"]), ("000002-bb", ["three"])):
        write_labels(root / "data/labels", [said(name, "fracture") for name in names], batch=batch)
        write_images(root / "data/studies", [image(name) for name in names], batch=batch, shard_bytes=10**6)
        write_catalog(root / "data/studies", root / "data/catalog")
        commits.append(home.commit_data(FOLDERS, f"Take in {len(names)} radiographs ({batch})\n\nsites: north"))
    write_labels(root / "data/labels", [said("one", "no_fracture", "adjudicated", day=2)], batch="000003-cc")
    commits.append(home.commit_data(FOLDERS, "Settle 1 corrected cases"))
    return home, load(root / "params.yaml"), commits


def test_the_log_lists_what_moved_a_pointer(site):
    home, params, commits = site
    versions = history(home, params, limit=10).versions

    assert [(v.commit, v.what, v.details, v.shards) for v in versions] == [
        (commits[2], "Settle 1 corrected cases", "", 1),
        (commits[1], "Take in 1 radiographs (000002-bb)", "sites: north", 2),
        (commits[0], "Take in 2 radiographs (000001-aa)", "sites: north", 2),
    ]
    assert "Settle 1 corrected cases" in history(home, params, limit=1).text()


def test_a_difference_says_what_came_in(site):
    home, params, commits = site
    change = difference(home, params, commits[0], commits[1])

    assert (change.images, change.shards, change.gone) == (1, 1, 0)
    assert (change.sites, change.regions) == ({"north": 1}, {"wrist": 1})
    assert (change.labels, change.events, change.truths) == ({"fracture": 1}, {"archive": 1}, {})


def test_a_correction_shows_as_a_label_that_turned(site):
    home, params, commits = site
    change = difference(home, params, commits[1], "HEAD")

    assert (change.images, change.events) == (0, {"adjudicated": 1})
    assert change.truths == {"fracture -> no fracture": 1}


def test_the_wrong_order_is_pointed_out(site):
    home, params, commits = site

    assert "2 shard(s) of the first are not in the second" in difference(home, params, commits[1], commits[0]).text()


def test_an_empty_cache_is_no_obstacle_where_the_remote_is_a_folder(site, tmp_path):
    home, params, commits = site
    elsewhere = Workspace(home.root, tmp_path / "state", home.remote, "engineer")

    assert difference(elsewhere, params, commits[0], commits[2]).images == 1


def test_bytes_that_nobody_has_are_said_to_be_missing(site, tmp_path):
    home, params, commits = site
    elsewhere = Workspace(home.root, tmp_path / "state", str(tmp_path / "nowhere"), "engineer")

    with pytest.raises(DataError, match="these bytes are not on this machine"):
        difference(elsewhere, params, commits[0], commits[2])


def test_an_unknown_revision_is_said_to_be_unknown(site):
    home, params, _ = site

    with pytest.raises(ConfigError, match="no such revision"):
        difference(home, params, "no-such-thing", "HEAD")
