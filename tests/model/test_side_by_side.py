"""Networks fitted side by side, in processes of their own: nothing of it shows in what is trained."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from components.errors import DataError
from components.model import side_by_side
from components.model.train import PROCESSES_FROM, train
from tests.model.killed import killed

FILES = ("model.keras", "training.json", "history.json", "out_of_fold.parquet")


@pytest.fixture(scope="module")
def plenty(make_archive, tmp_path_factory):
    """As many images as make processes worth it."""
    return make_archive(tmp_path_factory.mktemp("plenty") / "archive", {"train": PROCESSES_FROM, "tune": 24})


@pytest.fixture(scope="module")
def of_two_folds(plenty, make_params, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "models" / "trained"
    train(**plenty.inputs, trained=folder, params=make_params(epochs=2, folds=2))
    return folder


def test_one_core_or_two_make_no_difference(plenty, of_two_folds, make_params, tmp_path, monkeypatch, capfd):
    """One after the other, each still on one thread: the same bytes; and none is fitted again after its process."""
    asked = []
    monkeypatch.setattr(side_by_side, "room", lambda each: asked.append(each) or 1)
    train(**plenty.inputs, trained=tmp_path / "models/trained", params=make_params(epochs=2, folds=2))

    for name in FILES:
        assert (tmp_path / "models/trained" / name).read_bytes() == (of_two_folds / name).read_bytes(), name
    told = [line.split("  ")[:2] for line in capfd.readouterr().out.splitlines()]
    assert told == [[f"fold {fold}/2", f"epoch {epoch}/2"] for fold in (1, 2) for epoch in (1, 2)]
    assert asked == [3 * 2**30 + 3 * 524 * 64 * 64]  # it was asked: there were processes; by network and images


def test_killed_it_ends_with_the_same_bytes(plenty, of_two_folds, make_params, tmp_path):
    """SIGKILL while two networks are fitted, started again."""
    call = {**plenty.inputs, "trained": tmp_path / "models/trained", "params": make_params(epochs=2, folds=2)}
    assert killed(call, epochs=1) == -signal.SIGKILL
    train(**call)

    for name in FILES:
        assert (tmp_path / "models/trained" / name).read_bytes() == (of_two_folds / name).read_bytes(), name


def test_one_at_a_time_where_one_core_is_given():
    """What `taskset -c` leaves counts, not what the machine has."""
    given = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(given)})
    try:
        assert side_by_side.room(1) == 1
    finally:
        os.sched_setaffinity(0, given)


@pytest.mark.parametrize(("limit", "expected"), [("max\n", 5), ("9000000000\n", 2), ("1000\n", 1), (None, 5)])
def test_memory_is_no_more_than_there_is(limit, expected, monkeypatch, tmp_path):
    """Sixteen cores, 20 GiB and 4 GB each: five at once; in a container what it is given; one there always is."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 5 * 2**20}.__getitem__)
    monkeypatch.setattr(side_by_side, "LIMITS", (str(tmp_path / "memory.max"),))
    if limit:
        (tmp_path / "memory.max").write_text(limit)

    assert side_by_side.room(4_000_000_000) == expected


def test_the_first_error_ends_the_others(tmp_path, monkeypatch):
    """One of two diverges: its error is raised as it is, and nobody goes on fitting."""
    monkeypatch.setattr(side_by_side, "room", lambda each: 2)
    with pytest.raises(DataError, match=r"^training diverged$"):
        side_by_side.side_by_side(partial(_work, tmp_path), [0, 1], each=1)

    assert [_ended(tmp_path, task) for task in (0, 1)] == [True, True]


def test_nobody_goes_on_once_it_was_killed(tmp_path):
    """A process whose parent is gone ends within seconds, on one thread as it began."""
    start = multiprocessing.get_context("spawn").Process
    parent = start(target=side_by_side.side_by_side, args=(partial(_work, tmp_path), [0]), kwargs={"each": 1})
    parent.start()
    _until(lambda: (tmp_path / "0.json").exists())
    parent.kill()
    parent.join()

    _until(lambda: _ended(tmp_path, 0))
    assert json.loads((tmp_path / "0.json").read_text())["threads"] == 1


def test_a_process_that_dies_is_told_of():
    """As of one that the kernel ends for want of memory."""
    with pytest.raises(DataError, match=r"fitting a network died \(exit status -9\).*taskset"):
        side_by_side.side_by_side(_die, [0], each=1)


def _work(folder: Path, task: int) -> None:
    """Leave a word of this process; then wait for minutes, but where it is the second: fail, once both have begun."""
    import tensorflow as tf

    word = {"process": os.getpid(), "threads": tf.config.threading.get_intra_op_parallelism_threads()}
    (folder / f"{task}.part").write_text(json.dumps(word))
    (folder / f"{task}.part").rename(folder / f"{task}.json")
    if task == 1:
        _until(lambda: (folder / "0.json").exists())
        raise DataError("training diverged")
    time.sleep(600)


def _die(task: int) -> None:
    time.sleep(1)  # until the pool knows that it has begun
    os.kill(os.getpid(), signal.SIGKILL)


def _ended(folder: Path, task: int) -> bool:
    """Whether the process that worked on `task` is no more, or only waits for somebody to ask how it ended."""
    process = json.loads((folder / f"{task}.json").read_text())["process"]
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _until(done: Callable[[], bool]) -> None:
    for _ in range(3000):
        if done():
            return
        time.sleep(0.01)
    pytest.fail("not within thirty seconds")
