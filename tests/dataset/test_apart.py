"""Images of the sealed test set lie in shards of their own, wherever a run was interrupted."""

from __future__ import annotations

import pytest

from components.dataset.places import bucket, likely
from components.params import Shares, Split

SPLIT = Split(salt="osteoflow", shares=Shares(train=50, tune=0, calibrate=0, test=50))


def apart(patient: str) -> bool:
    return likely(patient, "test", SPLIT)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def source(make, tmp_path_factory):
    return make.fracatlas(tmp_path_factory.mktemp("apart"), make.noise(24))


@pytest.fixture(scope="module")
def clean(source, home_at, tmp_path_factory):
    home = home_at(tmp_path_factory.mktemp("clean") / "home")
    home.take_in(source, weak_block=1, apart=apart)
    return home


def test_a_shard_holds_one_kind_of_patient(clean):
    table = clean.catalog()
    kinds = table["patient_id"].map(apart).groupby(table["shard"]).agg(["nunique", "first", "size"])

    assert len(table) == 24
    assert (kinds["nunique"] == 1).all()
    assert set(kinds["first"]) == {False, True}


@pytest.mark.parametrize("file", [1, 8, 14, 20, 24])
def test_interrupted_and_repeated_equals_one_run(source, clean, new_home, file):
    """Byte for byte: shards of both kinds fill at their own pace, and go on where they were."""
    home = new_home("killed")

    def progress(done: int, _: int) -> None:
        if done == file:
            raise Killed

    with pytest.raises(Killed):
        home.take_in(source, weak_block=1, apart=apart, progress=progress)
    home.take_in(source, weak_block=1, apart=apart)

    assert home.contents() == clean.contents()


def test_likely_is_the_bucket():
    patients = [f"patient-{k}" for k in range(50)]

    assert [likely(who, "test", SPLIT) for who in patients] == [
        bucket(who, SPLIT.salt, SPLIT.shares) == "test" for who in patients
    ]
