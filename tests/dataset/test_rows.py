"""Tables as a file a shard: read back whole, and only what changed is written."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.rows import as_of_pandas, extend_rows, read_rows, rows_sha256, write_rows
from components.dataset.store import framed
from components.errors import DataError


def table(**columns: list) -> pd.DataFrame:
    """Five images in three shards."""
    base = {"image_id": list("abcde"), "shard": ["1-x-0", "1-x-0", "1-x-1", "2-y-0", "2-y-0"]}
    return pd.DataFrame(base | columns)


def test_the_folder_reads_as_the_table_in_its_order(tmp_path):
    rows = table(label=[1.0, None, None, 0.0, 1.0], sex=[None, None, None, "F", None])

    write_rows(tmp_path / "rows", rows)

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "rows"), rows)


def test_only_files_whose_rows_changed_are_written(tmp_path):
    write_rows(tmp_path, table(role=["train"] * 5))
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}

    assert write_rows(tmp_path, table(role=["train", "train", "excluded", "train", "train"])) == 1

    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert [name for name in sorted(after) if after[name] != before[name]] == ["1-x-1.parquet"]


cells = st.one_of(st.none(), st.text(max_size=3))


@given(st.lists(st.tuples(cells, st.floats(allow_infinity=False), st.booleans(), st.sampled_from("ab")), min_size=2))
@settings(deadline=None, max_examples=20)
def test_what_is_written_comes_back_and_is_not_written_again(tmp_path_factory, rows):
    """In order of shards."""
    frame = pd.DataFrame(rows, columns=["sex", "likeness", "ai_visible", "shard"]).astype({"sex": object})
    folder = tmp_path_factory.mktemp("rows")

    write_rows(folder, frame)
    ordered = frame.sort_values("shard", kind="stable").reset_index(drop=True)

    pd.testing.assert_frame_equal(read_rows(folder), ordered)
    assert write_rows(folder, frame.copy()) == 0


def test_rows_of_a_shard_need_not_stand_together(tmp_path):
    write_rows(tmp_path, table(shard=["2", "1", "2", "1", "2"]))

    assert list(pd.read_parquet(tmp_path)["image_id"]) == list("bdace")


def test_what_stands_elsewhere_leaves_a_file_alone(tmp_path):
    """More rows in other shards: the bytes of this one are the same."""
    write_rows(tmp_path / "few", table().iloc[2:].reset_index(drop=True))
    write_rows(tmp_path / "all", table())

    assert (tmp_path / "few" / "2-y-0.parquet").read_bytes() == (tmp_path / "all" / "2-y-0.parquet").read_bytes()


@pytest.mark.parametrize("leave", ["damaged.parquet", ".1-x-0.parquet.part"])
def test_files_of_no_shard_go(tmp_path, leave):
    (tmp_path / leave).write_bytes(b"of an earlier run")

    write_rows(tmp_path, table())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-x-0.parquet", "1-x-1.parquet", "2-y-0.parquet"]


def test_a_damaged_file_is_written_again(tmp_path):
    write_rows(tmp_path, table())
    (tmp_path / "2-y-0.parquet").write_bytes(b"PAR1")

    assert write_rows(tmp_path, table()) == 1
    assert list(pd.read_parquet(tmp_path)["image_id"]) == list("abcde")


def test_a_hash_follows_the_rows_and_not_when_they_were_written(tmp_path):
    write_rows(tmp_path / "one", table(role=["train"] * 5))
    write_rows(tmp_path / "two", table(role=["test"] * 5))
    before = rows_sha256(tmp_path / "two")
    write_rows(tmp_path / "two", table(role=["train"] * 5))

    assert rows_sha256(tmp_path / "two") == rows_sha256(tmp_path / "one") != before


def test_a_table_that_is_not_here_has_no_hash(tmp_path):
    with pytest.raises(DataError, match="no table here; run `dvc repro`"):
        rows_sha256(tmp_path / "rows")


ADDED = {"role": ["train", "test", None, "train", "test"], "likeness": [1.0, None, None, 0.5, 1.0]}


@given(st.lists(st.tuples(cells, cells, st.booleans(), st.sampled_from("ab")), min_size=2))
@settings(deadline=None, max_examples=20)
def test_an_extended_table_is_the_table_with_the_columns_written_whole(tmp_path_factory, rows):
    """Byte for byte, but for the key in the footer: that is made of the other table's key, and not of its rows."""
    frame = pd.DataFrame(rows, columns=["sex", "role", "withdrawn", "shard"]).astype({"sex": object, "role": object})
    frame = frame.sort_values("shard", kind="stable").reset_index(drop=True)
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "few", frame[["sex", "shard"]])
    write_rows(folder / "whole", frame[["sex", "shard", "role", "withdrawn"]])
    extend_rows(folder / "extended", frame[["role", "withdrawn"]], of=folder / "few")

    for path in (folder / "whole").iterdir():
        one, other = pq.read_table(path), pq.read_table(folder / "extended" / path.name)
        assert one.equals(other)
        assert one.schema.metadata[b"pandas"] == other.schema.metadata[b"pandas"]
    pd.testing.assert_frame_equal(read_rows(folder / "extended"), pd.read_parquet(folder / "whole"))
    assert extend_rows(folder / "extended", frame[["role", "withdrawn"]], of=folder / "few") == 0


