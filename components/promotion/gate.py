"""Effect: judge a challenger on the sealed test images, once, and write what was found into the ledger.

The rules are in promotion/protocol, subgroups, changes and conditions. A look at test patients (promotion/testset) is
counted before their labels are used, and a comparison that was already made (same challenger, champion, test set and
protocol) is never made again: its record is returned, or, where version or champion's term have moved on since, entered
again without another look.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.retirements import read_retirements
from components.dataset.rows import rows_sha256
from components.errors import DataError
from components.gate_params import Gate
from components.model.comparison import RETIRED, Sealed, holm
from components.model.evaluation import FILE, WEAK, WEAK_NOTE, Evaluation
from components.model.measure import reliability
from components.model.statistics import Estimate, auroc_of, bootstrap, percentile, rate, ratios_of
from components.promotion import conditions, protocol
from components.promotion.changes import changes
from components.promotion.decision import (
    FORMAT,
    Check,
    Compared,
    Context,
    Decision,
    Figures,
    Threshold,
    protocol_hash,
)
from components.promotion.ledger import Ledger
from components.promotion.protocol import Beside, Ruling, Who
from components.promotion.reference import candidates
from components.promotion.standing import returned
from components.promotion.subgroups import ALPHA, Sliced, subgroups
from components.promotion.testset import look, require_same
from components.serving.bundle import Bundle

__all__ = ["Check", "Context", "Decision", "gate"]

RESAMPLES = 2000
SEED = 0
PICTURE = (2048, 2048)  # rows, columns
TIMED = 9


def gate(
    *,
    challenger: Path,
    champion: Path | None,
    reference: Path | None = None,
    accepted: Path,
    retirements: Path,
    studies: Path,
    evaluation: Path,
    params: Gate,
    ledger: Ledger,
    context: Context,
) -> Decision:
    """Compare two bundles as they would be served; return the decision, which is in the ledger by then.

    Args:
        challenger, champion: bundle folders; no champion means that the absolute floors decide.
        reference: the bundle of promotion/reference, where it is another one; what is lost to it adds up.
        accepted, studies: the data the challenger was built from, its sealed test images among them.
        retirements: the log of test patients that judge no model any more, as that build has it.
        evaluation: the challenger's evaluation, for its slices and how robust it is.

    Raises:
        PromotionRefused: the look budget of these test patients is spent.
        DataError: the test set lacks a class, the evaluation is of another bundle or test set, or the log of
            retirements is not what the ledger says.
        PatientLeak: a bundle learned from a test patient.
        BundleCorrupt: a bundle does not match its manifest, or a threshold in it was chosen on another role than tune.
        LedgerCorrupt: nothing is decided on a broken ledger.
    """
    held = reference if champion and params.reference else None
    bundles = [Bundle.open(folder) for folder in (challenger, champion, held) if folder is not None]
    require_same(ledger, read_retirements(retirements))
    sealed, judged = Sealed.read(accepted, retirements), Evaluation.read(evaluation)
    if (judged.bundle_hash, judged.test_sha256) != (bundles[0].hash, sealed.sha256):
        raise DataError(
            f"{evaluation}: evaluates bundle {judged.bundle_hash[:12]} on test set {judged.test_sha256[:12]}; expected "
            f"{bundles[0].hash[:12]} on {sealed.sha256[:12]}; run `evaluate`"
        )
    positives = int(sealed.labels.sum())
    question = {
        "name": context.name,
        "challenger_hash": bundles[0].hash,
        "champion_hash": bundles[1].hash if champion else None,
        "reference_hash": bundles[2].hash if len(bundles) > 2 else None,
        "test_sha256": sealed.sha256,
        "protocol_sha256": protocol_hash(params),
    }
    if recorded := _recorded(ledger, question, context):
        return recorded
    number = look(ledger, question, params, sealed)
    predictions = [sealed.predict(bundle, studies) for bundle in bundles]
    figures = [_figures(sealed, bundle, p) for bundle, p in zip(bundles, predictions, strict=True)]
    milliseconds = latency_ms(bundles[0])
    found = _performance(sealed, bundles, predictions, figures, judged, params)
    ruling = found.ruling
    ruling += _conditions(sealed, bundles[0], predictions[0], judged, _learned(accepted), milliseconds, params)
    decision = Decision(
        **context.model_dump(),
        bundle_hash=bundles[0].hash,
        champion_hash=question["champion_hash"],
        reference_hash=question["reference_hash"],
        reference_version=_version_of(ledger, context.name, question["reference_hash"]),
        verdict=ruling.verdict,
        accepted_sha256=rows_sha256(accepted),
        test_sha256=sealed.sha256,
        protocol=params,
        protocol_sha256=protocol_hash(params),
        evidence=judged.evidence,
        images=len(sealed.table),
        patients=len(set(sealed.patients)),
        positives=positives,
        negatives=len(sealed.table) - positives,
        retired=sealed.excluded[RETIRED],
        withdrawn=_withdrawn(accepted),
        look=number,
        look_budget=params.look_budget,
        challenger=figures[0],
        champion=figures[1] if champion else None,
        reference=figures[2] if len(figures) > 2 else None,
        slices=judged.slices,
        compared=found.compared,
        crept=found.crept,
        changed=found.changed,
        latency_ms=milliseconds,
        evaluation_sha256=hashlib.sha256((evaluation / FILE).read_bytes()).hexdigest(),
        checks=ruling.checks,
        reasons=ruling.reasons or ("Every check of the protocol passed.",),
        warnings=(*_warnings(judged), *_unheld(ledger, question, params), *ruling.warnings),
    )
    return _enter(ledger, decision)


def latency_ms(bundle: Bundle) -> float:
    """Median time of one prediction on this machine, milliseconds, of a picture as large as a radiograph's."""
    pixels = np.random.default_rng(SEED).integers(0, 4096, PICTURE).astype(np.uint16)
    spent = []
    for _ in range(TIMED + 1):
        started = time.perf_counter()
        bundle.predict(pixels)
        spent.append(1000 * (time.perf_counter() - started))
    return float(np.median(spent[1:]))  # the first one warms up


