"""A hospital in small: the guarded registry, the flows' own steps on its store, and the service that follows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from components.promotion.approve import reconcile, roll_out
from components.promotion.decision import Decision
from components.promotion.ledger import GENESIS, Entry, Ledger, SigningKey, canonical
from components.promotion.register import verified_hash
from components.serving.champion import Champion, Serving
from flows.builds import describe
from tests.promotion.builds import Made
from tests.promotion.guarded import NAME, Server
from tests.protocols import AT_ONCE

AUROC = {"name": "AUROC floor", "expected": ">= 0.80", "found": ".900 (.850-.950)", "verdict": "passed"}
CHECKS = (AUROC, AUROC | {"name": "Sensitivity floor", "expected": ">= 0.75"})
FAILED = {
    "verdict": "failed",
    "reasons": ("Sensitivity at the high-sensitivity point is below the floor of the protocol.",),
    "checks": (AUROC, CHECKS[1] | {"found": ".710 (.640-.772)", "verdict": "failed"}),
}


class Hospital:
    """What people and flows do there.

    Args:
        make: a finished build with a bundle that can serve, by its key.
        record: a decision record's body.
    """

    def __init__(self, server: Server, make: Callable[[str], Made], record: Callable[..., dict[str, Any]]) -> None:
        self.server = server
        self._make, self._record = make, record

    @property
    def state(self) -> Path:
        return self.server.settings.state

    @property
    def keys(self) -> Path:
        return self.server.settings.key_dir

    @property
    def bundles(self) -> Path:
        return self.state / "bundles"

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.server.settings.ledger_path, key_dir=self.keys)

    @cached_property
    def champion(self) -> Champion:
        """What the service asks, as the service has it."""
        return self.champion_of(self.ledger.path, self.bundles)

    def champion_of(self, ledger: Path, bundles: Path) -> Champion:
        return Champion(ledger=ledger, bundles=bundles, name=NAME, key_dir=self.keys)

    @property
    def serves(self) -> str:
        """The version that answers now, or why none does."""
        return serves(self.champion)

    def propose(self, key: str, *, proposer: str = "engineer", **judged: Any) -> int:
        """Register a build, judge it against the champion, and put the record on the version's page, as `retrain`."""
        made, store = self._make(key), self.server.store
        version = made.register(store, proposer=proposer)
        facts = {"version": version, "proposer": proposer}
        if champion := self.ledger.champion(NAME):
            facts |= {"champion_version": champion.body["version"], "champion_hash": champion.body["bundle_hash"]}
        body = self._record(bundle_hash=made.bundle_hash, **({"checks": CHECKS} | facts | judged))
        body["champion"] = body["challenger"] | {"bundle_hash": champion.body["bundle_hash"]} if champion else None
        decision = Decision.model_validate(body)
        self.ledger.append("decision", decision.model_dump(mode="json"))
        describe(store, NAME, version, decision, made.evaluation, self.state, self.ledger)
        return version

    def say_yes(self, version: int, *, user: str = "reviewer") -> httpx.Response:
        """A reviewer's gesture over HTTP: the rationale, then the alias."""
        self.server.set_tag(user, version, "rationale", "fewer misses")
        return self.server.make_champion(user, version)

    def promote(self) -> None:
        """What the flow `promote` does every half minute."""
        store = self.server.store
        roll_out(
            ledger=self.ledger, registry=store, name=NAME, plan=AT_ONCE, compared=lambda _: [], bundles=self.bundles
        )
        reconcile(ledger=self.ledger, registry=store, name=NAME)


def serves(champion: Champion) -> str:
    """The version that answers now, or why none does."""
    now = champion.current()
    return f"version {now.version}" if isinstance(now, Serving) else now.reason


class Stolen:
    """A service's ledger and bundles in the hands of somebody who may write both; a copy, so that no test suffers.

    The service has answered from them once, and keeps its witness and its keys elsewhere.
    """

    def __init__(self, hospital: Hospital, folder: Path, version: int) -> None:
        self.hospital = hospital
        self.ledger = Ledger(Path(shutil.copy(hospital.ledger.path, folder)))
        self.bundles = Path(shutil.copytree(hospital.bundles, folder / "bundles"))
        self.champion = self.restarted()
        self.before = serves(self.champion)
        fetched = hospital.server.store.download_bundle(NAME, version, folder / "theirs")
        found = verified_hash(fetched)
        fetched.rename(self.bundles / found)
        self.body: dict[str, Any] = {"name": NAME, "version": version, "bundle_hash": found}

    def approve(self, key: SigningKey) -> Entry:
        """Decision and approval in perfect form."""
        decision = self.ledger.append("decision", self.body | {"verdict": "passed", "proposer": "engineer"})
        body = self.body | {"decision_hash": decision.hash, "approver": key.name}
        return self.ledger.append("approval", body, key=key)

    def release(self, key: SigningKey) -> None:
        """The same, and the roll-out."""
        approval = self.approve(key)
        body = self.body | {"decision_hash": approval.body["decision_hash"], "approval_hash": approval.hash}
        self.ledger.append("rollout", body)

    def restarted(self) -> Champion:
        """A service that begins anew on the same files."""
        return self.hospital.champion_of(self.ledger.path, self.bundles)

    @property
    def serves(self) -> set[str]:
        """What the running service gives, and one that was restarted."""
        return {serves(self.champion), serves(self.restarted())}

    def rewrite(self, change: Callable[[list[dict[str, Any]]], None]) -> None:
        """Change the entries, then give each its number, its predecessor and its hash again; signatures stay."""
        entries = [entry.model_dump() for entry in self.ledger.entries()]
        change(entries)
        previous, lines = GENESIS, []
        for number, entry in enumerate(entries):
            digest = Entry.model_validate(entry | {"seq": number, "previous": previous}).digest()
            lines.append(canonical(entry | {"seq": number, "previous": previous, "hash": digest}) + b"\n")
            previous = digest
        self.ledger.path.write_bytes(b"".join(lines))
