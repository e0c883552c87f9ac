"""The ledger: what is written stays, what was changed shows, and a killed writer costs one unfinished line."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.errors import ConfigError, DataError, LedgerCorrupt
from components.promotion.ledger import GENESIS, Ledger, SigningKey

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def three(folder: Path) -> Ledger:
    """A ledger of a decision, a signed approval and a rollout."""
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.append("decision", {"version": 1, "verdict": "passed", "margin": 0.03}, time=NOON)
    ledger.append("approval", {"version": 1, "rationale": "größer"}, key=key(folder), time=NOON)
    ledger.append("rollout", {"version": 1, "name": "wrist"}, time=NOON)
    return ledger


def key(folder: Path, name: str = "reviewer") -> SigningKey:
    return SigningKey.open(folder / "keys", name)


def test_entries_come_back_as_they_were_written(tmp_path):
    """Kind, body, time and number of an entry survive the file."""
    entries = Ledger(three(tmp_path).path).entries()

    assert [(e.seq, e.kind, e.time) for e in entries] == [
        (0, "decision", "2026-11-23T12:00:00.000+00:00"),
        (1, "approval", "2026-11-23T12:00:00.000+00:00"),
        (2, "rollout", "2026-11-23T12:00:00.000+00:00"),
    ]
    assert entries[1].body == {"version": 1, "rationale": "größer"}
    assert entries[1].signer == "reviewer"


def test_every_entry_names_the_one_before(tmp_path):
    """The chain of hashes starts at 64 zeros."""
    entries = three(tmp_path).entries()

    assert [e.previous for e in entries] == [GENESIS, entries[0].hash, entries[1].hash]


def test_a_line_is_canonical_json(tmp_path):
    """A reader in any language can recompute the hash from the line."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("look", {"b": (1, 2), "a": None}, time=NOON)

    line = ledger.path.read_text(encoding="utf-8")

    digest = json.loads(line)["hash"]
    assert line == (
        f'{{"body":{{"a":null,"b":[1,2]}},"hash":"{digest}","kind":"look","previous":"{GENESIS}","public_key":null,'
        '"seq":0,"signature":null,"signer":null,"time":"2026-11-23T12:00:00.000+00:00"}\n'
    )


def test_verify_counts_the_entries(tmp_path):
    """A sound ledger of three entries verifies as three; one that is not there yet as none."""
    assert three(tmp_path).verify() == 3
    assert Ledger(tmp_path / "none.jsonl").verify() == 0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    return folder, three(folder).path.read_bytes()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@example(position=0.9999999, value=ord("}"))
@example(position=0.9999999, value=0xC3)
@example(position=0.9999999, value=ord(" "))
def test_changing_any_byte_is_seen(sound, position, value):
    """Property: no byte of the file, line ends included, can take another value unseen."""
    folder, data = sound
    place = int(position * len(data))
    changed = data[:place] + bytes([value]) + data[place + 1 :]
    path = folder / "changed.jsonl"
    path.write_bytes(changed)

    if changed == data:
        assert Ledger(path).verify() == 3
    else:
        with pytest.raises(LedgerCorrupt):
            Ledger(path).verify()


@pytest.mark.parametrize("gone", [0, 1])
def test_removing_an_entry_is_seen_and_named(tmp_path, gone):
    """The first entry after a gap is the one that is named."""
    ledger = three(tmp_path)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(line for n, line in enumerate(lines) if n != gone))

    with pytest.raises(LedgerCorrupt, match=f"entry {gone}: expected number {gone}, found {gone + 1}"):
        ledger.verify()


def test_a_rewritten_entry_with_a_recomputed_hash_breaks_the_next_link(tmp_path):
    """Who changes an entry and its hash still has to change every later one."""
    ledger = three(tmp_path)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    other = Ledger(tmp_path / "other.jsonl")
    other.append("decision", {"version": 1, "verdict": "failed"}, time=NOON)
    ledger.path.write_bytes(other.path.read_bytes() + b"".join(lines[1:]))

    with pytest.raises(LedgerCorrupt, match="entry 1: does not follow the entry before it"):
        ledger.verify()


