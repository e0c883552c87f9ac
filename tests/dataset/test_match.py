"""Near-duplicates, shard by shard: in whatever portions an archive grows, what comparing all at once finds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset import match as module
from components.dataset import neighbours as search
from components.dataset.keys import write_keyed
from components.dataset.match import match
from components.dataset.matches import read_matches
from components.dataset.neighbours import neighbours
from components.errors import DataError
from components.params import Match
from components.radiograph.likeness import SIDE, likeness

PARAMS = Match(bits=12, likeness=0.97)
RANDOM = np.random.default_rng(20261123)


def picture() -> np.ndarray:
    """(SIDE, SIDE) uint8: clouds."""
    noise = RANDOM.normal(size=(SIDE, SIDE)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def again(whole: np.ndarray) -> np.ndarray:
    """The picture in another encoding, turned a little: the likeness is not 1 and no round number."""
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), RANDOM.uniform(-3, 3), 1)
    turned = cv2.warpAffine(whole, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(turned + RANDOM.normal(0, RANDOM.uniform(0, 12), turned.shape), 0, 255).astype(np.uint8)


# Twelve pictures, five copies of each; hashes crowd around four values, so that most pairs are proposed.
PICTURES = [again(whole) for whole in [picture() for _ in range(12)] for _ in range(5)]
CENTRES = RANDOM.integers(0, 2**63, 4).astype(np.uint64)
CODES = np.array(
    [int(CENTRES[n // 15]) ^ sum(1 << int(bit) for bit in RANDOM.choice(64, RANDOM.integers(0, 8), replace=False))
     for n in range(len(PICTURES))], np.uint64,
)  # fmt: skip
IDS = np.array([f"image-{n:02d}" for n in range(len(PICTURES))], dtype=object)


def put(folder: Path, name: str, images: list[int]) -> None:
    """A shard of features of these images."""
    columns = {
        "image_id": IDS[images],
        "phash": [f"{CODES[n]:016x}" for n in images],
        "thumbnail": [PICTURES[n].tobytes() for n in images],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_keyed(folder / f"{name}.parquet", pa.table(columns), f"made of {images}")


def whole(order: list[int], params: Match = PARAMS) -> tuple[list[list[int]], list[float]]:
    """Every two images compared at once, as positions in `order`."""
    pairs = neighbours(CODES[order], params.bits)
    alike = likeness(np.stack([PICTURES[n] for n in order]), pairs)
    same = alike >= params.likeness
    return pairs[same].tolist(), alike[same].tolist()


def found(folder: Path, order: list[int]) -> tuple[list[list[int]], list[float]]:
    pairs, alike = read_matches(folder / "matches", pd.Series(IDS[order]))
    return pairs.tolist(), alike.tolist()


def run(folder: Path, params: Match = PARAMS) -> set[str]:
    """Run the step; the files it wrote."""
    matches = folder / "matches"
    before = {path.name: path.stat().st_mtime_ns for path in matches.glob("*")}
    match(features=folder / "features", matches=matches, params=params)
    return {path.name for path in matches.glob("*") if before.get(path.name) != path.stat().st_mtime_ns}


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """Three shards of twenty images, matched."""
    for n, name in enumerate("abc"):
        put(tmp_path / "features", name, list(range(20 * n, 20 * n + 20)))
    assert run(tmp_path) == {"a.parquet", "b.parquet", "c.parquet"}
    return tmp_path


ARRIVALS = st.tuples(st.permutations(range(len(PICTURES))), st.lists(st.integers(1, 59), max_size=6), st.booleans())


@given(ARRIVALS, st.sets(st.integers(0, 6)))
@settings(deadline=None, max_examples=25)
def test_growing_finds_what_comparing_all_at_once_finds(tmp_path_factory, arrival, runs):
    """Any order, any shards, any nights on which the step ran: the same pairs, the same likeness to the last bit."""
    order, cuts, looked_up = arrival
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FEW", 0 if looked_up else search.FEW)
        bounds = [0, *sorted(set(cuts)), len(order)]
        for n, (begin, end) in enumerate(pairwise(bounds)):
            put(folder / "features", f"{n:02d}", order[begin:end])
            if n in runs:
                run(folder)
        run(folder)

    pairs, alike = whole(order)
    assert len(pairs) > 20
    assert found(folder, order) == (pairs, alike)


def test_a_new_shard_costs_only_itself(grown):
    put(grown / "features", "d", [0, 1])

    assert run(grown) == {"d.parquet"}


def test_standing_pairs_are_not_compared_again(grown, monkeypatch):
    """One new image meets those its hash is close to, and nothing else is laid over anything."""
    compared = []
    monkeypatch.setattr(module, "likeness", lambda small, pairs: compared.append(len(pairs)) or likeness(small, pairs))
    put(grown / "features", "d", [0])
    run(grown)

    assert compared == [int((np.bitwise_count(CODES ^ CODES[0]) <= 12).sum())]


def test_again_writes_nothing(grown):
    assert run(grown) == set()


def test_what_changes_makes_stale_what_is_behind_it(grown):
    """The second shard of three holds one image fewer."""
    put(grown / "features", "b", list(range(20, 39)))
    order = [*range(39), *range(40, 60)]

    assert run(grown) == {"b.parquet", "c.parquet"}
    assert found(grown, order) == whole(order)


@pytest.mark.parametrize(
    "other", [Match(bits=6, likeness=0.97), Match(bits=12, likeness=0.9)], ids=["bits", "likeness"]
)
def test_another_parameter_compares_afresh(grown, other):
    order = list(range(60))
    before = found(grown, order)

    assert run(grown, other) == {"a.parquet", "b.parquet", "c.parquet"}
    assert found(grown, order) == whole(order, other) != before


def test_other_code_compares_afresh(grown, tmp_path, monkeypatch):
    edited = tmp_path / "likeness.py"
    edited.write_text("edited")
    monkeypatch.setattr(module, "CODE", (*module.CODE[:-1], edited))

    assert run(grown) == {"a.parquet", "b.parquet", "c.parquet"}


def test_the_code_that_compares_is_known():
    assert [path.name for path in module.CODE] == ["match.py", "neighbours.py", "likeness.py"]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1 damaged")])
def test_a_lost_or_damaged_file_alone_is_made_again(grown, damage):
    """The ones behind it are a function of features, not of what was lost."""
    whole_file = pq.read_table(grown / "matches" / "b.parquet")
    damage(grown / "matches" / "b.parquet")

    assert run(grown) == {"b.parquet"}
    assert pq.read_table(grown / "matches" / "b.parquet").equals(whole_file)


def test_killed_in_between_it_goes_on(tmp_path, monkeypatch):
    """The second of three shards is where it stops; the first is not compared again."""
    for n, name in enumerate("abc"):
        put(tmp_path / "features", name, list(range(20 * n, 20 * n + 20)))
    calls = iter([likeness])
    with monkeypatch.context() as patch:
        patch.setattr(module, "likeness", lambda *given: next(calls)(*given))
        with pytest.raises(StopIteration):
            run(tmp_path)

    assert run(tmp_path) == {"b.parquet", "c.parquet"}
    assert found(tmp_path, list(range(60))) == whole(list(range(60)))


def test_files_of_vanished_shards_go(grown):
    (grown / "features" / "c.parquet").unlink()
    run(grown)

    assert found(grown, list(range(40))) == whole(list(range(40)))


def test_no_features_name_the_step(tmp_path):
    with pytest.raises(DataError, match="no features; run `inspect`"):
        run(tmp_path)


def test_features_that_do_not_say_what_made_them_name_the_step(tmp_path):
    (tmp_path / "features").mkdir()
    pd.DataFrame({"image_id": ["a"], "phash": ["0" * 16], "thumbnail": [b""]}).to_parquet(
        tmp_path / "features/a.parquet"
    )

    with pytest.raises(DataError, match="does not say what it was made from; run `inspect`"):
        run(tmp_path)
