"""The witness: a ledger that is shorter than it was, or another one, is not believed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import LedgerCorrupt
from components.promotion.ledger import Ledger


@pytest.fixture
def kept(tmp_path):
    """A ledger of five entries whose witness lies in another folder."""
    ledger = Ledger(tmp_path / "state" / "ledger.jsonl", key_dir=tmp_path / "keys")
    for version in range(5):
        ledger.append("decision", {"version": version})
    return ledger


def again(ledger: Ledger, folder) -> Ledger:
    """The same ledger to another process."""
    return Ledger(ledger.path, key_dir=folder / "keys")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_ledger_cut_anywhere_is_found_and_what_is_gone_is_named(kept, tmp_path, share):
    """Property: chain and signatures of what is left verify, the witness does not."""
    data = kept.path.read_bytes()
    cut = data[: int(share * len(data))]
    left = cut.count(b"\n")
    kept.path.write_bytes(cut)
    try:
        assert Ledger(kept.path).verify() == left
        with pytest.raises(LedgerCorrupt, match=f"entries {left} to 4 were cut off the end"):
            again(kept, tmp_path).verify()
    finally:
        kept.path.write_bytes(data)


def test_nothing_is_added_to_a_ledger_that_was_cut(kept, tmp_path):
    lines = kept.path.read_bytes().splitlines(keepends=True)
    kept.path.write_bytes(b"".join(lines[:3]))

    with pytest.raises(LedgerCorrupt, match="entries 3 to 4 were cut off the end"):
        again(kept, tmp_path).append("decision", {"version": 9})
    assert kept.path.read_bytes() == b"".join(lines[:3])


def test_a_ledger_that_is_gone_is_missed(kept, tmp_path):
    kept.path.unlink()

    with pytest.raises(LedgerCorrupt, match="entries 0 to 4 were cut off the end"):
        again(kept, tmp_path).entries()


def test_another_ledger_in_its_place_is_found(kept, tmp_path):
    """As long, sound in itself, written by somebody else."""
    kept.path.unlink()
    other = Ledger(kept.path)
    for _ in range(6):
        other.append("decision", {"version": 0})

    with pytest.raises(LedgerCorrupt, match="entry 4 is not the one that was seen before"):
        again(kept, tmp_path).verify()


def test_who_only_reads_is_a_witness_too(kept, tmp_path):
    """What another process added is remembered by the next reader."""
    Ledger(kept.path).append("stop", {"reason": "misses hips"})
    reader = Ledger(kept.path, key_dir=tmp_path / "service")
    reader.entries()
    kept.path.write_bytes(b"".join(kept.path.read_bytes().splitlines(keepends=True)[:5]))

    with pytest.raises(LedgerCorrupt, match="entries 5 to 5 were cut off the end"):
        reader.entries()


def test_a_torn_line_was_never_seen(kept, tmp_path):
    """A writer killed inside a line is repaired as ever."""
    with kept.path.open("ab") as file:
        file.write(b'{"body":{"ver')
    again(kept, tmp_path).append("look", {})

    assert again(kept, tmp_path).verify() == 7


def test_a_damaged_witness_is_named(kept, tmp_path):
    (witness,) = (tmp_path / "keys").iterdir()
    witness.write_bytes(witness.read_bytes()[:-2])

    with pytest.raises(LedgerCorrupt, match=r"\.head: the ledger's witness is damaged"):
        kept.entries()


def test_a_place_that_cannot_be_written_stops_no_decision(tmp_path, caplog):
    """The entry stands, and the log says that its end is not witnessed."""
    (tmp_path / "keys").write_text("a file where the folder should be")
    ledger = Ledger(tmp_path / "ledger.jsonl", key_dir=tmp_path / "keys" / "deeper")
    ledger.append("stop", {"reason": "misses hips"})

    assert Ledger(ledger.path).verify() == 1
    assert "the end of the ledger is not witnessed" in caplog.text
