"""Which bundle serves, and which is on its way: those that the ledger names and a signed approval covers.

The service follows the ledger alone. A ledger can only tell that a name always signed with one key. Whose key that is,
the key folder tells, which lies apart from it: who can write the ledger, and make a key, is nobody here.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from components.errors import BundleCorrupt, LedgerCorrupt
from components.params import RollOut
from components.promotion.ledger import Entry, Ledger, stops_in
from components.promotion.signers import behind, decision_of
from components.promotion.signing import public_key_of
from components.serving.bundle import Bundle
from components.serving.candidate import Candidate

log = logging.getLogger("osteoflow.serving")


@dataclass(frozen=True)
class Serving:
    """The champion in memory, with its move and every approval behind that, and the candidate, if there is one."""

    bundle: Bundle
    version: str
    entry: Entry
    approvals: tuple[Entry, ...]
    candidate: Candidate | None = None

    @property
    def bundles(self) -> dict[str, Bundle]:
        """Every bundle that may have given an answer, by hash."""
        both = (self.bundle, self.candidate.bundle if self.candidate else None)
        return {bundle.hash: bundle for bundle in both if bundle is not None}

    @property
    def unopened(self) -> bool:
        """Whether the candidate's files are missing or altered."""
        return self.candidate is not None and self.candidate.bundle is None


@dataclass(frozen=True)
class Off:
    """No AI output: a stable code for machines and a sentence for people."""

    reason: str
    sentence: str

    @property
    def silences(self) -> bool:
        """Whether answers of earlier are hidden too: a person said stop, or the ledger cannot tell that nobody did."""
        return self.reason in ("stopped", "ledger")


class Champion:
    """Follows `ledger`, as long as its witness in `key_dir` agrees; opens the bundle it names from `bundles`/<hash>.

    It takes the word of people whose keys are in `key_dir` alone.
    """

    def __init__(self, *, ledger: Path, bundles: Path, name: str, key_dir: Path) -> None:
        self._ledger = Ledger(ledger, witness=key_dir)
        self._key_dir = key_dir
        self._bundles = bundles
        self._name = name
        self._lock = threading.Lock()
        self._known: tuple[object, Serving | Off] | None = None
        self._opened: dict[str, Bundle] = {}  # what serves, by hash

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def current(self) -> Serving | Off:
        """What serves at this moment; the ledger is read again whenever its file, or the key folder, has changed."""
        with self._lock:
            mark = (self._ledger.mark(), self._keys_mark())
            if self._known is not None and self._known[0] == mark:
                return self._known[1]
            found = self._read()
            # A bundle that is missing may arrive without the ledger moving: look again next time.
            missing = found.reason == "bundle" if isinstance(found, Off) else found.unopened
            self._known = None if missing else (mark, found)
            if isinstance(found, Serving):
                self._opened = found.bundles
            return found

    def _read(self) -> Serving | Off:
        try:
            entries = self._ledger.entries()
            entry = self._ledger.champion(self._name)
        except LedgerCorrupt as error:
            log.error("%s", error)
            return Off(
                "ledger", "The record of approvals is damaged, so no model may answer; run `osteoflow audit verify`."
            )
        known = [e for e in entries if self._knows(e)]
        if stops := stops_in(known):
            why = "; ".join(str(stop.body.get("reason") or "no reason was given").rstrip(".") for stop in stops)
            unheard = "" if stops_in(entries) else " Whoever lifted that has no key in the key folder (sign-NAME.pub)."
            return Off("stopped", f"AI output was switched off: {why}. Cases can still be read.{unheard}")
        if entry is None:
            return Off(
                "no_champion", "No model is approved; a reviewer approves one with `osteoflow approve` or in MLflow."
            )
        wanted = str(entry.body.get("bundle_hash"))
        approvals = _approvals(entry, known)
        if not approvals or entry not in known:
            log.error(
                "ledger entry %d (%s): too few whose keys are in the key folder signed for it", entry.seq, entry.kind
            )
            return Off(
                "unsigned",
                "The model in line to serve lacks a signed approval of somebody whose key is known here; put the "
                "signer's public key into the key folder (sign-NAME.pub), or approve another version.",
            )
        if entry.kind == "rollback" and not _returns(entry, entries):
            return Off("unsigned", "The model in line to serve was never rolled out, so nobody can return to it.")
        version = str(entry.body.get("version"))
        bundle = self._open(wanted)
        if bundle is None:
            return Off(
                "bundle", f"The files of approved model version {version} are missing or altered; roll it out again."
            )
        return Serving(bundle, version, entry, approvals, self._candidate(known))

    def _knows(self, entry: Entry) -> bool:
        """Whether the key of a person's word is that person's; other entries are facts, and a stop is anybody's."""
        if entry.kind not in ("approval", "rollback", "resume", "role"):
            return True
        return entry.signer is not None and public_key_of(self._key_dir, entry.signer) == entry.public_key

    def _candidate(self, entries: list[Entry]) -> Candidate | None:
        staged = self._ledger.staged(self._name)
        if staged is None:
            return None
        if not _approvals(staged, entries):
            log.error("ledger entry %d (stage): too few whose keys are in the key folder signed for it", staged.seq)
            return None
        try:
            plan = RollOut.model_validate(staged.body.get("plan"))
        except ValidationError:  # another version's; the champion answers as if there were no candidate
            log.error("ledger entry %s: its roll-out plan is none of this version", staged.seq)
            return None
        return Candidate(self._open(str(staged.body["bundle_hash"])), str(staged.body["version"]), staged, plan)

    def _keys_mark(self) -> int | None:
        """What tells that a key came or went."""
        try:
            return self._key_dir.stat().st_mtime_ns
        except OSError:
            return None

    def _open(self, wanted: str) -> Bundle | None:
        """The bundle of this hash, from memory where it serves already; None: its files are missing or altered."""
        if wanted in self._opened:
            return self._opened[wanted]
        try:
            bundle = Bundle.open(self._bundles / wanted, expected_hash=wanted)
        except BundleCorrupt as error:
            log.error("%s", error)
            return None
        log.info("bundle %s is open", wanted[:12])
        return bundle


def _returns(rollback: Entry, entries: list[Entry]) -> bool:
    """Whether what `rollback` puts in place was rolled out before it."""
    same = ("name", "bundle_hash")
    return any(
        e.kind == "rollout" and e.seq < rollback.seq and all(e.body.get(k) == rollback.body.get(k) for k in same)
        for e in entries
    )


def _approvals(move: Entry, entries: list[Entry]) -> tuple[Entry, ...]:
    """Every approval behind `move`, of the latest decision that has enough of them; none where no decision has."""
    before = [e for e in entries if e.seq < move.seq]
    return next((found for e in reversed(before) if _covers(e, move) and (found := _signed(e, before))), ())


def _covers(approval: Entry, move: Entry) -> bool:
    """Whether a signed approval from before `move` names the bundle that `move` puts in place, or on its way there."""
    if approval.kind != "approval" or approval.signature is None or approval.seq > move.seq:
        return False
    if move.kind in ("stage", "rollout") and move.body.get("approval_hash") != approval.hash:
        return False
    return all(approval.body.get(key) == move.body.get(key) for key in ("name", "bundle_hash"))


def _signed(approval: Entry, entries: list[Entry]) -> tuple[Entry, ...]:
    """Every approval of the passed decision that `approval` is about, if they are enough and it is one of them."""
    decision, signed = decision_of(approval, entries), behind(approval, entries)
    passed = decision is not None and decision.body.get("verdict") == "passed"
    return signed.approvals if passed and signed.completing and approval in signed.approvals else ()
