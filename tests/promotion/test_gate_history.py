"""The gate over the years: looks add up, patients are retired and withdrawn, champions come and go and come back."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from components.dataset.retirements import marks, write_retirements
from components.dataset.rows import write_rows
from components.errors import DataError, PromotionRefused
from components.model.evaluation import Evaluation
from components.promotion.gate import gate
from components.promotion.ledger import SigningKey
from components.promotion.testset import refresh
from components.serving.bundle import Bundle
from tests.promotion.worlds import FEW, IMAGES, NAME, PARAMS, context, smaller
from tests.promotion.worlds import drifted as drifted
from tests.promotion.worlds import sound as sound
from tests.promotion.worlds import world as world


def test_a_decision_is_renewed_when_the_champion_came_back(sound, drifted, ledger):
    """After a rollback an old decision does not stand any more; asking again records it anew."""
    given = sound | {"champion": drifted["challenger"]}
    gate(**given, params=PARAMS, ledger=ledger, context=context(2, 1))
    ledger.append("rollback", {"name": NAME, "version": 1, "bundle_hash": Bundle.open(drifted["challenger"]).hash})
    gate(**given, params=PARAMS, ledger=ledger, context=context(2, 1))

    assert [e.kind for e in ledger.entries()] == ["look", "decision", "rollback", "decision"]


def test_a_decision_is_renewed_when_the_version_was_taken_back(sound, drifted, ledger):
    """A roll-out that a guard ended needs a new decision and a new approval; it costs no look."""
    given = sound | {"champion": drifted["challenger"]}
    gate(**given, params=PARAMS, ledger=ledger, context=context(2, 1))
    (decision,) = ledger.entries("decision")
    same = {key: decision.body[key] for key in ("name", "version", "bundle_hash")}
    ledger.append("return", same | {"decision_hash": decision.hash})
    gate(**given, params=PARAMS, ledger=ledger, context=context(2, 1))
    gate(**given, params=PARAMS, ledger=ledger, context=context(2, 1))

    assert [e.kind for e in ledger.entries()] == ["look", "decision", "return", "decision"]


def test_looks_run_out(sound, drifted, world, ledger):
    """The third model on a test set with a budget of two is not judged."""
    gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    gate(**drifted, champion=None, params=PARAMS, ledger=ledger, context=context(2))
    third = world(high_sensitivity=0.4, high_specificity=0.6)

    with pytest.raises(
        PromotionRefused, match=r"looked at 2 times, the protocol allows 2.*`osteoflow testset refresh`"
    ):
        gate(**third, champion=None, params=PARAMS, ledger=ledger, context=context(3))
    assert len(ledger.entries("decision")) == 2


def test_looks_add_up_over_test_sets_that_share_patients(sound, drifted, world, ledger, tmp_path):
    """One test image more or fewer makes no new patients of the others, and buys no look."""
    gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    gate(**drifted, champion=None, params=PARAMS, ledger=ledger, context=context(2))
    other = smaller(sound, tmp_path, lambda table: table["image_id"] != "i000")

    with pytest.raises(PromotionRefused, match="looked at 2 times, the protocol allows 2"):
        gate(**other, champion=None, params=PARAMS, ledger=ledger, context=context(3))


def worn(sound, drifted, ledger, folder: Path) -> list[str]:
    """100 patients, looked at twice, and a refresh; the marks of those that it retired. 20 patients come after it."""
    early = [f"sealed{n:03d}" for n in range(100)]
    for version, bundle in enumerate((sound, drifted), start=1):
        first = smaller(bundle, folder / str(version), lambda table: table["patient_id"].isin(early))
        gate(**first, champion=None, params=FEW, ledger=ledger, context=context(version))
    key = SigningKey.open(folder / "keys", "reviewer")
    refresh(ledger=ledger, name=NAME, accepted=sound["accepted"], params=FEW, reason="worn", user="reviewer", key=key)
    return marks(early)


def test_a_refresh_retires_who_was_looked_at(sound, drifted, ledger, tmp_path):
    """Before: 100 patients, budget spent. After: the 20 others decide and fill the report."""
    retired = worn(sound, drifted, ledger, tmp_path)
    later = smaller(sound, tmp_path / "later", lambda table: table["label"].notna(), retired)
    found = gate(**later, champion=None, params=FEW, ledger=ledger, context=context(3))
    reported = Evaluation.read(later["evaluation"])

    assert (found.patients, found.images, found.retired, found.look) == (20, 40, 200, 1)
    assert (reported.patients, reported.images, reported.excluded["retired by a refresh"]) == (20, 40, 200)
    assert ledger.entries("look")[-1].body["patients"] == marks(f"sealed{n:03d}" for n in range(100, 120))


def test_a_log_of_retirements_that_is_not_the_ledgers_is_refused(sound, drifted, ledger, tmp_path):
    """An older commit judges on patients who are worn out; a log with more than the ledger chooses who judges."""
    retired = worn(sound, drifted, ledger, tmp_path)
    for logged, said in (([], "lacks 100 whom"), ([*retired, "f" * 16], "names 1 whom none has")):
        write_retirements(tmp_path / "log.csv", logged)
        with pytest.raises(DataError, match=said):
            gate(
                **sound | {"retirements": tmp_path / "log.csv"}, champion=None, params=FEW, ledger=ledger,
                context=context(3),
            )  # fmt: skip
    assert len(ledger.entries("decision")) == 2


def test_who_is_withdrawn_judges_neither_model(sound, drifted, ledger, tmp_path):
    """As the split leaves them out; the record counts them, and both models have the images that are left."""
    table = pd.read_parquet(sound["accepted"])
    gone = table["patient_id"] == "sealed000"
    write_rows(tmp_path / "split", table.assign(withdrawn=gone, role=table["role"].mask(gone, "excluded")))
    left = smaller(sound | {"accepted": tmp_path / "split"}, tmp_path, lambda table: table["label"].notna())
    found = gate(**left, champion=drifted["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))

    assert (found.withdrawn, found.images, found.patients) == (1, 238, 119)
    assert found.challenger.auroc.n == found.champion.auroc.n == 238
    assert "; 1 patients withdrawn before |" in found.markdown()


def test_a_third_model_is_held_to_the_first_as_well(sound, drifted, world, ledger):
    """Both points and every slice, beside the champion and beside the reference, on the same images."""
    middle = world(high_sensitivity=0.4, high_specificity=0.6)
    hashes = [Bundle.open(given["challenger"]).hash for given in (sound, middle)]
    for version, bundle_hash in enumerate(hashes, start=1):
        ledger.append("rollout", {"name": NAME, "version": version, "bundle_hash": bundle_hash})
    given = drifted | {"champion": middle["challenger"]}
    held = gate(**given, reference=sound["challenger"], params=PARAMS, ledger=ledger, context=context(3, 2))
    alone = gate(**given, params=PARAMS, ledger=ledger, context=context(3, 2))

    assert (held.reference_version, held.reference_hash, held.reference.auroc.n) == (1, hashes[0], IMAGES)
    assert [(c.value, c.verdict) for c in held.crept] == [("north", "worse"), ("south", "worse")]
    assert sum(check.name.endswith("challenger minus reference") for check in held.checks) == 4
    assert any("worse than the reference's by" in reason for reason in held.reasons)
    assert (alone.reference, alone.crept) == (None, ())
    assert any(w.startswith("Version 1, the champion of when these test patients") for w in alone.warnings)
