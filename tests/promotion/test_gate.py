"""The gate: real bundles on real pixels; looks are counted, comparisons made once, decisions recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from components.errors import BundleCorrupt, DataError
from components.model.evaluation import Evaluation
from components.promotion.gate import Decision, gate
from components.promotion.ledger import canonical
from components.promotion.standing import Verdict
from components.serving.bundle import Bundle
from tests.promotion.worlds import PARAMS, context
from tests.promotion.worlds import drifted as drifted
from tests.promotion.worlds import sound as sound
from tests.promotion.worlds import world as world


def test_a_first_champion_is_judged_by_the_floors(sound, ledger):
    """One look, one decision in the ledger, in the words an approval reads."""
    found = gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))

    assert found.verdict == "passed"
    assert [e.kind for e in ledger.entries()] == ["look", "decision"]
    assert Decision.model_validate(ledger.entries("decision")[0].body) == found
    read = Verdict.model_validate(ledger.entries("decision")[0].body)
    assert (read.version, read.bundle_hash, read.champion_hash) == (1, Bundle.open(sound["challenger"]).hash, None)


def test_weak_grouping_is_marked_wherever_the_decision_is_read(sound, ledger, tmp_path):
    """In the record, in its first line, in what the reviewer reads in the registry, and as the first warning."""
    shutil.copytree(sound["evaluation"], tmp_path / "evaluation")
    path = tmp_path / "evaluation/evaluation.json"
    path.write_text(path.read_text().replace('"patient grouping"', '"weak grouping"'))
    given = sound | {"evaluation": tmp_path / "evaluation"}
    found = gate(**given, champion=None, params=PARAMS, ledger=ledger, context=context(1))

    assert ledger.entries("decision")[0].body["evidence"] == "weak grouping"
    assert found.text().splitlines()[0] == "Version 1: passed (no champion yet; weak grouping)"
    assert found.markdown().startswith("## Version 1: passed (no champion yet; weak grouping)")
    assert found.warnings[0].startswith("Weak grouping. Some images came without patient ids")


def test_the_same_question_is_asked_once(sound, ledger):
    """A second run answers from the record: no look, no entry."""
    first = gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    second = gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))

    assert second == first
    assert len(ledger.entries()) == 2


def test_a_record_holds_what_it_rests_on(sound, drifted, ledger):
    """The slices and the hash of the challenger's evaluation, the ledger's entry of the record before, canonically."""
    gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    found = gate(**drifted, champion=None, params=PARAMS, ledger=ledger, context=context(2))
    first, second = ledger.entries("decision")

    assert (first.body["format"], first.body["previous_record"]) == (4, None)
    assert second.body["previous_record"] == first.hash
    assert found.slices == Evaluation.read(drifted["evaluation"]).slices
    content = (drifted["evaluation"] / "evaluation.json").read_bytes()
    assert found.evaluation_sha256 == hashlib.sha256(content).hexdigest()
    assert found.encode() == canonical(second.body)


def test_a_new_version_of_the_same_bundle_is_recorded_without_a_look(sound, ledger):
    """The comparison stands; the record names the version it is about."""
    gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    again = gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(2))

    assert again.version == 2
    assert [e.kind for e in ledger.entries()] == ["look", "decision", "decision"]


def test_a_drifted_champion_is_replaced(sound, drifted, ledger):
    """Inflated sensitivity with collapsed specificity does not keep a better model out."""
    found = gate(**sound, champion=drifted["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))

    assert found.verdict == "passed"
    assert any("trade-off is repaired" in reason for reason in found.reasons)
    assert found.champion.sensitivity["high_sensitivity"].value == 1.0


def test_a_worse_challenger_fails(sound, drifted, ledger):
    """And the reasons say at which point, in which rate, by how much."""
    found = gate(**drifted, champion=sound["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))

    assert found.verdict == "failed"
    assert any("At the high-sensitivity point the challenger's specificity is worse by" in r for r in found.reasons)


def test_sites_are_compared_one_by_one(sound, drifted, ledger):
    """A repair passes at both sites; the other way round each site loses its specificity, and the reasons say so."""
    repair = gate(**sound, champion=drifted["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))
    harm = gate(**drifted, champion=sound["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))

    assert [(c.value, c.verdict) for c in repair.compared] == [("north", "kept"), ("south", "kept")]
    assert [(c.value, c.verdict) for c in harm.compared] == [("north", "worse"), ("south", "worse")]
    assert any(r.startswith("site south: specificity changes by -.") for r in harm.reasons)


def test_a_record_says_what_changed_and_what_was_asked(sound, drifted, ledger):
    """Two bundles of one network with other thresholds; every condition of the protocol has its line."""
    found = gate(**sound, champion=drifted["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))
    verdicts = {check.name: check.verdict for check in found.checks[-12:]}

    assert found.changed == ("thresholds",)
    assert 0 < found.latency_ms < 60_000
    assert verdicts == {
        "what may not change": "passed", "what changed": "passed", "slices worse than under the champion": "passed",
        "slices large enough to judge": "warned", "calibration": "warned", "heat map": "passed", "polarity": "passed",
        "released graph beside the trained network": "passed", "pictures that are no radiographs": "warned",
        "AUROC lost among images of equal metadata": "passed", "metadata alone": "warned",
    } | {"time of one prediction": verdicts["time of one prediction"]}  # fmt: skip


def test_a_challenger_for_another_use_fails(sound, drifted, ledger, tmp_path):
    """However good its figures are; and with too few images too, for no number of them would change it."""
    bundle = Path(shutil.copytree(sound["challenger"], tmp_path / "bundle"))
    body = json.loads((bundle / "manifest.json").read_bytes()) | {"intended_use": "triage without a reader"}
    raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    (bundle / "manifest.json").write_bytes(raw)
    judged = json.loads((sound["evaluation"] / "evaluation.json").read_bytes())
    (tmp_path / "evaluation.json").write_text(json.dumps(judged | {"bundle_hash": hashlib.sha256(raw).hexdigest()}))
    few = PARAMS.model_copy(update={"min_positives": 500})
    given = sound | {"challenger": bundle, "evaluation": tmp_path}
    found = gate(**given, champion=drifted["challenger"], params=few, ledger=ledger, context=context(2, 1))

    assert (found.verdict, found.changed) == ("failed", ("thresholds", "intended_use"))
    assert "triage without a reader now" in found.text()


def test_a_small_test_set_is_inconclusive(sound, ledger):
    """Not a pass, and the number that is missing is named."""
    params = PARAMS.model_copy(update={"min_positives": 500})
    found = gate(**sound, champion=None, params=params, ledger=ledger, context=context(1))

    assert found.verdict == "inconclusive"
    assert "the protocol asks for 500" in found.reasons[0]


def test_another_protocol_is_another_look(sound, ledger):
    """Moving the goalposts after seeing the result costs a look."""
    gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    looser = PARAMS.model_copy(update={"auroc_floor": 0.5})
    found = gate(**sound, champion=None, params=looser, ledger=ledger, context=context(1))

    assert found.look == 2


def test_a_threshold_chosen_on_test_is_refused(sound, ledger, tmp_path):
    """No look is spent on it."""
    bundle = Path(shutil.copytree(sound["challenger"], tmp_path / "bundle"))
    body = json.loads((bundle / "manifest.json").read_bytes())
    body["thresholds"]["high_sensitivity"]["source_role"] = "test"
    (bundle / "manifest.json").write_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n")

    with pytest.raises(BundleCorrupt, match="source_role"):
        gate(**sound | {"challenger": bundle}, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    assert ledger.entries() == []


def test_another_bundles_evaluation_is_refused(sound, drifted, ledger):
    """Slices of one model say nothing about another."""
    mixed = sound | {"evaluation": drifted["evaluation"]}

    with pytest.raises(DataError, match="run `evaluate`"):
        gate(**mixed, champion=None, params=PARAMS, ledger=ledger, context=context(1))


def test_the_reviewer_reads_a_table(sound, drifted, ledger):
    """Verdict, both models with intervals, checks, and what everything was made from."""
    found = gate(**sound, champion=drifted["challenger"], params=PARAMS, ledger=ledger, context=context(2, 1))
    lines = found.markdown().splitlines()
    assert len(found.markdown()) <= 5000

    assert lines[0] == "## Version 2: passed (champion version 1)"
    assert "| | Challenger | Champion |" in lines
    assert f"| AUROC (n = 240) | {found.challenger.auroc} | {found.champion.auroc} |" in lines
    assert f"| Git commit | `{'c' * 40}` |" in lines
    assert "Decision support for research; not a medical device." in lines


def test_the_table_fits_the_registry(sound, ledger):
    """A description holds 5,000 characters: checks that passed give way, then warnings; the page says how many did."""
    found = gate(**sound, champion=None, params=PARAMS, ledger=ledger, context=context(1))
    many = found.model_copy(update={"warnings": tuple(f"site {n}: {'x' * 300}" for n in range(20))}).markdown()

    assert len(many) <= 5000
    assert "more in the ledger and the report." in many
    assert " more, in the ledger | | | passed |" in many
    assert "| metadata alone |" in many
    assert "| Protocol | `" in many
