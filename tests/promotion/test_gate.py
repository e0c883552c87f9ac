"""The gate: real bundles on real pixels; looks are counted, comparisons made once, decisions recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset.rows import write_rows
from components.dataset.store import write_images
from components.errors import BundleCorrupt, DataError, PromotionRefused
from components.model.evaluate import evaluate
from components.model.evaluation import Evaluation
from components.params import Evaluate
from components.promotion.gate import Context, Decision, gate
from components.promotion.ledger import SigningKey, canonical
from components.promotion.standing import Verdict
from components.promotion.testset import marks, refresh
from components.radiograph.image import ImageMeta, Radiograph
from components.radiograph.quality import FEATURES
from components.serving.bundle import Bundle
from tests.protocols import protocol_of
from tests.sweeps import QUICK

NAME = "osteoflow-fracture"
IMAGES = 240
JUDGE = Evaluate(resamples=200, prevalences=(0.1,), min_slice=30, robustness=QUICK, seed=0)
PARAMS = protocol_of(
    auroc_floor=0.8, sensitivity_floor=0.75, specificity_floor=0.75, margin=0.05, min_positives=60,
    min_negatives=60, look_budget=2,
)  # fmt: skip


def context(version: int, champion: int | None = None) -> Context:
    return Context(
        name=NAME, version=version, champion_version=champion, proposer="engineer", git_commit="c" * 40,
        lock_sha256="1" * 64, data_sha256="d" * 64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tiny_bundle: Path, tmp_path_factory) -> Callable[..., dict[str, Path]]:
    """240 test images whose truth is what the tiny network happens to see, a tenth of it turned round.

    Returns a maker of bundles that differ in their thresholds: `world(high_sensitivity=.., high_specificity=..)` in
    quantiles of the probabilities, with the bundle's evaluation and the data beside it.
    """
    folder = tmp_path_factory.mktemp("world")
    random, bundle = np.random.default_rng(0), Bundle.open(tiny_bundle)
    images = []
    for n in range(IMAGES):
        pixels = random.normal(100, 4 + 30 * random.random(), (64, 64)) + np.linspace(0, 100 * random.random(), 64)
        meta = ImageMeta(
            image_id=f"i{n:03d}", patient_id=f"sealed{n // 2:03d}", study_id=f"s{n}", source="dicom",
            grouping="patient", site="north" if n < IMAGES // 2 else "south", device="A", view="frontal",
            body_region="hand", photometric="MONOCHROME2", bits_stored=8,
            rows=64, columns=64,
        )  # fmt: skip
        images.append(Radiograph(meta, np.clip(pixels, 0, 255).astype(np.uint8)))
    write_images(folder / "studies", images, batch="a", shard_bytes=10**7)
    scores = np.array([bundle.predict(image.pixels).probability for image in images])
    labels = (scores > np.median(scores)) ^ (random.random(IMAGES) < 0.1)
    rows = [
        image.meta.model_dump() | {"role": "test", "accepted": True, "boxes": "[]", "ai_visible": False}
        for image in images
    ]
    write_rows(folder / "accepted", pd.DataFrame(rows).assign(label=labels.astype(float), shard="a-0000"))
    (folder / "features").mkdir()
    quality = pd.DataFrame([{"image_id": row["image_id"]} | dict.fromkeys(FEATURES, 5.0) for row in rows])
    quality.to_parquet(folder / "features/a-0000.parquet")

    def make(*, high_sensitivity: float, high_specificity: float) -> dict[str, Path]:
        place = folder / f"{high_sensitivity}-{high_specificity}"
        if not place.exists():
            shutil.copytree(tiny_bundle, place / "bundle")
            body = json.loads((place / "bundle/manifest.json").read_bytes())
            for name, share in (("high_sensitivity", high_sensitivity), ("high_specificity", high_specificity)):
                body["thresholds"][name]["threshold"] = float(np.quantile(scores, share))
            (place / "bundle/manifest.json").write_bytes(
                json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            )
            evaluate(
                accepted=folder / "accepted", studies=folder / "studies", features=folder / "features",
                bundle=place / "bundle", evaluation=place / "evaluation",
                params=JUDGE,
            )  # fmt: skip
        return {
            "challenger": place / "bundle", "evaluation": place / "evaluation",
            "accepted": folder / "accepted", "studies": folder / "studies",
        }  # fmt: skip

    return make


@pytest.fixture
def sound(world):
    """Thresholds where they belong: about .9 of both rates."""
    return world(high_sensitivity=0.45, high_specificity=0.55)


@pytest.fixture
def drifted(world):
    """A champion that calls everything a fracture at one point, and nearly everything at the other."""
    return world(high_sensitivity=0.0, high_specificity=0.1)


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


def test_a_refresh_retires_who_was_looked_at(sound, drifted, ledger, tmp_path):
    """Before: 100 patients, budget spent. After: the 20 others alone decide, by their own looks, as the record says."""
    early = [f"sealed{n:03d}" for n in range(100)]
    few = PARAMS.model_copy(update={"min_positives": 10, "min_negatives": 10})
    for version, bundle in enumerate((sound, drifted), start=1):
        first = smaller(bundle, tmp_path / str(version), lambda table: table["patient_id"].isin(early))
        gate(**first, champion=None, params=few, ledger=ledger, context=context(version))
    key = SigningKey.open(tmp_path / "keys", "reviewer")
    refresh(ledger=ledger, name=NAME, accepted=sound["accepted"], params=few, reason="worn", user="reviewer", key=key)
    found = gate(**sound, champion=None, params=few, ledger=ledger, context=context(3))

    assert (found.patients, found.images, found.retired, found.look) == (20, 40, 200, 1)
    assert "200 of them were retired and decide nothing" in found.warnings[0]
    assert ledger.entries("look")[-1].body["patients"] == marks(f"sealed{n:03d}" for n in range(100, 120))


def smaller(given: dict[str, Path], folder: Path, kept: Callable[[pd.DataFrame], pd.Series]) -> dict[str, Path]:
    """The same bundle, evaluated on a part of the test images."""
    table = pd.read_parquet(given["accepted"])
    write_rows(folder / "accepted", table[kept(table)].reset_index(drop=True))
    evaluate(
        accepted=folder / "accepted", studies=given["studies"], features=given["studies"].parent / "features",
        bundle=given["challenger"], evaluation=folder / "evaluation", params=JUDGE,
    )  # fmt: skip
    return given | {"accepted": folder / "accepted", "evaluation": folder / "evaluation"}


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
