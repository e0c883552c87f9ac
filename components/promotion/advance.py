"""Effect: take an approved version one step on its way: into shadow, into canary, to every case, or back.

A step is one ledger entry. It is decided on what was read before the ledger's lock was taken, and entered only if the
ledger still says under the lock what it said then: so a step is taken once, whoever else is at it, and a kill leaves
either the whole step or none of it. No database is asked while the lock is held: a rollback never waits for one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from components.params import RollOut
from components.promotion import stages, standing
from components.promotion.ledger import Chain, Entry, Ledger
from components.serving.store import Comparison

log = logging.getLogger("osteoflow.promotion")

Compared = Callable[[str], Sequence[Comparison]]  # the cases that a stage has met, by the hash of its entry


def advance(
    ledger: Ledger, approval: Entry, plan: RollOut, compared: Compared, alerts: Sequence[Entry] = ()
) -> list[Entry]:
    """The entries of one step, added now; none where the version has to wait.

    The first champion has nothing to be compared with and answers every case at once. A version that is approved while
    another is on its way takes its place. While AI output is switched off no stage ends: it meets no cases. The gate's
    last word counts: a version that it has judged again since, and not passed, goes no further.

    Args:
        approval: of a version that waits; see `standing.waiting`.
        plan: for a version whose way begins now; one that is in a stage goes by the plan it began under.
        alerts: what stands against the champion. One whose inputs drifted, or that misses fractures, is no measure for
            the version that is to replace it: a way that begins under such an alert is not judged by a comparison.

    Raises:
        Unavailable: the prediction log does not answer.
        LedgerCorrupt: nothing moves on a broken ledger.
    """
    name, version = str(approval.body["name"]), int(approval.body["version"])
    found, passes = ledger.staged(name), standing.has_passed(ledger, name, version)
    # Not by approval: which one completes a decision changes when the key of an earlier signer comes to be known.
    mine = found is not None and found.body["decision_hash"] == approval.body["decision_hash"]
    seen = stages.outlook(found, compared(found.hash)) if found and mine and passes else None
    if seen and seen.verdict == "wait":
        return []
    with ledger.locked() as chain:
        if ledger.staged(name) != found or approval.hash not in {a.hash for a in standing.waiting(ledger, name)}:
            return []  # another process, or a person, was faster
        if not passes or not standing.has_passed(ledger, name, version):
            reasons = ["the gate has judged it again since, and it did not pass"]
            return [_back(chain, found, reasons, None)] if found and mine else []
        if found and seen:
            return [] if ledger.stops() else [_on(chain, ledger, found, approval, seen)]
        if found and found.body["bundle_hash"] == approval.body["bundle_hash"]:
            return []  # on its way already, by another's approval
        added = []
        if found:
            reasons = [f"version {version} was approved meanwhile and takes its place"]
            added.append(_back(chain, found, reasons, None))
        return [*added, _begin(chain, ledger, approval, *_against(plan, alerts), after=None)]


def _against(plan: RollOut, alerts: Sequence[Entry]) -> tuple[RollOut, dict[str, Any]]:
    """The plan as it goes into the ledger, and the alerts that took its comparisons out."""
    doubts = [entry.seq for entry in alerts if entry.body.get("severity") in ("warning", "critical")]
    if not doubts:
        return plan, {}
    return plan.model_copy(update={"max_contradicted": 1.0, "max_score_shift": 1.0}), {"alerts": doubts}


def _on(chain: Chain, ledger: Ledger, found: Entry, approval: Entry, seen: stages.Outlook) -> Entry:
    if seen.verdict == "back":
        return _back(chain, found, list(seen.reasons), seen.seen)
    more = {key: found.body[key] for key in ("alerts",) if key in found.body} | {"seen": seen.seen.model_dump()}
    return _begin(chain, ledger, approval, stages.plan_of(found), more, after=stages.stage_of(found))


def _begin(
    chain: Chain, ledger: Ledger, approval: Entry, plan: RollOut, more: dict[str, Any], *, after: stages.Stage | None
) -> Entry:
    """The stage after this one, or every case; `more` goes into its entry."""
    champion = ledger.champion(str(approval.body["name"]))
    stage = stages.following(plan, after) if champion else None
    if champion is None or stage is None:
        return chain.append("rollout", stages.body(approval, **more))
    against = {"champion_version": champion.body["version"], "champion_hash": champion.body["bundle_hash"]}
    return chain.append("stage", stages.body(approval, stage=stage, plan=plan.model_dump(), **against, **more))


def _back(chain: Chain, found: Entry, reasons: list[str], seen: stages.Seen | None) -> Entry:
    version, stage = found.body["version"], found.body["stage"]
    log.warning("version %s is taken back from %s: %s", version, stage, "; ".join(reasons))
    same = {key: found.body[key] for key in ("name", "version", "bundle_hash", "decision_hash", "approval_hash")}
    facts = {"stage": stage, "stage_hash": found.hash, "reasons": reasons}
    return chain.append("return", same | facts | {"seen": seen.model_dump() if seen else None})
