"""Effect: judge a challenger on the sealed test images, once, and write what was found into the ledger.

The rules are in promotion/protocol. A look at test patients (promotion/testset) is counted before their labels are
used, and a comparison that was already made (same challenger, champion, test set and protocol) is never made again: its
record is returned, or, where version or champion's term have moved on since, entered again without another look.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from components.dataset.rows import rows_sha256
from components.errors import DataError
from components.model.comparison import Sealed, holm
from components.model.evaluation import FILE, WEAK, WEAK_NOTE, Evaluation
from components.model.statistics import Estimate, auroc_of, bootstrap, percentile, rate, ratios_of
from components.params import Gate
from components.promotion import protocol
from components.promotion.decision import Check, Context, Decision, Figures, Threshold, protocol_hash
from components.promotion.ledger import Ledger
from components.promotion.standing import returned
from components.promotion.testset import Standing, look
from components.serving.bundle import Bundle

__all__ = ["Check", "Context", "Decision", "gate"]

RESAMPLES = 2000
SEED = 0
ALPHA = 0.05


def gate(
    *,
    challenger: Path,
    champion: Path | None,
    accepted: Path,
    studies: Path,
    evaluation: Path,
    params: Gate,
    ledger: Ledger,
    context: Context,
) -> Decision:
    """Compare two bundles as they would be served; return the decision, which is in the ledger by then.

    Args:
        challenger, champion: bundle folders; no champion means that the absolute floors decide.
        accepted, studies: the data the challenger was built from, its sealed test images among them.
        evaluation: the challenger's evaluation, for its slices.

    Raises:
        PromotionRefused: the look budget of these test patients is spent.
        DataError: the test set lacks a class, or the evaluation is of another bundle or test set.
        PatientLeak: a bundle learned from a test patient.
        BundleCorrupt: a bundle does not match its manifest, or a threshold in it was chosen on another role than tune.
        LedgerCorrupt: nothing is decided on a broken ledger.
    """
    bundles = [Bundle.open(folder) for folder in (challenger, champion) if folder is not None]
    whole, judged = Sealed.read(accepted), Evaluation.read(evaluation)
    if (judged.bundle_hash, judged.test_sha256) != (bundles[0].hash, whole.sha256):
        raise DataError(
            f"{evaluation}: evaluates bundle {judged.bundle_hash[:12]} on test set {judged.test_sha256[:12]}; expected "
            f"{bundles[0].hash[:12]} on {whole.sha256[:12]}; run `evaluate`"
        )
    sealed = Standing.of(ledger, context.name).fresh(whole)
    positives, retired = int(sealed.labels.sum()), len(whole.table) - len(sealed.table)
    question = {
        "name": context.name,
        "challenger_hash": bundles[0].hash,
        "champion_hash": bundles[1].hash if champion else None,
        "test_sha256": sealed.sha256,
        "protocol_sha256": protocol_hash(params),
    }
    if recorded := _recorded(ledger, question, context):
        return recorded
    number = look(ledger, question, params, sealed)
    predictions = [sealed.predict(bundle, studies) for bundle in bundles]
    figures = [_figures(sealed, bundle, p) for bundle, p in zip(bundles, predictions, strict=True)]
    ruling = protocol.enough(positives, len(sealed.table) - positives, params)
    ruling += protocol.floors(figures[0], params, first=champion is None)
    if champion is not None:
        ruling += protocol.against_champion(
            sealed.labels,
            sealed.patients,
            (predictions[0], figures[0]),
            (predictions[1], figures[1]),
            params,
            resamples=RESAMPLES,
            seed=SEED,
        )
    decision = Decision(
        **context.model_dump(),
        bundle_hash=bundles[0].hash,
        champion_hash=question["champion_hash"],
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
        retired=retired,
        look=number,
        look_budget=params.look_budget,
        challenger=figures[0],
        champion=figures[1] if champion else None,
        slices=judged.slices,
        evaluation_sha256=hashlib.sha256((evaluation / FILE).read_bytes()).hexdigest(),
        checks=ruling.checks,
        reasons=ruling.reasons or ("Every check of the protocol passed.",),
        warnings=_warnings(judged, retired),
    )
    return _enter(ledger, decision)


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
    if now != decision or overtaken or returned(ledger, same[-1].hash):
        return _enter(ledger, now)
    return now


def _enter(ledger: Ledger, decision: Decision) -> Decision:
    """Append the record, which names the one before it."""
    with ledger.locked() as chain:
        before = [e for e in ledger.entries("decision") if e.body.get("name") == decision.name]
        linked = decision.model_copy(update={"format": 2, "previous_record": before[-1].hash if before else None})
        chain.append("decision", linked.model_dump(mode="json"))
    return linked


def _warnings(found: Evaluation, retired: int) -> tuple[str, ...]:
    """What a reviewer should know of the challenger's slices: worse than the rest (Holm), or not known at all."""
    said = []
    if found.evidence == WEAK:
        said.append(WEAK_NOTE)
    if retired:
        said.append(
            f"Slices and report are of {found.images} test images; {retired} of them were retired and decide nothing."
        )
    if not found.reliability.consistent:
        said.append("Probabilities are not shown to be calibrated on the test set.")
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
    if unknown := [
        f"{s.column} {s.value} ({s.positives}/{s.images})" for s in found.slices if s.verdict == "insufficient"
    ]:
        said.append(f"Insufficient to judge (fractures/images): {', '.join(unknown)}.")
    return tuple(said)
