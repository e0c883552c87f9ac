"""What stands behind every promoted version, checked where it lies: ledger, bundles, registry, commits, data."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from components.errors import DataError, LedgerCorrupt
from components.promotion import audit, evidence
from components.promotion.audit import Finding, Promoted, finding
from components.promotion.ledger import Ledger, canonical
from components.promotion.registry import Registry
from components.settings import Settings
from components.workspace import Workspace
from flows import clients
from flows.builds import pointers_of

CODE = ("params.yaml", "uv.lock", "dvc.lock")


def verify(settings: Settings, *, data: bool) -> audit.Findings:
    """Check the ledger, and of every version that was ever rolled out: record, bundle, registry, code and data.

    Args:
        data: read every byte of the data versions too, not their pointers alone.
    """
    ledger = clients.ledger(settings)
    checked = finding("ledger", lambda: _ledger(ledger))
    if not checked.well:  # nothing that a damaged ledger says can be followed
        return audit.Findings(findings=(checked,))
    return audit.Findings(findings=(checked, *_versions(settings, ledger, data)))


def export(settings: Settings, version: int, to: Path) -> evidence.Index:
    """Write the evidence of a version; see `components/promotion/evidence.py`."""
    name, home = clients.params(settings).gate.model, clients.workspace(settings)

    def code(commit: str) -> dict[str, bytes]:
        files = {path: home.text(commit, path) for path in CODE} | _pointers(home, commit)
        return home.proof(commit, files) | {f"files/{path}": content for path, content in files.items()}

    return evidence.export(
        ledger=clients.ledger(settings),
        name=name,
        version=version,
        bundles=settings.state / "bundles",
        evaluation=settings.state / "reports" / f"{name}-v{version}",
        code=code,
        to=to,
        key=clients.signing_key(settings, settings.user),
    )


def _ledger(ledger: Ledger) -> str:
    return f"{ledger.verify()} entries; the chain, every signature and the witnessed end verify"


def _versions(settings: Settings, ledger: Ledger, data: bool) -> Iterator[Finding]:
    name, home, registry = clients.params(settings).gate.model, clients.workspace(settings), clients.registry(settings)
    yield from (
        Finding(what=f"entry {word.seq}: signer", well=False, detail=audit.of_stranger(word))
        for word in ledger.strangers()
    )
    yield finding("records", lambda: audit.records(ledger.entries()))
    yield finding("registry", lambda: _seen_by(registry, name, ledger))
    found = list(audit.promoted(ledger.entries(), name))
    yield from (f for f in found if isinstance(f, Finding))
    ways = [f for f in found if isinstance(f, Promoted)]
    commits = {str(way.decision.body.get("git_commit")) for way in ways}
    yield finding("repository", lambda: f"git rehashed every object; {home.intact(commits)} promoted commit(s) in it")
    for way in ways:
        what, folder = f"version {way.version}: ", settings.state / "bundles" / way.bundle_hash
        yield finding(f"{what}record", lambda w=way: audit.record(w.decision))  # type: ignore[misc]
        yield finding(f"{what}bundle", lambda w=way, f=folder: audit.bundle(f, w.bundle_hash))  # type: ignore[misc]
        yield finding(f"{what}registry", lambda w=way: _registry(registry, name, w))  # type: ignore[misc]
        yield finding(f"{what}code", lambda w=way: _code(home, w))  # type: ignore[misc]
        yield finding(f"{what}data", lambda w=way: _data(home, w, data))  # type: ignore[misc]
        yield from audit.reproduced(ledger.entries(), way.bundle_hash)


def _seen_by(registry: Registry, name: str, ledger: Ledger) -> str:
    """Every version's tag says how far the ledger had come when it was judged: a second witness of its end."""
    hashes = [entry.hash for entry in ledger.whole()]
    heads = [version.ledger_head.split(" ") for version in registry.versions(name) if version.ledger_head]
    for seq, digest in heads:
        if int(seq) >= len(hashes) or hashes[int(seq)] != digest:
            raise LedgerCorrupt(f"the registry saw ledger entry {seq}, which is gone or another one now")
    return f"{len(heads)} version(s) remember the ledger as it is"


def _registry(registry: Registry, name: str, way: Promoted) -> str:
    """What the registry says and holds is what was decided."""
    version = registry.version(name, way.version)
    for fact in ("bundle_hash", "git_commit", "data_sha256", "proposer"):
        if (found := getattr(version, fact)) != (stated := way.decision.body.get(fact)):
            raise DataError(f"the registry's {fact} is {found}, the decision states {stated}")
    if way.decision.body.get("format") not in (None, 1):
        said = canonical(way.decision.body)
        kept = registry.text(name, way.version, evidence.artifact(said)).encode()
        audit.same("the registry's decision record", kept, hashlib.sha256(said).hexdigest())
    with tempfile.TemporaryDirectory() as folder:
        place = registry.download_bundle(name, way.version, Path(folder) / "bundle")
        audit.bundle(place, way.bundle_hash)
    return "tags, record and bundle are those of the decision"


def _code(home: Workspace, way: Promoted) -> str:
    commit = str(way.decision.body["git_commit"])
    lock = audit.same(f"uv.lock of {commit[:12]}", home.text(commit, "uv.lock"), way.decision.body["lock_sha256"])
    return f"{commit[:12]} has lock {lock[:12]}"


def _data(home: Workspace, way: Promoted, whole: bool) -> str:
    commit = str(way.decision.body["git_commit"])
    pointers = _pointers(home, commit)
    stated = way.decision.body["data_sha256"]
    audit.same(f"data pointers of {commit[:12]}", evidence.pointers(pointers), stated)
    if not whole:
        return f"{len(pointers)} pointer(s) as decided on; `--data` reads the bytes too"
    listed = [home.pointer(commit, name) for name in pointers]
    sums = [md5 for pointer in listed for md5 in (pointer.md5, *home.listing(pointer).values()) if md5]
    for md5 in sums:
        path = home.stored(md5)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5.removesuffix(".dir"):
            raise DataError(f"{path}: MD5 {found[:12]}, the data version states {md5[:12]}")
    return f"{len(sums)} files as decided on, every byte read"


def _pointers(home: Workspace, commit: str) -> dict[str, bytes]:
    """The data pointers that `commit` has, by name."""
    present = {}
    for name in pointers_of(home):
        with suppress(DataError):  # this commit has no such pointer
            present[name] = home.text(commit, name)
    return present
