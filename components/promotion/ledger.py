"""Noun: the ledger, what was decided: an append-only, hash-chained, signed file of JSON Lines.

One line is one entry in canonical JSON (sorted keys, no spaces, UTF-8, no NaN). `hash` is the SHA-256 of the line's
content without `hash` and `signature`; `previous` is the hash before it, so no entry can be changed, moved or taken
out of the middle unseen. A signature (Ed25519) is over the hash, and the hash covers the signer's name and public
key. A name signs with one key for the life of a ledger: the first key it used is pinned. Whose key that is, only the
key folder tells, which lies apart from the ledger: a reader that was given one passes over the words of whoever
is not in it, so that nobody who can write the file, and make a key, has anything to say here.

A line without its newline was never acknowledged to anyone: a writer was killed inside it. Reading ignores such a
tail (`torn()` reports it); the next append keeps its bytes in `<ledger>.torn-<sha256>`, cuts them off, and records
that in a `repair` entry before its own. A chain cannot show that its last entries were cut off; a witness, kept
in the key folder, does (`components/promotion/witness.py`).

Source: 21 CFR 11.10(e), 11.50, 11.70 (audit trail, signature manifestation, signature bound to its record).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import ConfigError, DataError, LedgerCorrupt
from components.promotion.signing import SigningKey, is_signed, public_key_of, sync_folder
from components.promotion.witness import Witness
from components.promotion.words import WORDS, KeyOf, counts, heard, stops_in

__all__ = ["Chain", "Entry", "Kind", "Ledger", "SigningKey", "canonical"]

Kind = Literal[
    "decision", "approval", "rollout", "rollback", "look", "refresh", "alert", "feedback", "stop", "resume", "repair",
    "withdrawal", "stage", "return", "role", "reproduction",
]  # fmt: skip
GENESIS = "0" * 64
_HEX64 = r"^[0-9a-f]{64}$"


class Entry(BaseModel):
    """One line. `seq` counts from 0; `time` is ISO 8601 UTC; hashes, keys and signatures are lower-case hex."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seq: int = Field(ge=0)
    time: str
    kind: Kind
    body: dict[str, Any]
    previous: str = Field(pattern=_HEX64)
    signer: str | None = None
    public_key: str | None = Field(default=None, pattern=_HEX64)
    hash: str = Field(pattern=_HEX64)
    signature: str | None = Field(default=None, pattern=r"^[0-9a-f]{128}$")

    def digest(self) -> str:
        """What `hash` must be: SHA-256 of everything but `hash` and `signature`."""
        return hashlib.sha256(canonical(self.model_dump(exclude={"hash", "signature"}))).hexdigest()


