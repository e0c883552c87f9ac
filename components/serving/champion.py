"""Which bundle serves: the one the ledger names and a signed approval covers. The service follows the ledger alone."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from components.errors import BundleCorrupt, LedgerCorrupt
from components.promotion.ledger import Entry, Ledger
from components.promotion.signers import behind, decision_of
from components.serving.bundle import Bundle

log = logging.getLogger("osteoflow.serving")


@dataclass(frozen=True)
class Serving:
    """The champion in memory: its bundle, and the ledger entries that put it there: the move, and every approval."""

    bundle: Bundle
    version: str
    entry: Entry
    approvals: tuple[Entry, ...]


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
    """Follows `ledger`, as long as its witness in `key_dir` agrees; opens the bundle it names from `bundles`/<hash>."""

    def __init__(self, *, ledger: Path, bundles: Path, name: str, key_dir: Path) -> None:
        self._ledger = Ledger(ledger, witness=key_dir)
        self._bundles = bundles
        self._name = name
        self._lock = threading.Lock()
        self._known: tuple[object, Serving | Off] | None = None

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def current(self) -> Serving | Off:
        """What serves at this moment; the ledger is read again whenever its file has changed."""
        with self._lock:
            mark = self._ledger.mark()
            if self._known is not None and self._known[0] == mark:
                return self._known[1]
            found = self._read()
            # A bundle that is missing may arrive without the ledger moving: look again next time.
            self._known = None if isinstance(found, Off) and found.reason == "bundle" else (mark, found)
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
        if stops := self._ledger.stops():
            why = "; ".join(str(stop.body.get("reason") or "no reason was given").rstrip(".") for stop in stops)
            return Off("stopped", f"AI output was switched off: {why}. Cases can still be read.")
        if entry is None:
            return Off(
                "no_champion", "No model is approved; a reviewer approves one with `osteoflow approve` or in MLflow."
            )
        wanted = str(entry.body.get("bundle_hash"))
        before = [e for e in entries if e.seq < entry.seq]
        approvals = next((found for e in reversed(before) if _covers(e, entry) and (found := _signed(e, before))), ())
        if not approvals:
            return Off("unsigned", "The model in line to serve lacks a signed approval; reviewers approve it first.")
        return self._open(entry, approvals, wanted)

    def _open(self, entry: Entry, approvals: tuple[Entry, ...], wanted: str) -> Serving | Off:
        version = str(entry.body.get("version"))
        known = self._known[1] if self._known else None
        if isinstance(known, Serving) and known.bundle.hash == wanted:
            return Serving(known.bundle, version, entry, approvals)
        try:
            bundle = Bundle.open(self._bundles / wanted, expected_hash=wanted)
        except BundleCorrupt as error:
            log.error("%s", error)
            return Off(
                "bundle", f"The files of approved model version {version} are missing or altered; roll it out again."
            )
        log.info("version %s serves now, bundle %s", version, wanted[:12])
        return Serving(bundle, version, entry, approvals)


def _covers(approval: Entry, move: Entry) -> bool:
    """Whether a signed approval from before `move` names the bundle that `move` puts in place."""
    if approval.kind != "approval" or approval.signature is None or approval.seq > move.seq:
        return False
    if move.kind == "rollout" and move.body.get("approval_hash") != approval.hash:
        return False
    return all(approval.body.get(key) == move.body.get(key) for key in ("name", "bundle_hash"))


def _signed(approval: Entry, entries: list[Entry]) -> tuple[Entry, ...]:
    """Every approval of the passed decision that `approval` is about, if they are enough and it is one of them."""
    decision, signed = decision_of(approval, entries), behind(approval, entries)
    passed = decision is not None and decision.body.get("verdict") == "passed"
    return signed.approvals if passed and signed.completing and approval in signed.approvals else ()
