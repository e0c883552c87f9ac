"""The reference: small losses to ten champions add up, and are held; who has lost nothing is not held back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from components.promotion import protocol
from components.promotion.ledger import SigningKey
from components.promotion.protocol import Beside, Ruling
from components.promotion.reference import candidates, reference
from components.promotion.subgroups import Sliced, subgroups
from components.serving.bundle import Bundle
from tests.promotion.conftest import NAME
from tests.promotion.test_subgroups import FIGURES, probabilities
from tests.protocols import protocol_of

PARAMS = protocol_of(
    margin=0.05, reference={"margin": 0.08}, slices={"columns": ("site",), "margin": 0.05, "insufficient": "warn"}
)
MIXED = 0.15  # share of images on which two networks have nothing in common


@dataclass
class TestSet:
    """`images` of either class at each site, on which networks of a given rate agree mostly."""

    __test__ = False
    random: np.random.Generator
    sites: dict[str, int]

    def __post_init__(self) -> None:
        site = np.concatenate([np.repeat(name, 2 * images) for name, images in self.sites.items()])
        self.labels = np.concatenate([np.repeat([1.0, 0.0], images) for images in self.sites.values()])
        self.patients = np.arange(len(site)).astype(str)
        self.table = pd.DataFrame({"site": site, "patient_id": self.patients, "label": self.labels})
        self._hard = self.random.random(len(site))

    def network(self, lost: float, where: str | None = None) -> np.ndarray:
        """Probabilities of a network that calls .9 of either class, less `lost` of the fractures (of one site)."""
        theirs = (self.labels == 1) & ((self.table["site"] == where).to_numpy() if where else True)
        own = self.random.random(len(theirs)) < MIXED
        seen = np.where(own, self.random.random(len(theirs)), self._hard)
        return probabilities(self.labels, seen < 0.9 - lost * theirs)

    def overall(self, challenger: np.ndarray, beside: list[Beside]) -> Ruling:
        ruling = Ruling(())
        for other in beside:
            ruling += protocol.against(
                self.labels, self.patients, (challenger, FIGURES), other, PARAMS, resamples=200, seed=0
            )
        return ruling

    def in_slices(self, challenger: np.ndarray, beside: list[Beside]) -> Ruling:
        of = Sliced(self.table, self.labels, self.patients, 30, 200, 0)
        return subgroups(of, (challenger, FIGURES), beside, PARAMS)[0]


def accumulated(found: TestSet, *, loss: float, held: bool, where: str | None = None) -> float:
    """What the last of ten challengers that passed has truly lost; each loses `loss` to the champion before it."""
    first = champion = found.network(0, where)
    lost = 0.0
    for _ in range(10):
        challenger, beside = found.network(lost + loss, where), [Beside("champion", champion, FIGURES)]
        if held and champion is not first:
            beside.append(Beside("reference", first, FIGURES))
        ruling = found.in_slices(challenger, beside) if where else found.overall(challenger, beside)
        if ruling.verdict == "passed":
            champion, lost = challenger, lost + loss
    return lost


def test_ten_small_losses_are_held_within_the_margin_of_the_reference():
    """.02 at a time, .05 allowed: beside the champion alone .12 and more, beside the reference .08 at most."""
    runs = [TestSet(np.random.default_rng(seed), {"a": 900}) for seed in range(3)]
    alone = [accumulated(found, loss=0.02, held=False) for found in runs]
    held = [accumulated(found, loss=0.02, held=True) for found in runs]

    assert np.mean(alone) >= 0.12
    assert max(held) <= 0.08


def test_ten_small_losses_of_one_site_are_held():
    """.04 at a time of 150 fractures there: alone nothing stops them at .4, held they end once .08 and chance show."""
    runs = [TestSet(np.random.default_rng(seed), {"a": 150, "b": 150}) for seed in range(3)]
    alone = [accumulated(found, loss=0.04, held=False, where="b") for found in runs]
    held = [accumulated(found, loss=0.04, held=True, where="b") for found in runs]

    assert min(alone) >= 0.32
    assert max(held) <= 0.25


def test_a_reference_holds_back_an_equal_challenger_in_at_most_5_percent():
    """Nobody has lost anything: whoever passes beside the champion passes beside the reference, overall and by site."""
    random, stopped = np.random.default_rng(1), []
    for _ in range(60):
        found = TestSet(random, {"a": 300, "b": 300})
        first, champion, challenger = (found.network(0) for _ in range(3))
        alone = [Beside("champion", champion, FIGURES)]
        both = [*alone, Beside("reference", first, FIGURES)]
        if found.overall(challenger, alone).verdict == "passed":
            ruling = found.overall(challenger, both) + found.in_slices(challenger, both)
            stopped.append(ruling.verdict != "passed")

    assert len(stopped) > 30
    assert sum(stopped) / len(stopped) <= 0.05


def test_both_comparisons_together_blame_a_slice_in_at_most_5_percent():
    """Every site has lost just what is allowed, to the champion and to the reference: one family of tests."""
    random, blamed, runs = np.random.default_rng(2), 0, 100
    strict = PARAMS.model_copy(update={"reference": PARAMS.reference.model_copy(update={"margin": 0.05})})
    for _ in range(runs):
        found = TestSet(random, {"a": 60, "b": 40, "c": 90})
        beside = [Beside(who, found.network(0), FIGURES) for who in ("champion", "reference")]
        of = Sliced(found.table, found.labels, found.patients, 30, 200, 0)
        blamed += subgroups(of, (found.network(0.05), FIGURES), beside, strict)[0].verdict == "failed"

    assert blamed / runs <= 0.05


def test_a_loss_to_the_reference_is_told_with_its_site():
    """The champion has lost as much, so that nothing is said against it."""
    found = TestSet(np.random.default_rng(3), {"a": 200, "b": 200})
    first, champion = found.network(0, "b"), found.network(0.3, "b")
    beside = [Beside("champion", champion, FIGURES), Beside("reference", first, FIGURES)]
    ruling = found.in_slices(found.network(0.3, "b"), beside)

    assert [(check.name, check.verdict) for check in ruling.checks] == [
        ("slices worse than under the champion", "passed"),
        ("slices worse than under the reference", "failed"),
        ("slices large enough to judge", "passed"),
    ]
    assert ruling.reasons[0].startswith("site b: sensitivity changes by -.2")
    assert "against the reference on 200 fractures, beyond doubt a loss of more than 0.08." in ruling.reasons[0]


@pytest.fixture
def bundles(tmp_path, tiny_bundle):
    """Where bundles lie, and two that open, by their hashes."""
    raw, hashes = (tiny_bundle / "manifest.json").read_bytes(), []
    for seed in (b'"seed":1', b'"seed":2'):
        draft = shutil.copytree(tiny_bundle, tmp_path / "draft")
        (draft / "manifest.json").write_bytes(raw.replace(b'"seed":1', seed))
        hashes.append(Bundle.open(draft).hash)
        draft.rename(tmp_path / hashes[-1])
    return tmp_path, hashes


def live(ledger, version: int, bundle_hash: str) -> None:
    ledger.append("rollout", {"name": NAME, "version": version, "bundle_hash": bundle_hash})


def test_the_reference_is_the_first_champion_until_a_refresh_moves_it_on(ledger, tmp_path):
    """Then it is whoever answered when the new patients began to judge."""
    for version in (1, 2):
        live(ledger, version, str(version) * 64)
    assert [move.body["version"] for move in candidates(ledger, NAME)] == [1, 2]
    ledger.append("refresh", {"name": NAME, "retired": []}, key=SigningKey.open(tmp_path / "keys", "reviewer"))
    live(ledger, 3, "3" * 64)

    assert [move.body["version"] for move in candidates(ledger, NAME)] == [2, 3]


def test_whom_a_rollback_took_back_is_no_reference(ledger, tmp_path):
    """Answering when the new patients began to judge, found wanting since: the one before answers again."""
    key = SigningKey.open(tmp_path / "keys", "reviewer")
    for version in (1, 2):
        live(ledger, version, str(version) * 64)
    ledger.append("refresh", {"name": NAME, "retired": []}, key=key)
    body = {"name": NAME, "version": 1, "bundle_hash": "1" * 64, "replaced_version": 2, "replaced_hash": "2" * 64}
    ledger.append("rollback", body, key=key)
    live(ledger, 3, "3" * 64)

    assert [(move.kind, move.body["version"]) for move in candidates(ledger, NAME)] == [
        ("rollout", 1), ("rollback", 1), ("rollout", 3),
    ]  # fmt: skip


def test_the_champion_is_its_own_reference_at_first(ledger, registry, bundles):
    folder, (first, second) = bundles
    assert reference(ledger=ledger, registry=registry, name=NAME, bundles=folder) is None
    live(ledger, 1, first)
    assert reference(ledger=ledger, registry=registry, name=NAME, bundles=folder) is None
    live(ledger, 2, second)

    assert reference(ledger=ledger, registry=registry, name=NAME, bundles=folder) == folder / first


def test_where_its_bundle_is_gone_the_next_champion_takes_its_place(ledger, registry, bundles, caplog):
    """Neither here nor in the registry; it is said."""
    folder, (first, second) = bundles
    for version, bundle_hash in ((1, "1" * 64), (2, first), (3, second)):
        live(ledger, version, bundle_hash)

    assert reference(ledger=ledger, registry=registry, name=NAME, bundles=folder) == folder / first
    assert "version 1 is no reference any more" in caplog.text
