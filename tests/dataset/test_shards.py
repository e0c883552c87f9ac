"""`inspect` and `prepare`: one file a shard, and only what is new costs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from components.dataset.inspect import inspect, measured_by
from components.dataset.prepare import prepare
from components.dataset.store import read_pixels
from components.errors import DataError
from components.params import Prepare
from components.radiograph.pixels import Transform
from components.radiograph.quality import FEATURES


@pytest.fixture
def archive(home, make, tmp_path):
    home.take_in(make.dicoms(tmp_path / "one", [1, 2]))
    return home


def steps(home, size: int = 64) -> dict[str, int]:
    """Run both steps; when every output file was last written, in ns."""
    catalog = home.entries()
    inspect(catalog=catalog, studies=home.studies, features=home.folder / "features")
    prepare(catalog=catalog, studies=home.studies, prepared=home.folder / "prepared", params=Prepare(size=size))
    folders = (home.folder / "features", home.folder / "prepared")
    return {path.name: path.stat().st_mtime_ns for folder in folders for path in sorted(folder.iterdir())}


def test_squares_are_what_the_transform_makes(archive):
    steps(archive)
    [path] = (archive.folder / "prepared").iterdir()

    with np.load(path, allow_pickle=False) as arrays:
        squares = dict(zip(arrays["image_id"].tolist(), arrays["pixels"], strict=True))
        stated = json.loads(str(arrays["transform"]))

    assert stated == {"size": 64, "low": 0.5, "high": 99.5, "version": 1}
    for image_id, pixels in read_pixels(archive.studies, squares):
        assert np.array_equal(squares[image_id], Transform(size=64).apply(pixels))


def test_features_have_a_row_an_image(archive):
    steps(archive)
    [path] = (archive.folder / "features").iterdir()
    table = pd.read_parquet(path)

    assert list(table.columns) == ["image_id", *FEATURES, "polarity_ok", "phash", "thumbnail", "appearance"]
    assert list(table["image_id"]) == list(archive.catalog()["image_id"])
    assert table["phash"].str.fullmatch("[0-9a-f]{16}").all()


def test_again_writes_nothing(archive):
    assert steps(archive) == steps(archive)


def test_a_new_shard_costs_only_itself(archive, make, tmp_path):
    before = steps(archive)
    archive.take_in(make.dicoms(tmp_path / "two", [3]))

    after = steps(archive)

    assert len(after) == 4
    assert {name: after[name] for name in before} == before


def test_another_size_rebuilds_the_squares_alone(archive):
    before = steps(archive)
    after = steps(archive, size=32)

    assert {name for name in before if before[name] != after[name]} == {n for n in before if n.endswith(".npz")}


def test_another_archive_under_the_same_name_is_noticed(archive, make, tmp_path):
    """A checkout of other data may bring other content under a name that stands."""
    before = steps(archive)
    [shard] = archive.studies.iterdir()
    archive.take_in(make.dicoms(tmp_path / "two", [3]))
    newest = max(archive.studies.iterdir())
    newest.rename(shard)
    for entry in archive.entries().iterdir():
        entry.unlink()

    after = steps(archive)

    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_files_of_vanished_shards_go(archive):
    steps(archive)
    (archive.folder / "features" / "000009-gone-0000.parquet").write_text("stale")

    assert "000009-gone-0000.parquet" not in steps(archive)


def test_a_damaged_output_is_made_again(archive):
    steps(archive)
    for folder in ("features", "prepared"):
        [path] = (archive.folder / folder).iterdir()
        path.write_bytes(b"damaged")
    steps(archive)

    assert all(path.stat().st_size > 100 for f in ("features", "prepared") for path in (archive.folder / f).iterdir())


def test_features_know_all_the_code_that_measured_them():
    """A change in any of these files makes features stale."""
    assert {"quality.py", "scene.py", "image.py"} <= {path.name for path in measured_by()}


def test_an_archive_without_images_is_one_error(home):
    with pytest.raises(DataError, match="no images; run `osteoflow intake SOURCE`"):
        inspect(catalog=home.folder / "catalog", studies=home.studies, features=home.folder / "features")


@pytest.mark.parametrize("what", ["shard", "entry"])
def test_a_damaged_file_is_one_error(archive, what):
    entries = archive.entries()
    next((archive.studies if what == "shard" else entries).iterdir()).write_bytes(b"PAR1 damaged PAR1")

    with pytest.raises(DataError, match="run `dvc checkout`"):
        inspect(catalog=entries, studies=archive.studies, features=archive.folder / "features")


def test_a_shard_that_was_looked_at_need_not_be_here(archive, make, tmp_path):
    """A build fetches new shards alone."""
    before = steps(archive)
    for shard in archive.studies.iterdir():
        shard.unlink()
    archive.take_in(make.dicoms(tmp_path / "two", [3]))

    after = steps(archive)

    assert len(after) == 4
    assert {name: after[name] for name in before} == before


def test_a_new_shard_that_is_not_here_is_asked_for(archive):
    entries = archive.entries()
    next(archive.studies.iterdir()).unlink()

    with pytest.raises(DataError, match=r"not here; run `dvc pull .*-0000\.parquet`"):
        prepare(catalog=entries, studies=archive.studies, prepared=archive.folder / "p", params=Prepare(size=32))


def test_a_shard_of_other_content_than_its_entry_is_refused(archive, make, tmp_path):
    entries = archive.entries()
    [shard] = archive.studies.iterdir()
    archive.take_in(make.dicoms(tmp_path / "two", [3]))
    max(archive.studies.iterdir()).rename(shard)

    with pytest.raises(DataError, match="not what the catalog says; run `dvc checkout"):
        inspect(catalog=entries, studies=archive.studies, features=archive.folder / "features")