class Ledger:
    """The ledger at `path`. Nothing is made until the first append.

    Args:
        key_dir: a folder apart from the ledger, with the keys of those whose words count here (see `public_key_of`).
            What was seen last is remembered there too, and checked at every reading. None: every word counts.
    """

    def __init__(self, path: Path, *, key_dir: Path | None = None) -> None:
        self.path = path
        self._key_dir = key_dir
        self._witness = Witness(key_dir, path) if key_dir else None
        self._seen: tuple[bytes, list[Entry]] = (b"", [])  # verified bytes; later reads verify only what follows them

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """What counts here, or what of one kind does, oldest first: see `words.heard`.

        Raises:
            LedgerCorrupt: names the first bad entry.
        """
        return [entry for entry in heard(self.whole(), self._key_of()) if kind in (None, entry.kind)]

    def strangers(self) -> list[Entry]:
        """The words that nobody who is known here has signed; they count for nothing.

        Raises:
            LedgerCorrupt: names the first bad entry.
        """
        key_of = self._key_of()
        return [entry for entry in self.whole() if not counts(entry, key_of)]

    def whole(self) -> list[Entry]:
        """Every entry as it stands in the file, strangers' words too; the whole chain is verified on the way.

        Raises:
            LedgerCorrupt: names the first bad entry.
        """
        # Before the ledger: another writer may add to both in between.
        remembered = self._witness.remembered() if self._witness else None
        found = self._verified(self._bytes())
        if self._witness:
            self._witness.check(remembered, [entry.hash for entry in found], self.path)
            if found and (remembered is None or remembered[0] < found[-1].seq):
                self._witness.saw(found[-1].seq, found[-1].hash)
        return found

    def verify(self) -> int:
        """Walk everything: form, hashes, chain, signatures. Returns the number of entries.

        Raises:
            LedgerCorrupt: names the first bad entry.
        """
        self._seen = (b"", [])
        return len(self.whole())

    def head(self) -> str:
        """The hash of the last entry (64 zeros in an empty ledger)."""
        return _last_hash(self.whole())

    def champion(self, name: str | None = None) -> Entry | None:
        """The entry that says which version serves now: the last rollout or rollback (of the model `name`)."""
        moves = [e for e in self.entries() if e.kind in ("rollout", "rollback") and name in (None, e.body.get("name"))]
        return moves[-1] if moves else None

    def staged(self, name: str) -> Entry | None:
        """The `stage` entry of the version of `name` that is in shadow or canary now.

        None when whatever came last on the way of any version is something else: it went full, was taken back, or the
        champion that it was judged against has changed.
        """
        kinds = ("stage", "return", "rollout", "rollback")
        moves = [e for e in self.entries() if e.kind in kinds and e.body.get("name") == name]
        return moves[-1] if moves and moves[-1].kind == "stage" else None

    def stops(self) -> list[Entry]:
        """The stops that stand; see `words.stops_in`."""
        return stops_in(self.entries())

    def mark(self) -> object:
        """What tells that the file has changed, or that a key came, went or was replaced, without reading any."""
        keys = sorted(self._key_dir.glob("sign-*")) if self._key_dir else []
        return tuple((path.name, _state_of(path)) for path in (self.path, *keys))

    def torn(self) -> bytes:
        """The unfinished last line a killed writer left, or b''."""
        data = self._bytes()
        return data[_end(data) :]

    def append(
        self, kind: Kind, body: dict[str, Any], *, key: SigningKey | None = None, time: datetime | None = None
    ) -> Entry:
        """Add one entry, on disk when this returns; writers queue on a lock.

        Args:
            kind: what happened.
            body: plain JSON values, finite numbers; no patient's identity.
            key: signs the entry when given.
            time: with a time zone; now when absent.

        Raises:
            LedgerCorrupt: the ledger is already broken; nothing was added.
            ConfigError: this signer's earlier entries carry another key, or the key folder states another one.
            DataError: the body is no JSON, or the disk refuses.
        """
        with self.locked() as chain:
            return chain.append(kind, body, key=key, time=time)

    @contextmanager
    def locked(self) -> Iterator[Chain]:
        """Hold the writer's lock: what is read and appended inside is one step to every other writer.

        Raises:
            LedgerCorrupt, DataError: as for `append`.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b")
        except OSError as error:
            raise DataError(f"{self.path}: cannot write: {error.strerror}; nothing was added") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            chain = Chain(self, file.fileno())
            chain.repair()
            yield chain

    def knows(self, name: str, public_key: str | None) -> bool:
        """Whether words that `name` signs with this key count here."""
        return self._key_dir is None or public_key_of(self._key_dir, name) == public_key

    def _key_of(self) -> KeyOf | None:
        """Each name's key is read once: one reading of the ledger asks for the same few again and again."""
        return functools.cache(functools.partial(public_key_of, self._key_dir)) if self._key_dir else None

    def witness(self, entry: Entry) -> None:
        """Remember `entry` as the last one, where a witness is kept."""
        if self._witness:
            self._witness.saw(entry.seq, entry.hash)

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise LedgerCorrupt(f"{self.path}: cannot be read: {error.strerror}") from None

    def _verified(self, data: bytes) -> list[Entry]:
        known, entries = self._seen
        if not data.startswith(known):
            known, entries = b"", []
        entries = list(entries)
        end = _end(data)
        if not _can_be_torn(data[end:]):
            raise LedgerCorrupt(f"{self.path}: entry {data[:end].count(10)}: the end of its line is damaged")
        for line in data[len(known) : end].split(b"\n")[:-1]:
            entries.append(_read(line, entries, f"{self.path}: entry {len(entries)}"))
        self._seen = (data[:end], entries)
        return entries