def test_a_signature_taken_off_is_seen(tmp_path):
    """The hash covers who signed, so an entry cannot pass as unsigned."""
    ledger = three(tmp_path)
    signature = ledger.entries()[1].signature
    ledger.path.write_bytes(ledger.path.read_bytes().replace(f'"{signature}"'.encode(), b"null"))

    with pytest.raises(LedgerCorrupt, match=r"entry 1 \(approval\): signer, public key and signature"):
        ledger.verify()


def test_another_key_under_the_same_name_is_refused(tmp_path):
    """A name signs with one key for the life of a ledger."""
    ledger = three(tmp_path)
    stranger = SigningKey.open(tmp_path / "elsewhere", "reviewer")

    with pytest.raises(ConfigError, match="'reviewer' signed with another key before"):
        ledger.append("approval", {"version": 2}, key=stranger)
    assert ledger.verify() == 3


def test_appending_to_a_damaged_ledger_is_refused(tmp_path):
    """Nothing is added behind a bad entry."""
    ledger = three(tmp_path)
    data = ledger.path.read_bytes().replace(b'"passed"', b'"gassed"')
    ledger.path.write_bytes(data)

    with pytest.raises(LedgerCorrupt, match=r"entry 0 \(decision\): its content does not match its hash"):
        ledger.append("look", {})
    assert ledger.path.read_bytes() == data


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 250))
def test_a_writer_killed_inside_a_line_costs_that_line_only(sound, cut):
    """Property: wherever the last line was cut, the others stand and it is reported."""
    folder, data = sound
    path = folder / "torn.jsonl"
    path.write_bytes(data[:-cut])

    ledger = Ledger(path)

    assert ledger.verify() == 2
    assert data.endswith(ledger.torn() + data[-cut:])
    assert ledger.torn() != b""


def test_the_next_append_keeps_a_torn_line_aside_and_records_it(tmp_path):
    """No byte is thrown away, and the repair is itself an entry."""
    ledger = three(tmp_path)
    with ledger.path.open("ab") as file:
        file.write(b'{"body":{"ver')

    ledger.append("look", {})

    assert [e.kind for e in ledger.entries()] == ["decision", "approval", "rollout", "repair", "look"]
    assert ledger.entries("repair")[0].body["bytes"] == 13
    assert [p.read_bytes() for p in tmp_path.glob("ledger.jsonl.torn-*")] == [b'{"body":{"ver']


def test_a_body_that_is_no_json_is_refused(tmp_path):
    """NaN, objects and naive times never reach the file."""
    ledger = Ledger(tmp_path / "ledger.jsonl")

    with pytest.raises(DataError, match="not plain JSON"):
        ledger.append("decision", {"auroc": float("nan")})
    with pytest.raises(DataError, match="not plain JSON"):
        ledger.append("decision", {"path": tmp_path})
    with pytest.raises(DataError, match="time zone"):
        ledger.append("decision", {}, time=datetime(2026, 11, 23))
    assert ledger.verify() == 0


