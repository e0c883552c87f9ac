"""A real registry on SQLite, and finished builds to put into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.model.statistics import Estimate
from components.params import load
from components.promotion.approve import approve, reconcile, roll_out, rollback
from components.promotion.decision import Decision, Figures, Threshold, protocol_hash
from components.promotion.ledger import Entry, Ledger, SigningKey
from components.promotion.register import Registry
from tests.promotion.builds import Made, make
from tests.promotion.guarded import NAME, Server, running
from tests.promotion.hospital import Hospital
from tests.protocols import AT_ONCE

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables; making them takes seconds, copying them does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    registry = Registry(f"sqlite:///{path}", artifact_root=path.parent)
    assert registry.versions(NAME) == []
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """One guarded server for all that ask it; each test brings its own versions and people."""
    with running(tmp_path_factory.mktemp("guarded"), empty_store) as started:
        yield started


@pytest.fixture
def passed(server: Server, propose: Callable[..., int], judge: Callable[..., Entry], request: Any) -> int:
    """A fresh version in the server's registry that passed its gate, proposed by engineer."""
    version = propose(server.store, request.node.name)
    judge(server.ledger, server.store, version)
    return version


@pytest.fixture
def registry(tmp_path: Path, empty_store: Path) -> Registry:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_root=tmp_path / "artifacts")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.fixture
def propose(tmp_path: Path) -> Callable[..., int]:
    """Make and register a build; returns the version."""

    def act(registry: Registry, key: str, *, proposer: str = "engineer") -> int:
        return make(tmp_path, key).register(registry, proposer=proposer)

    return act


@pytest.fixture
def judge() -> Callable[..., Entry]:
    """Put the gate's decision about a version into the ledger."""

    def act(ledger: Ledger, registry: Registry, version: int, *, verdict: str = "passed", signers: Any = 1) -> Entry:
        champion = ledger.champion(NAME)
        body = {
            "name": NAME,
            "version": version,
            "bundle_hash": registry.version(NAME, version).bundle_hash,
            "verdict": verdict,
            "champion_hash": champion.body["bundle_hash"] if champion else None,
            "proposer": registry.version(NAME, version).proposer,
            "protocol": {"signers": signers},
        }
        return ledger.append("decision", body)

    return act


@pytest.fixture(scope="session")
def record() -> Callable[..., dict[str, Any]]:
    """A whole decision record as the gate writes it; `record(bundle_hash=..., version=2)`."""
    sure = Estimate(value=0.9, low=0.85, high=0.95, n=400)
    rates = {"high_sensitivity": sure, "high_specificity": sure}
    thresholds = {point: Threshold(threshold=0.5, source_role="tune") for point in rates}
    protocol = load(REPOSITORY / "params.yaml").gate

    def make(*, bundle_hash: str, **changes: Any) -> dict[str, Any]:
        body = {
            "name": NAME, "version": 1, "bundle_hash": bundle_hash, "verdict": "passed", "champion_version": None,
            "champion_hash": None, "proposer": "engineer", "git_commit": "c" * 40, "lock_sha256": "1" * 64,
            "data_sha256": "d" * 64, "accepted_sha256": "a" * 64, "test_sha256": "7" * 64, "protocol": protocol,
            "protocol_sha256": protocol_hash(protocol), "evidence": "patient grouping", "images": 400, "patients": 200,
            "positives": 100, "negatives": 300, "look": 1, "look_budget": 10, "champion": None,
            "challenger": Figures(
                bundle_hash=bundle_hash, thresholds=thresholds, auroc=sure, brier=sure, sensitivity=rates,
                specificity=rates,
            ),
            "checks": (), "reasons": ("Every check of the protocol passed.",), "warnings": (),
        }  # fmt: skip
        return Decision.model_validate(body | changes).model_dump(mode="json")

    return make


@pytest.fixture(scope="module")
def hospital(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path, tiny_bundle: Path, record: Callable[..., dict]
) -> Iterator[Hospital]:
    """A guarded server, the service beside it, and version 1, which a reviewer approved and which serves."""
    builds = tmp_path_factory.mktemp("builds")
    with running(tmp_path_factory.mktemp("hospital"), empty_store) as started:
        made = Hospital(started, lambda key: make(builds, key, release=tiny_bundle), record)
        assert made.say_yes(made.propose("first")).status_code == 200
        made.promote()
        yield made


@pytest.fixture
def made_build(tmp_path: Path) -> Callable[[str], Made]:
    """A finished build on disk, made once per key."""
    made: dict[str, Made] = {}

    def act(key: str) -> Made:
        if key not in made:
            made[key] = make(tmp_path, key)
        return made[key]

    return act


@pytest.fixture
def house(registry, ledger, propose, judge, tmp_path):
    """Registry and ledger with short verbs: `propose(key)`, `judge(version)`, `approve(version)`, ..."""

    class House:
        def __init__(self):
            self.registry, self.ledger, self.cases = registry, ledger, {}

        def key(self, name):
            return SigningKey.open(tmp_path / "keys", name)

        def propose(self, key, **options):
            return propose(registry, key, **options)

        def judge(self, version, **options):
            return judge(ledger, registry, version, **options)

        def approve(self, version, *, approver="reviewer", rationale="fewer misses", key=None):
            return approve(
                ledger=ledger,
                registry=registry,
                name=NAME,
                version=version,
                approver=approver,
                rationale=rationale,
                key=key or self.key(approver),
            )

        def roll_out(self, *, alerts=(), **plan):
            """At once, unless told `shadow_cases=2`; what a stage has met is put into `cases`, by its hash."""
            return roll_out(
                ledger=ledger,
                registry=registry,
                name=NAME,
                plan=AT_ONCE.model_copy(update=plan),
                alerts=alerts,
                compared=lambda stage: self.cases.get(stage, []),
                bundles=tmp_path / "bundles",
            )

        def rollback(self, to=None, *, reason="more misses", user="reviewer"):
            return rollback(
                ledger=ledger,
                registry=registry,
                name=NAME,
                to_version=to,
                reason=reason,
                user=user,
                key=self.key(user),
            )

        def reconcile(self):
            return reconcile(ledger=ledger, registry=registry, name=NAME)

        def live(self, key):
            """Propose, judge, approve and roll out one build."""
            version = self.propose(key)
            self.judge(version)
            self.approve(version)
            self.roll_out()
            return version

        @property
        def kinds(self):
            return [entry.kind for entry in ledger.entries()]

        @property
        def champions(self):
            """What the ledger says, what the alias says."""
            entry, carrier = ledger.champion(NAME), registry.at(NAME, "champion")
            return entry and entry.body["version"], carrier and carrier.version

    return House()
