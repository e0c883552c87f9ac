"""A build fetches the shards that a step has to look into, and no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from components.dataset.inspect import inspect
from components.dataset.prepare import prepare
from components.dataset.wanted import new, sealed
from components.params import Prepare, load


@pytest.fixture
def build(home, make, tmp_path, request):
    """A revision with two batches, of which the first was measured and shrunk; its params, and its shards' names."""
    params = load(request.config.rootpath / "params.yaml")
    paths = {name: home.folder / name for name in ("studies", "catalog", "features", "prepared")}
    params = params.model_copy(update={"paths": params.paths.model_copy(update=paths)})
    home.take_in(make.dicoms(tmp_path / "one", [1, 2]))
    steps(home, params)
    home.take_in(make.dicoms(tmp_path / "two", [3]))
    home.entries()
    return params, sorted(path.name for path in home.studies.iterdir())


def steps(home, params) -> None:
    where = {"catalog": home.entries(), "studies": home.studies}
    inspect(**where, features=params.paths.features)
    prepare(**where, prepared=params.paths.prepared, params=params.prepare)


def test_a_new_shard_is_wanted(build):
    params, names = build

    assert new(params) == {names[1]}


def test_nothing_is_wanted_once_all_are_measured(build, home):
    params, _ = build
    steps(home, params)

    assert new(params) == set()


def test_another_size_wants_every_shard_again(build):
    params, names = build

    assert new(params.model_copy(update={"prepare": Prepare(size=64)})) == set(names)


def test_what_is_tested_are_the_shards_with_accepted_test_images(tmp_path):
    rows = [("test", True, "a"), ("test", False, "b"), ("train", True, "c"), ("test", True, "d"), ("test", True, "a")]
    (tmp_path / "accepted").mkdir()
    pd.DataFrame(rows, columns=["role", "accepted", "shard"]).to_parquet(tmp_path / "accepted" / "a.parquet")

    assert sealed(tmp_path / "accepted") == {"a.parquet", "d.parquet"}


@pytest.mark.parametrize(
    ("words", "said"), [(["all"], "usage: python -m"), (["new"], "DataError: data/catalog: no images")]
)
def test_a_question_without_an_answer_is_one_line(tmp_path, request, words, said):
    shutil.copy(request.config.rootpath / "params.yaml", tmp_path)
    command = [sys.executable, "-m", "components.dataset.wanted", *words]
    environment = os.environ | {"PYTHONPATH": str(request.config.rootpath)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