@dataclass(frozen=True)
class Performance:
    """Counts, floors, both points, slices and what changed; slice by slice beside champion and reference."""

    ruling: Ruling
    compared: tuple[Compared, ...]
    crept: tuple[Compared, ...]
    changed: tuple[str, ...]


def _performance(
    sealed: Sealed, bundles: list[Bundle], predictions: list[np.ndarray], figures: list[Figures], judged: Evaluation,
    params: Gate,
) -> Performance:  # fmt: skip
    """Of the first bundle, beside the second (the champion) and the third (the reference), where they are given."""
    positives, challenger = int(sealed.labels.sum()), (predictions[0], figures[0])
    ruling = protocol.enough(positives, len(sealed.table) - positives, params)
    ruling += protocol.floors(figures[0], params, first=len(bundles) == 1)
    beside: list[Beside] = []
    whos: tuple[Who, ...] = ("champion", "reference")
    for who, other, its in zip(whos, predictions[1:], figures[1:], strict=False):
        found = Beside(who, other, its)
        points = protocol.against(
            sealed.labels, sealed.patients, challenger, found, params, resamples=RESAMPLES, seed=SEED
        )
        beside.append(replace(found, repaired=points.repaired))
        ruling += points
    same, changed = changes(bundles[0], bundles[1], params) if beside else (Ruling(()), ())
    sliced = Sliced(sealed.table, sealed.labels, sealed.patients, judged.min_slice, RESAMPLES, SEED)
    served, compared = subgroups(sliced, challenger, beside, params)
    crept = compared[1] if len(compared) > 1 else ()
    return Performance(ruling + same + served, compared[0], crept, changed)


def _conditions(
    sealed: Sealed, bundle: Bundle, probabilities: np.ndarray, judged: Evaluation, learned: pd.DataFrame,
    milliseconds: float, params: Gate,
) -> Ruling:  # fmt: skip
    """What is asked beside accuracy, of the challenger alone."""
    labels, patients = sealed.labels, sealed.patients
    found = reliability(labels, probabilities, patients, resamples=RESAMPLES, seed=SEED)
    return (
        conditions.calibration(found, params)
        + conditions.released(bundle.manifest, params)
        + conditions.polarity(judged.robustness.polarity, params)
        + conditions.foreign(judged.robustness.foreign, params)
        + conditions.matched(
            sealed.table, labels, probabilities, patients, params,
            least=judged.min_slice, resamples=RESAMPLES, seed=SEED,
        )
        + conditions.shortcut(learned, params)
        + conditions.latency(milliseconds, params)
    )  # fmt: skip


def _version_of(ledger: Ledger, name: str, bundle_hash: str | None) -> int | None:
    """Under which number a bundle was champion."""
    numbers = (int(e.body["version"]) for e in candidates(ledger, name) if e.body["bundle_hash"] == bundle_hash)
    return next(numbers, None)