class Chain:
    """The ledger while its lock is held (see `Ledger.locked`)."""

    def __init__(self, ledger: Ledger, descriptor: int) -> None:
        self._ledger = ledger
        self._descriptor = descriptor

    def append(
        self, kind: Kind, body: dict[str, Any], *, key: SigningKey | None = None, time: datetime | None = None
    ) -> Entry:
        """As `Ledger.append`."""
        if kind not in get_args(Kind):
            raise DataError(f"ledger: {kind!r} is no kind of entry; it is one of {', '.join(get_args(Kind))}")
        if time is not None and time.tzinfo is None:
            raise DataError("ledger: the time of an entry needs a time zone")
        entries = self._ledger.whole()
        pinned = _pinned(entries, key.name) if key else None
        if key and pinned not in (None, key.public_key):
            raise ConfigError(f"ledger: {key.name!r} signed with another key before; use that key, or a new name")
        if key and kind in WORDS and not self._ledger.knows(key.name, key.public_key):
            raise ConfigError(
                f"ledger: the key folder states another key of {key.name!r}: this would count for nothing"
            )
        try:
            plain = json.loads(json.dumps(body, allow_nan=False))  # tuples become lists, keys become strings
            draft = Entry(
                seq=len(entries),
                time=(time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds"),
                kind=kind,
                body=plain,
                previous=_last_hash(entries),
                signer=key.name if key else None,
                public_key=key.public_key if key else None,
                hash=GENESIS,
            )
            digest = draft.digest()
        except (TypeError, ValueError) as error:
            raise DataError(f"ledger: the body of a {kind!r} entry is not plain JSON: {error}") from None
        entry = draft.model_copy(update={"hash": digest, "signature": key.sign(digest) if key else None})
        self._write(canonical(entry.model_dump()) + b"\n")
        self._ledger.witness(entry)
        return entry

    def repair(self) -> None:
        """Set a killed writer's unfinished line aside, cut it off, and put that on record."""
        torn = self._ledger.torn()
        self._ledger.whole()  # a damaged ledger is left as it is
        if not torn:
            return
        digest = hashlib.sha256(torn).hexdigest()
        try:
            with self._ledger.path.with_name(f"{self._ledger.path.name}.torn-{digest}").open("wb") as file:
                file.write(torn)
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - len(torn))
        except OSError as error:
            raise DataError(f"{self._ledger.path}: cannot be repaired: {error.strerror}") from None
        self.append("repair", {"reason": "unfinished line cut off", "bytes": len(torn), "sha256": digest})

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
            if not size:
                sync_folder(self._ledger.path.parent)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise DataError(f"{self._ledger.path}: cannot write: {error.strerror}; nothing was added") from None


def canonical(value: Any) -> bytes:
    """`value` as canonical JSON: sorted keys, no spaces, UTF-8; NaN and infinities are a ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _read(line: bytes, before: list[Entry], where: str) -> Entry:
    """Parse and check `line` as the entry that follows `before`."""
    try:
        entry = Entry.model_validate(json.loads(line))
        same = canonical(entry.model_dump()) == line
    except (ValidationError, ValueError):
        raise LedgerCorrupt(f"{where}: not an entry") from None
    if not same:
        raise LedgerCorrupt(f"{where}: not in canonical form")
    if entry.seq != len(before):
        raise LedgerCorrupt(f"{where}: expected number {len(before)}, found {entry.seq}; entries were moved or removed")
    if entry.previous != _last_hash(before):
        raise LedgerCorrupt(f"{where}: does not follow the entry before it")
    if entry.hash != entry.digest():
        raise LedgerCorrupt(f"{where} ({entry.kind}): its content does not match its hash")
    parts = {entry.signer is None, entry.public_key is None, entry.signature is None}
    if len(parts) > 1:
        raise LedgerCorrupt(f"{where} ({entry.kind}): signer, public key and signature must come together")
    if entry.signer is not None and entry.public_key and entry.signature:
        if _pinned(before, entry.signer) not in (None, entry.public_key):
            raise LedgerCorrupt(f"{where} ({entry.kind}): {entry.signer!r} signed with another key before")
        if not is_signed(entry.hash, public_key=entry.public_key, signature=entry.signature):
            raise LedgerCorrupt(f"{where} ({entry.kind}): the signature of {entry.signer!r} is not valid")
    return entry


def _pinned(entries: list[Entry], signer: str) -> str | None:
    return next((entry.public_key for entry in entries if entry.signer == signer), None)


def _last_hash(entries: list[Entry]) -> str:
    return entries[-1].hash if entries else GENESIS


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _end(data: bytes) -> int:
    """Where the last complete line ends."""
    return data.rfind(b"\n") + 1


def _can_be_torn(tail: bytes) -> bool:
    """Whether `tail` can be the beginning of a line: more bytes after a complete entry cannot."""
    text = tail.decode(errors="replace")  # a kill may cut inside a character
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return True
    return end == len(text)
