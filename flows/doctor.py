"""What could be wrong with this workspace, and what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

from pydantic import BaseModel

from components.errors import OsteoflowError
from components.promotion.audit import of_stranger
from components.promotion.roles import Roll
from components.promotion.signers import lacking, roles_to_sign
from components.settings import Settings
from flows import clients
from flows.environment import NO_TELEMETRY
from flows.halves import halves

FREE_BYTES = 5 * 2**30


class Finding(BaseModel):
    """One check: what was looked at, whether it is well, and what was seen or should be done."""

    check: str
    well: bool
    detail: str


class Report(BaseModel):
    """Every finding, in the order of looking."""

    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        return all(finding.well for finding in self.findings)

    def text(self) -> str:
        """A line a finding."""
        return "\n".join(f"{'ok  ' if f.well else 'FIX '} {f.check:<12} {f.detail}" for f in self.findings)


def repair(settings: Settings) -> list[str]:
    """Mend every half state that can be mended safely, one writer at a time; say what was mended.

    Raises:
        Unavailable: another writer is at work, or the remote does not answer.
    """
    mended = []
    with clients.workspace(settings).writing():
        for half in halves(settings):
            if half.mend:
                half.mend()
                mended.append(half.what)
    return mended


def examine(settings: Settings) -> Report:
    """Run every check; a check that raises one of our errors is a finding, not a crash."""
    return Report(findings=list(_findings(settings)))


def _findings(settings: Settings) -> Iterator[Finding]:
    checks: dict[str, Callable[[Settings], str]] = {
        "parameters": _parameters,
        "repository": _repository,
        "archive": _archive,
        "keys": _keys,
        "ledger": _ledger,
        "people": _people,
        "registry": _registry,
        "champion": _champion,
        "predictions": _predictions,
        "disk": _disk,
        "telemetry": _telemetry,
    }
    for name, check in checks.items():
        try:
            yield Finding(check=name, well=True, detail=check(settings))
        except OsteoflowError as error:
            yield Finding(check=name, well=False, detail=str(error))


def _parameters(settings: Settings) -> str:
    params = clients.params(settings)
    return f"params.yaml reads well; the model is {params.gate.model}, backbone {params.train.backbone}"


def _repository(settings: Settings) -> str:
    home = clients.workspace(settings)
    return f"{home.root} at {home.head()[:12]}; data remote {home.remote}"


def _archive(settings: Settings) -> str:
    if clients.workspace(settings).busy():
        return "a writer is at work here; look again when it is done"
    if found := halves(settings):
        hint = "; `osteoflow doctor --repair` mends it" if any(half.mend for half in found) else ""
        raise OsteoflowError(" / ".join(half.what for half in found) + hint)
    return "no run left anything half-done"


def _keys(settings: Settings) -> str:
    clients.pseudonyms(settings)
    return f"pseudonym key in {settings.key_dir}, readable by its owner alone"


def _ledger(settings: Settings) -> str:
    ledger = clients.ledger(settings)
    count = ledger.verify()
    if unheard := ledger.strangers():
        raise OsteoflowError(" / ".join(map(of_stranger, unheard)))
    return f"{count} entries, chain and signatures verify"


def _people(settings: Settings) -> str:
    roll, needed = Roll(clients.ledger(settings).entries()), clients.params(settings).gate.signers
    if not roll:
        return "nobody has a role yet: on this machine any name but the proposer's may approve"
    reviewers = roll.holders("reviewer")
    missing = lacking(needed, [roles_to_sign(needed, roll, person) for person in roll.people()])
    if missing:
        short = ", ".join(f"{role} ({many} more)" for role, many in missing.items())
        raise OsteoflowError(
            f"gate.signers asks for {needed.text()}, and too few are named: {short}; run `osteoflow users add NAME "
            "--role ROLE`"
        )
    return f"{len(reviewers)} reviewer(s); {needed.text()} must sign a decision"


def _registry(settings: Settings) -> str:
    versions = clients.registry(settings).versions(clients.params(settings).gate.model)
    return f"{len(versions)} version(s) registered"


def _champion(settings: Settings) -> str:
    from components.serving.bundle import Bundle

    entry = clients.ledger(settings).champion(clients.params(settings).gate.model)
    if entry is None:
        return "no model is approved yet: `osteoflow retrain`, then `osteoflow approve`"
    bundle_hash = entry.body["bundle_hash"]
    Bundle.open(settings.state / "bundles" / bundle_hash, expected_hash=bundle_hash)
    off = clients.still_off(settings)
    return f"version {entry.body['version']} opens and matches the ledger ({bundle_hash[:12]}){off and ';'}{off}"


def _predictions(settings: Settings) -> str:
    predictions, _ = clients.prediction_log(settings).count()
    return f"{predictions} prediction(s) logged"


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.workspace).free
    if free < FREE_BYTES:
        raise OsteoflowError(f"{free / 2**30:.1f} GiB free where {FREE_BYTES / 2**30:.0f} are wanted; make room")
    return f"{free / 2**30:.0f} GiB free"


def _telemetry(_settings: Settings) -> str:
    loud = [name for name, value in NO_TELEMETRY.items() if os.environ.get(name) != value]
    if loud:
        raise OsteoflowError(f"{', '.join(loud)} not set; start through `osteoflow`")
    return "off in every dependency"