def _unheld(ledger: Ledger, question: dict[str, str | None], params: Gate) -> tuple[str, ...]:
    """What a reviewer should know where the reference is not the one that it was to be."""
    first = next(iter(candidates(ledger, str(question["name"]))), None)
    known = (question["champion_hash"], question["reference_hash"])
    if first is None or params.reference is None or question["champion_hash"] is None:
        return ()
    if first.body["bundle_hash"] in known:
        return ()
    return (
        f"Version {first.body['version']}, the champion of when these test patients began to judge, cannot be had any "
        "more: what all champions since have lost to it is not known.",
    )


def _withdrawn(accepted: Path) -> int:
    """Patients that the split left out because they, or their picture under another pseudonym, are withdrawn."""
    table = pd.read_parquet(accepted)  # a split of before there were withdrawals has no such column
    return int(table.loc[table["withdrawn"].astype(bool), "patient_id"].nunique()) if "withdrawn" in table else 0


def _learned(accepted: Path) -> pd.DataFrame:
    """Accepted, labelled images that a network may learn from: metadata are asked there, not on the sealed images."""
    table = pd.read_parquet(accepted, filters=[("role", "in", ("train", "tune"))])
    return table[table["accepted"].astype(bool) & table["label"].notna()].reset_index(drop=True)


def _figures(sealed: Sealed, bundle: Bundle, probabilities: np.ndarray) -> Figures:
    labels, patients = sealed.labels, sealed.patients
    squares = ((probabilities - labels) ** 2)[:, None]
    area, brier = auroc_of(labels, probabilities), ratios_of(squares, np.ones_like(squares))

    def both(weights: np.ndarray) -> np.ndarray:
        return np.hstack([area(weights), brier(weights)])

    draws, values = bootstrap(patients, both, resamples=RESAMPLES, seed=SEED), both(np.ones((1, len(labels))))[0]
    points = bundle.manifest.thresholds
    at = {"high_sensitivity": points.high_sensitivity, "high_specificity": points.high_specificity}
    called = {name: probabilities >= point.threshold for name, point in at.items()}
    kinds = labels == 1
    return Figures(
        bundle_hash=bundle.hash,
        thresholds={n: Threshold(threshold=p.threshold, source_role=p.source_role) for n, p in at.items()},
        auroc=_known(percentile(values[0], draws[:, 0], len(labels))),
        brier=_known(percentile(values[1], draws[:, 1], len(labels))),
        sensitivity={n: _known(rate(c[kinds], patients[kinds])) for n, c in called.items()},
        specificity={n: _known(rate(~c[~kinds], patients[~kinds])) for n, c in called.items()},
    )


def _known(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise DataError("a figure of the gate is undefined on this test set; take in more labelled patients (`intake`)")
    return estimate


def _recorded(ledger: Ledger, question: dict[str, str | None], context: Context) -> Decision | None:
    """The decision already taken on exactly this, as it counts for this version and this champion's term."""
    wanted = {"bundle_hash" if key == "challenger_hash" else key: value for key, value in question.items()}
    same = [e for e in ledger.entries("decision") if all(e.body.get(k) == v for k, v in wanted.items())]
    if not same:
        return None
    decision = Decision.model_validate(same[-1].body)
    now = decision.model_copy(update=context.model_dump())
    champion = ledger.champion(context.name)
    overtaken = champion is not None and champion.seq > same[-1].seq
    if now != decision or overtaken or returned(ledger, same[-1]):
        return _enter(ledger, now)
    return now


def _enter(ledger: Ledger, decision: Decision) -> Decision:
    """Append the record, which names the one before it."""
    with ledger.locked() as chain:
        before = [e for e in ledger.entries("decision") if e.body.get("name") == decision.name]
        linked = decision.model_copy(update={"format": FORMAT, "previous_record": before[-1].hash if before else None})
        chain.append("decision", linked.model_dump(mode="json"))
    return linked


def _warnings(found: Evaluation) -> tuple[str, ...]:
    """What a reviewer should know of the evidence, and of slices that are served worse than the rest (Holm)."""
    said = []
    if found.evidence == WEAK:
        said.append(WEAK_NOTE)
    tests = [
        (s, kind, difference, p)
        for s in found.slices
        for kind, difference, p in (
            ("sensitivity", s.difference_sensitivity, s.p_sensitivity),
            ("specificity", s.difference_specificity, s.p_specificity),
        )
        if difference is not None and p is not None
    ]
    for (s, kind, difference, _), hit in zip(tests, holm([p for *_, p in tests], ALPHA), strict=True):
        if hit and difference.value < 0:
            said.append(f"{s.column} {s.value}: {kind} differs from the rest by {difference}.")
    return tuple(said)