@pytest.mark.parametrize("change", ["of a row extended", "of what extends it"])
def test_only_extended_files_with_a_change_are_written_again(tmp_path, change):
    """Whichever side it comes from; the third shard's rows changed."""
    write_rows(tmp_path / "of", table(sex=["F"] * 5))
    extend_rows(tmp_path / "rows", pd.DataFrame(ADDED), of=tmp_path / "of")
    before = {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    later = pd.DataFrame(ADDED)
    if change == "of a row extended":
        write_rows(tmp_path / "of", table(sex=["F", "F", "F", "F", "M"]))
    else:
        later.loc[4, "role"] = "excluded"

    assert extend_rows(tmp_path / "rows", later, of=tmp_path / "of") == 1
    after = {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    assert [name for name in sorted(after) if after[name] != before[name]] == ["2-y-0.parquet"]


def test_an_extended_file_that_is_damaged_or_of_no_shard_goes(tmp_path):
    write_rows(tmp_path / "of", table())
    extend_rows(tmp_path / "rows", pd.DataFrame(ADDED), of=tmp_path / "of")
    (tmp_path / "rows" / "2-y-0.parquet").write_bytes(b"PAR1")
    (tmp_path / "rows" / "9-z-0.parquet").write_bytes(b"of an earlier run")

    assert extend_rows(tmp_path / "rows", pd.DataFrame(ADDED), of=tmp_path / "of") == 1
    assert list(pd.read_parquet(tmp_path / "rows")["image_id"]) == list("abcde")


def test_a_table_of_another_length_is_not_extended(tmp_path):
    write_rows(tmp_path / "of", table())

    with pytest.raises(DataError, match="5 rows, and 4 were to be extended"):
        extend_rows(tmp_path / "rows", pd.DataFrame(ADDED).head(4), of=tmp_path / "of")
    assert not (tmp_path / "rows").exists()


def test_rows_are_read_by_column(tmp_path):
    write_rows(tmp_path, table(sex=["F"] * 5))

    assert list(read_rows(tmp_path, ["sex", "image_id"]).columns) == ["sex", "image_id"]


STORED = {  # a column of each kind that the catalog and curate have; `age_years` and `hardware` turn in pandas
    "image_id": (pa.string(), st.text(max_size=3)),
    "masked": (pa.string(), cells),
    "age_years": (pa.int32(), st.one_of(st.none(), st.integers(0, 9))),
    "rows": (pa.int32(), st.integers(0, 9)),
    "exposure_index": (pa.float64(), st.one_of(st.none(), st.floats(allow_infinity=False))),
    "hardware": (pa.bool_(), st.one_of(st.none(), st.booleans())),
    "ai_visible": (pa.bool_(), st.booleans()),
    "shard": (pa.string(), st.sampled_from("ab")),
}


@given(st.lists(st.tuples(*(values for _, values in STORED.values())), min_size=1), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_what_went_past_pandas_is_written_as_what_went_through_it(tmp_path_factory, rows, cut):
    """To the byte: types, footers, keys; of one chunk or of several, with columns that hold nothing."""
    columns = [
        pa.array(values, kind) for values, (kind, _) in zip(zip(*rows, strict=True), STORED.values(), strict=True)
    ]
    table = pa.table(columns, names=list(STORED))
    table = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "through", framed(table))
    write_rows(folder / "past", as_of_pandas(table, framed))

    through, past = ({path.name: path.read_bytes() for path in (folder / way).iterdir()} for way in ("through", "past"))
    assert past == through
