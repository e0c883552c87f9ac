"""Effect: take an approved version one step on its way: into shadow, into canary, to every case, or back.

A step is one ledger entry. It is decided on what was read before the ledger's lock was taken, and entered only if the
ledger still says under the lock what it said then: so a step is taken once, whoever else is at it, and a kill leaves
either the whole step or none of it. No database is asked while the lock is held: a rollback never waits for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from components.params import RollOut
from components.promotion import stages, standing
from components.promotion.ledger import Chain, Entry, Ledger
from components.serving.store import Comparison

Compared = Callable[[str], Sequence[Comparison]]  # the cases that a stage has met, by the hash of its entry


def advance(ledger: Ledger, approval: Entry, plan: RollOut, compared: Compared) -> list[Entry]:
    """The entries of one step, added now; none where the version has to wait.

    The first champion has nothing to be compared with and answers every case at once. A version that is approved while
    another is on its way takes its place. While AI output is switched off no stage ends: it meets no cases.

    Args:
        approval: of a version that waits; see `standing.waiting`.
        plan: for a version whose way begins now; one that is in a stage goes by the plan it began under.

    Raises:
        Unavailable: the prediction log does not answer.
        LedgerCorrupt: nothing moves on a broken ledger.
    """
    name = str(approval.body["name"])
    found = ledger.staged(name)
    mine = found is not None and found.body["approval_hash"] == approval.hash
    seen = stages.outlook(found, compared(found.hash)) if found and mine else None
    if seen and seen.verdict == "wait":
        return []
    with ledger.locked() as chain:
        if ledger.staged(name) != found or approval.hash not in {a.hash for a in standing.waiting(ledger, name)}:
            return []  # another process, or a person, was faster
        if found and seen:
            return [] if ledger.stops() else [_on(chain, ledger, found, approval, seen)]
        if found and found.body["bundle_hash"] == approval.body["bundle_hash"]:
            return []  # on its way already, by another's approval
        added = []
        if found:
            version = approval.body["version"]
            reasons = [f"version {version} was approved meanwhile and takes its place"]
            added.append(_back(chain, found, reasons, None))
        return [*added, _begin(chain, ledger, approval, plan, None, None)]


def _on(chain: Chain, ledger: Ledger, found: Entry, approval: Entry, seen: stages.Outlook) -> Entry:
    if seen.verdict == "back":
        return _back(chain, found, list(seen.reasons), seen.seen)
    return _begin(chain, ledger, approval, stages.plan_of(found), stages.stage_of(found), seen.seen)


def _begin(
    chain: Chain,
    ledger: Ledger,
    approval: Entry,
    plan: RollOut,
    after: stages.Stage | None,
    seen: stages.Seen | None,
) -> Entry:
    """The next stage, or every case, with the figures of the stage before."""
    champion = ledger.champion(str(approval.body["name"]))
    stage = stages.following(plan, after) if champion else None
    figures = {"seen": seen.model_dump()} if seen else {}
    if champion is None or stage is None:
        return chain.append("rollout", stages.body(approval, **figures))
    against = {"champion_version": champion.body["version"], "champion_hash": champion.body["bundle_hash"]}
    return chain.append("stage", stages.body(approval, stage=stage, plan=plan.model_dump(), **against, **figures))


def _back(chain: Chain, found: Entry, reasons: list[str], seen: stages.Seen | None) -> Entry:
    same = {key: found.body[key] for key in ("name", "version", "bundle_hash", "decision_hash", "approval_hash")}
    facts = {"stage": found.body["stage"], "stage_hash": found.hash, "reasons": reasons}
    return chain.append("return", same | facts | {"seen": seen.model_dump() if seen else None})
