"""How a build is made, and what it is called in registry, ledger and gate: hashes of what went in, and its report."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from components.dataset.retirements import read_retirements
from components.dataset.withdrawals import read_withdrawals
from components.errors import DataError
from components.model.mistakes import FILE as ERRORS
from components.params import load
from components.promotion.evidence import artifact, pointers
from components.promotion.gate import Context, Decision
from components.promotion.ledger import Ledger
from components.promotion.register import Build
from components.promotion.registry import PREFIX, Registry
from components.promotion.testset import require_same
from components.promotion.withdraw import unheeded
from components.workspace import Workspace

WANTED = "components.dataset.wanted"


def reproduce(build: Workspace) -> str:
    """Run every stage whose inputs changed, push what they made, commit dvc.lock; return that commit."""
    make(build)
    return build.lock()


def heed(build: Workspace, ledger: Ledger) -> None:
    """Refuse a revision that would judge a model on test patients whom a refresh has retired, or use withdrawn images.

    Raises:
        DataError: it is older than that refresh or withdrawal, or of another branch, or a killed run left a log behind.
    """
    heed_withdrawals(build, ledger)
    require_same(ledger, read_retirements(build.root / load(build.root / "params.yaml").paths.retirements))


def heed_withdrawals(build: Workspace, ledger: Ledger) -> None:
    """Refuse a revision that would use images of patients whose withdrawal is on record.

    Raises:
        DataError: as for `heed`.
    """
    if not ledger.entries("withdrawal"):
        return
    paths = load(build.root / "params.yaml").paths
    if missing := unheeded(ledger, read_withdrawals(build.root / paths.withdrawals)):
        raise DataError(
            f"{build.head()[:12]} does not know of {len(missing)} withdrawn patient(s), and would use their images: "
            "run `osteoflow doctor --repair` and build a commit after it"
        )


def make(build: Workspace, *stages: str) -> None:
    """Run the stages whose inputs changed, all or those that lead to `stages`.

    Of the archive's pixels only those shards are fetched that a step has to look into: new ones, to be measured and
    shrunk, and, where it comes to evaluation, those that hold sealed test images. What training sees is small and
    was made when its images came in.
    """
    paths = load(build.root / "params.yaml").paths
    build.restore([paths.labels, paths.catalog])
    build.fetch(paths.studies, wanted(build, "new"))
    if not stages:
        build.make("validate")  # which images are tested is known only now
        build.fetch(paths.studies, wanted(build, "sealed"))
    build.make(*stages)


def wanted(build: Workspace, what: str) -> list[str]:
    """The shards of pixels that steps of this build look into: those that are "new", or the "sealed" test images'."""
    return [line for line in build.ask(WANTED, what) if line.endswith(".parquet")]  # not what a library may say


def record_of(build: Workspace, commit: str, wall_seconds: float) -> Build:
    """The build as the registry knows it; the same data, parameters and code make the same key."""
    return Build(
        key=build.sha256("dvc.lock"),
        git_commit=commit,
        folder=build.root,
        lock_sha256=build.sha256("uv.lock"),
        data_sha256=_data(build),
        wall_seconds=wall_seconds,
    )


def context_of(build: Workspace, commit: str, name: str, version: int, proposer: str, ledger: Ledger) -> Context:
    """The circumstances a decision record states."""
    champion = ledger.champion(name)
    return Context(
        name=name,
        version=version,
        champion_version=int(champion.body["version"]) if champion else None,
        proposer=proposer,
        git_commit=commit,
        lock_sha256=build.sha256("uv.lock"),
        data_sha256=_data(build),
    )


def describe(
    registry: Registry, name: str, version: int, decision: Decision, evaluation: Path, state: Path, ledger: Ledger
) -> Path:
    """Put the verdict where the reviewer reads it (the version's page), and the report where it stays.

    The page also keeps how far the ledger has come: a second witness, on the registry's machine.

    Returns:
        The folder with the version's report.
    """
    registry.describe(name, version, decision.markdown())
    registry.tag(name, version, f"{PREFIX}verdict", decision.verdict)
    record = decision.encode()
    registry.keep(name, version, artifact(record), record.decode())
    last = ledger.whole()[-1]
    registry.tag(name, version, f"{PREFIX}ledger_head", f"{last.seq} {last.hash}")
    return keep_report(evaluation, state / "reports" / f"{name}-v{version}")


def keep_report(evaluation: Path, kept: Path) -> Path:
    """Copy a report to where a person goes through its errors.csv: one that stands is never written again."""
    edited = shutil.ignore_patterns(ERRORS) if (kept / ERRORS).exists() else None
    return Path(shutil.copytree(evaluation, kept, ignore=edited, dirs_exist_ok=True))


def _data(build: Workspace) -> str:
    names = [name for name in pointers_of(build) if (build.root / name).is_file()]
    return hashlib.sha256(pointers({name: (build.root / name).read_bytes() for name in names})).hexdigest()


def pointers_of(home: Workspace) -> list[str]:
    """The data pointers that a build states the hash of."""
    paths = load(home.root / "params.yaml").paths
    return [f"{folder}.dvc" for folder in (paths.studies, paths.labels)]
