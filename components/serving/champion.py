"""Which bundle serves, and which is on its way: those that the ledger names and a signed approval covers.

The service follows the ledger alone, and in it the words of people whose keys are in its key folder. A rollback by
anybody else moves nothing, but a model that somebody wanted to take back does not go on answering either.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from components.errors import BundleCorrupt, DataError, LedgerCorrupt
from components.promotion.ledger import Entry, Ledger
from components.promotion.roles import held
from components.promotion.signers import behind, decision_of
from components.promotion.stages import plan_of
from components.promotion.words import stops_in
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
    """Follows `ledger`, as `key_dir` lets it be read; opens the bundle it names from `bundles`/<hash>."""

    def __init__(self, *, ledger: Path, bundles: Path, name: str, key_dir: Path) -> None:
        self._ledger = Ledger(ledger, key_dir=key_dir)
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
            mark = self._ledger.mark()
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
            entries, whole = self._ledger.entries(), self._ledger.whole()
            entry = self._ledger.champion(self._name)
        except LedgerCorrupt as error:
            log.error("%s", error)
            return Off(
                "ledger", "The record of approvals is damaged, so no model may answer; run `osteoflow audit verify`."
            )
        if stops := stops_in(entries):
            why = "; ".join(str(stop.body.get("reason") or "no reason was given").rstrip(".") for stop in stops)
            lifted = any(e.kind == "resume" and e.seq > stops[-1].seq for e in whole)
            who = " Whoever lifted that has no key in the key folder (sign-NAME.pub), or is no reviewer."
            return Off("stopped", f"AI output was switched off: {why}. Cases can still be read.{who if lifted else ''}")
        if entry is None:
            return Off(
                "no_champion", "No model is approved; a reviewer approves one with `osteoflow approve` or in MLflow."
            )
        approvals = _approvals(entry, entries)
        if lacks := _lacks(entry, approvals, entries, whole):
            log.error("ledger entry %d (%s): %s", entry.seq, entry.kind, lacks)
            return Off("unsigned", lacks)
        version = str(entry.body.get("version"))
        bundle = self._open(str(entry.body.get("bundle_hash")))
        if bundle is None:
            return Off(
                "bundle", f"The files of approved model version {version} are missing or altered; roll it out again."
            )
        return Serving(bundle, version, entry, approvals, self._candidate(entries))

    def _candidate(self, entries: list[Entry]) -> Candidate | None:
        staged = self._ledger.staged(self._name)
        if staged is None:
            return None
        if not _approvals(staged, entries):
            log.error("ledger entry %d (stage): too few whose keys are in the key folder signed for it", staged.seq)
            return None
        try:
            plan = plan_of(staged)
        except DataError as error:  # the champion answers as if there were no candidate
            log.error("%s", error)
            return None
        return Candidate(self._open(str(staged.body["bundle_hash"])), str(staged.body["version"]), staged, plan)

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


def _lacks(move: Entry, approvals: tuple[Entry, ...], entries: list[Entry], whole: list[Entry]) -> str | None:
    """Why what `move` puts in place may not answer, and what mends it; None: it may.

    Args:
        entries, whole: the ledger without strangers' words, and with them.
    """
    if not approvals:
        return (
            "The model in line to serve lacks a signed approval of somebody whose key and role are known here; put the "
            "public keys of signers, and of whoever gave them their roles, into the key folder (sign-NAME.pub), or "
            "approve another version."
        )
    served = (e for e in entries if e.kind == "rollout" and e.seq < move.seq and _same(e, move, "name", "bundle_hash"))
    if move.kind == "rollback" and not (any(served) and held(move, "reviewer", entries)):
        return (
            "The model in line to serve never served before, or who returned to it is no reviewer; a reviewer returns "
            "to another with `osteoflow rollback --to`, or approves one."
        )
    if any(e.kind == "rollback" and e.seq > move.seq and _same(e, move, "name") for e in whole):
        return (
            "The model in line to serve was taken back by somebody whose key is not known here; put their public key "
            "into the key folder (sign-NAME.pub), or say as a reviewer which version answers, this one or another, "
            "with `osteoflow rollback --to`."
        )
    return None


def _same(one: Entry, other: Entry, *facts: str) -> bool:
    return all(one.body.get(fact) == other.body.get(fact) for fact in facts)


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
    return _same(approval, move, "name", "bundle_hash")


def _signed(approval: Entry, entries: list[Entry]) -> tuple[Entry, ...]:
    """Every approval of the passed decision that `approval` is about, if they are enough and it is one of them."""
    decision, signed = decision_of(approval, entries), behind(approval, entries)
    passed = decision is not None and decision.body.get("verdict") == "passed"
    return signed.approvals if passed and signed.completing and approval in signed.approvals else ()