@given(
    body=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_plain_json_survives(tmp_path_factory, body):
    """Property: what can be written can be read, verified and is equal."""
    ledger = Ledger(tmp_path_factory.mktemp("any") / "ledger.jsonl")
    try:
        ledger.append("alert", body)
    except DataError:  # a lone surrogate has no UTF-8
        assert ledger.verify() == 0
        return

    assert Ledger(ledger.path).entries()[0].body == body


def _write_ten(path: str) -> None:
    for number in range(10):
        Ledger(Path(path)).append("look", {"number": number})


def test_writers_in_several_processes_share_one_chain(tmp_path):
    """Four processes, ten entries each: forty links, no gap."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_ten, args=(str(ledger.path),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert ledger.verify() == 40


def _killed_at(step: int, act) -> bool:
    """Whether `act`, in a process of its own, came to its `step`-th write, sync, cut or rename, and was killed there.

    A write is killed half-way through, everything else before it happens.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done, write = itertools.count(), os.write

    def deadly(call):
        def called(*arguments):
            if next(done) == step:
                if call is write:
                    write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return called

    for name in ("write", "fsync", "ftruncate", "replace"):
        setattr(os, name, deadly(getattr(os, name)))
    act()
    os._exit(0)


@pytest.mark.parametrize("torn", [b"", b'{"body":{"ver'])
def test_a_writer_killed_at_any_step_leaves_no_gap_and_no_fork(tmp_path, torn):
    """Whatever it was doing (a repair included): what stood stands, the next writer goes on, the witness agrees."""
    steps = 0
    for step in itertools.count():
        folder = tmp_path / str(step)
        ledger = Ledger(three(folder).path, key_dir=folder / "witness")
        stood = [entry.hash for entry in ledger.whole()]
        with ledger.path.open("ab") as file:
            file.write(torn)
        if not _killed_at(step, lambda there=ledger: there.append("look", {"step": 0})):
            break
        steps += 1
        after = Ledger(ledger.path, key_dir=folder / "witness")
        after.append("look", {"step": 1})
        hashes = [entry.hash for entry in Ledger(ledger.path, key_dir=folder / "witness").whole()]
        assert hashes[:3] == stood
        assert [e.seq for e in after.whole()] == list(range(len(hashes)))

    assert steps == (4 if not torn else 10)


def _write_and_say(path: str, said: str) -> None:
    with Path(said).open("a", encoding="ascii") as file:
        while True:
            file.write(Ledger(Path(path), key_dir=Path(path).parent / "witness").append("look", {}).hash + "\n")
            file.flush()


def test_writers_that_are_killed_take_nothing_back(tmp_path):
    """Three writers, killed one after another while all write: every entry that was acknowledged is in one chain."""
    ledger, said = Ledger(tmp_path / "ledger.jsonl", key_dir=tmp_path / "witness"), tmp_path / "said.txt"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_and_say, args=(str(ledger.path), str(said))) for _ in range(3)]
    for writer in writers:
        writer.start()
    for number, writer in enumerate(writers, start=1):
        while not said.exists() or len(said.read_text().splitlines()) < 15 * number:
            assert writer.is_alive()
        writer.kill()
        writer.join()
    ledger.append("look", {})
    hashes = [entry.hash for entry in ledger.entries()]

    assert set(said.read_text().splitlines()) <= set(hashes)
    assert len(set(hashes)) == len(hashes) >= 46


def test_the_champion_is_what_was_rolled_out_or_back_last(tmp_path):
    """The last move wins, per model; approvals alone move nothing."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.champion() is None
    for kind, name, version in [("rollout", "wrist", 1), ("rollout", "wrist", 2), ("rollback", "wrist", 1)]:
        ledger.append(kind, {"name": name, "version": version})
    ledger.append("rollout", {"name": "hip", "version": 9})
    ledger.append("approval", {"name": "wrist", "version": 3})

    champion = ledger.champion("wrist")

    assert champion is not None
    assert (champion.kind, champion.body["version"]) == ("rollback", 1)


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path):
    """0700 folder, 0600 file, the same key at every opening, nothing of it in the repr."""
    first = key(tmp_path)
    path = tmp_path / "keys" / "sign-reviewer.pem"

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert key(tmp_path).public_key == first.public_key
    assert [p.name for p in path.parent.iterdir()] == ["sign-reviewer.pem"]
    assert repr(first) == f"SigningKey('reviewer', public_key={first.public_key[:12]}...)"


def test_a_key_that_others_can_read_is_refused(tmp_path):
    """The message says what to run."""
    key(tmp_path)
    (tmp_path / "keys" / "sign-reviewer.pem").chmod(0o644)

    with pytest.raises(ConfigError, match="chmod go-rwx"):
        key(tmp_path)


@pytest.mark.parametrize("name", ["", "../reviewer", "a b", "x" * 65, "-a"])
def test_a_key_name_is_a_plain_user_name(tmp_path, name):
    """No signer's name can leave the key folder."""
    with pytest.raises(ConfigError, match="no user name"):
        key(tmp_path, name)
