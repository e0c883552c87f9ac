"""Effect: the evidence of one version as a folder that anybody can check: no server, no network, no repository.

evidence.json   what is in here, with the SHA-256 of every file, signed by whoever exported it
entries.jsonl   the ledger's entries that concern the version, as the ledger has them
chain.json      the hash of every entry of the ledger, in order: where those entries stand, and that none is missing
keys.json       the public key of everybody who signed one of them, and whose words count where this was exported
decision.json   the gate's record, canonical JSON
bundle/         the release bundle
evaluation/     evaluation and report, where they are kept
code/           the commit the build was made from: parameters, lock, data pointers, tied to the commit's hash
README.md       how to check
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from components.errors import ConfigError, DataError, LedgerCorrupt
from components.gate_params import Gate
from components.promotion import audit
from components.promotion.audit import Finding, Promoted, finding
from components.promotion.commits import tied
from components.promotion.decision import EarlierProtocol, schema
from components.promotion.ledger import GENESIS, Entry, Ledger, SigningKey, canonical
from components.promotion.signing import is_signed
from components.promotion.standing import record_of
from components.promotion.words import counts, heard

INDEX = "evidence.json"
EVERYBODY = ("stop", "resume", "refresh", "repair", "role")  # entries that concern every version
LINEAGE = ("decision", "role")  # without them no signature counts
NAMING = ("bundle_hash", "challenger_hash", "champion_hash", "reference_hash", "replaced_hash")
README = """# Evidence of {name} version {version}

Check it on any machine that has Osteoflow, without network:

    osteoflow audit verify --offline THIS_FOLDER

Or by hand: `evidence.json` holds the SHA-256 of every file; its Ed25519 signature is over the SHA-256 of its own
canonical JSON (sorted keys, no spaces) without `signature`. Each line of `entries.jsonl` is one ledger entry: its
`hash` is the SHA-256 of its canonical JSON without `hash` and `signature`, stands at position `seq` of `chain.json`,
and `previous` at the position before; its signature is over the hash. The bundle's identity is the SHA-256 of
`bundle/manifest.json`, which holds the SHA-256 of every part. `code/commit`, `code/tree` and `code/trees` are git's
own objects.

A signature proves possession of a key. Compare the public keys in `keys.json` with those their owners state.
"""


class Index(BaseModel):
    """evidence.json. `entries` and `head`: how long the ledger was, and the hash of its last entry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(ge=1, le=1)
    name: str
    version: int
    bundle_hash: str
    git_commit: str
    exported: str
    entries: int
    head: str
    files: dict[str, str]
    signer: str
    public_key: str
    signature: str = ""

    def digest(self) -> str:
        """What is signed."""
        return hashlib.sha256(canonical(self.model_dump(exclude={"signature"}))).hexdigest()


def export(
    *,
    ledger: Ledger,
    name: str,
    version: int,
    bundles: Path,
    evaluation: Path,
    code: Callable[[str], Mapping[str, bytes]],
    to: Path,
    key: SigningKey,
) -> Index:
    """Write the evidence of a judged version into the new folder `to`.

    Args:
        bundles: where bundles lie, by hash.
        evaluation: the version's evaluation; left out where it is no longer kept.
        code: git commit -> path below `code/` -> content.
        key: signs the index.

    Raises:
        ConfigError: the folder exists, or the gate never judged this version.
        BundleCorrupt, LedgerCorrupt, DataError: what would be exported does not verify.
    """
    if to.exists():
        raise ConfigError(f"{to}: exists already; name a new folder")
    entries = ledger.whole()
    decision = _decision(ledger.entries(), name, version)
    bundle_hash, commit = str(decision.body["bundle_hash"]), str(decision.body["git_commit"])
    audit.bundle(bundles / bundle_hash, bundle_hash)
    chosen = [e for e in entries if _concerns(e, name, version, bundle_hash)]
    keys = {e.signer: e.public_key for e in chosen if e.signer and ledger.knows(e.signer, e.public_key)}
    if keys.setdefault(key.name, key.public_key) != key.public_key:
        raise ConfigError(f"{key.name!r} signed the ledger with another key; export under a name of your own (--as)")
    texts = {
        "entries.jsonl": b"".join(canonical(e.model_dump()) + b"\n" for e in chosen),
        "chain.json": canonical([e.hash for e in entries]) + b"\n",
        "keys.json": canonical(keys) + b"\n",
        "decision.json": canonical(decision.body) + b"\n",
        "decision.schema.json": canonical(schema()) + b"\n",
        "README.md": README.format(name=name, version=version).encode(),
    }
    draft = to.with_name(f".{to.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    for path, content in (texts | {f"code/{p}": c for p, c in code(commit).items()}).items():
        (draft / path).parent.mkdir(parents=True, exist_ok=True)
        (draft / path).write_bytes(content)
    shutil.copytree(bundles / bundle_hash, draft / "bundle")
    if evaluation.is_dir():
        shutil.copytree(evaluation, draft / "evaluation")
    index = Index(
        format=1,
        name=name,
        version=version,
        bundle_hash=bundle_hash,
        git_commit=commit,
        exported=datetime.now(UTC).isoformat(timespec="seconds"),
        entries=len(entries),
        head=entries[-1].hash,
        files=_hashes(draft),
        signer=key.name,
        public_key=key.public_key,
    )
    index = index.model_copy(update={"signature": key.sign(index.digest())})
    (draft / INDEX).write_bytes(canonical(index.model_dump()) + b"\n")
    draft.rename(to)
    return index


def verify(folder: Path) -> audit.Findings:
    """Check an evidence folder by itself.

    Raises:
        DataError: there is no readable evidence.json, or its signature is not valid: nothing in the folder counts then.
    """
    index = _index(folder)
    who = f"signed by {index.signer!r}, key {index.public_key}"
    findings = [Finding(what=INDEX, well=True, detail=f"{index.name} version {index.version}, {who}")]
    findings += _files(folder, index)
    if all(f.well for f in findings):  # an altered file is named once, above
        findings += [finding(what, check) for what, check in _checks(folder, index).items()]
    if all(f.well for f in findings):
        findings += _lineage(folder, index)
    return audit.Findings(findings=tuple(findings))


def _index(folder: Path) -> Index:
    path = folder / INDEX
    try:
        raw = path.read_bytes()
        index = Index.model_validate_json(raw)
    except (OSError, ValidationError):
        raise DataError(f"{path}: missing or damaged; this is no evidence folder") from None
    if canonical(index.model_dump()) + b"\n" != raw:
        raise DataError(f"{path}: not in canonical form: it was altered")
    if not is_signed(index.digest(), public_key=index.public_key, signature=index.signature):
        raise DataError(f"{path}: the signature of {index.signer!r} is not valid: it was altered")
    return index


def _files(folder: Path, index: Index) -> list[Finding]:
    found = _hashes(folder)
    found.pop(INDEX, None)
    wrong = [(name, "missing") for name in sorted(index.files.keys() - found.keys())]
    wrong += [(name, "nobody exported this") for name in sorted(found.keys() - index.files.keys())]
    both = sorted(found.keys() & index.files.keys())
    wrong += [(name, "altered") for name in both if found[name] != index.files[name]]
    if not wrong:
        return [Finding(what="files", well=True, detail=f"{len(found)} files, each as it was exported")]
    return [Finding(what=name, well=False, detail=detail) for name, detail in wrong]


def _checks(folder: Path, index: Index) -> dict[str, Callable[[], str]]:
    """Beyond the index: every claim in the folder against the hash that the ledger holds."""

    def chain() -> str:
        chain, entries = _json(folder / "chain.json"), _entries(folder)
        if len(chain) != index.entries or chain[-1] != index.head:
            raise LedgerCorrupt(f"chain.json: {len(chain)} entries where {index.entries} were exported")
        for entry in entries:
            _in_place(entry, chain)
        signed = sum(entry.signature is not None for entry in entries)
        return f"{len(entries)} of the ledger's {len(chain)} entries in place, {signed} of them signed"

    def decision() -> str:
        record = _decision(_heard(folder), index.name, index.version)
        audit.same("decision.json", (folder / "decision.json").read_bytes(), _sha256(canonical(record.body) + b"\n"))
        return audit.record(record)

    def evaluation() -> str:
        path = folder / "evaluation" / "evaluation.json"
        if not path.is_file():
            return "not kept where this was exported"
        record, judged = _json(folder / "decision.json"), _json(path)
        if record.get("evaluation_sha256"):
            audit.same("evaluation.json", path.read_bytes(), record["evaluation_sha256"])
            return "the one that was decided on"
        for fact in ("bundle_hash", "test_sha256"):
            if judged[fact] != record[fact]:
                raise DataError(f"evaluation.json: {fact} {judged[fact][:12]}, the decision states {record[fact][:12]}")
        return "of this bundle, on the test set of the decision"

    def code() -> str:
        record, files = _json(folder / "decision.json"), tied(folder / "code", index.git_commit)
        audit.same("uv.lock", files["uv.lock"], record["lock_sha256"])
        params = yaml.safe_load(files["params.yaml"])
        if _gate(params["gate"]) != _gate(record["protocol"]):
            raise DataError("params.yaml: its gate is not the protocol of the decision")
        names = [f"{params['paths'][folder]}.dvc" for folder in ("studies", "labels")]
        data = pointers({name: files[name] for name in names if name in files})
        audit.same("data pointers", data, record["data_sha256"])
        return f"{index.git_commit[:12]} has this lock, this protocol and these data pointers"

    return {
        "chain": chain,
        "decision": decision,
        "bundle": lambda: audit.bundle(folder / "bundle", index.bundle_hash),
        "evaluation": evaluation,
        "code and data": code,
    }


def pointers(contents: Mapping[str, bytes]) -> bytes:
    """What `data_sha256` is the hash of: the data pointers by name, in the order given (images, then labels)."""
    return "".join(f"{name}:{_sha256(content)}\n" for name, content in contents.items()).encode()


def artifact(record: bytes) -> str:
    """The name that a decision record has among the registry's artifacts: one judged again replaces none."""
    return f"decision-{_sha256(record)[:12]}.json"


def _lineage(folder: Path, index: Index) -> Iterator[Finding]:
    """How the version went out, be it silently, where it did; and whose words are no part of that."""
    keys = _json(folder / "keys.json")
    unheard = [e for e in _entries(folder) if not counts(e, keys.get)]
    yield from (Finding(what=f"entry {e.seq}: signer", well=False, detail=audit.of_stranger(e)) for e in unheard)
    entries = [e for e in _heard(folder) if e.body.get("bundle_hash") == index.bundle_hash or e.kind in LINEAGE]
    found = list(audit.promoted(entries, index.name))
    yield from (f for f in found if isinstance(f, Finding))
    for way in (f for f in found if isinstance(f, Promoted)):
        said = f"decision {way.decision.seq}, approval {way.approval.seq} by {way.approval.signer!r}, in this order"
        yield Finding(what=f"version {way.version}: way up", well=True, detail=said)
    yield from audit.reproduced(entries, index.bundle_hash)
    if not found:
        yield Finding(what="way up", well=True, detail="this version never was champion")


def _in_place(entry: Entry, chain: list[str]) -> None:
    where = f"entries.jsonl: ledger entry {entry.seq} ({entry.kind})"
    if entry.hash != entry.digest() or not entry.seq < len(chain) or chain[entry.seq] != entry.hash:
        raise LedgerCorrupt(f"{where}: does not stand in the chain")
    if entry.previous != (chain[entry.seq - 1] if entry.seq else GENESIS):
        raise LedgerCorrupt(f"{where}: does not follow the entry before it")
    if (entry.signer is None) != (entry.signature is None):
        raise LedgerCorrupt(f"{where}: signer without signature")
    signature = {"public_key": entry.public_key or "", "signature": entry.signature or ""}
    if entry.signer is not None and not is_signed(entry.hash, **signature):
        raise LedgerCorrupt(f"{where}: the signature of {entry.signer!r} is not valid")


def _decision(entries: Iterable[Entry], name: str, version: int) -> Entry:
    """The record that counts."""
    found = record_of(entries, name, version)
    if found is None:
        raise ConfigError(f"{name}: the gate never judged a version {version}; `osteoflow models` lists them")
    return found


def _concerns(entry: Entry, name: str, version: int, bundle_hash: str) -> bool:
    body = entry.body
    named = (body.get("name"), body.get("version")) == (name, version)
    return entry.kind in EVERYBODY or named or any(body.get(key) == bundle_hash for key in NAMING)


def _gate(protocol: Any) -> Gate | EarlierProtocol:
    try:
        return TypeAdapter[Gate | EarlierProtocol](Gate | EarlierProtocol).validate_python(protocol)
    except ValidationError:
        raise DataError("params.yaml or the decision: its gate is no protocol of this version") from None


def _entries(folder: Path) -> list[Entry]:
    try:
        return [Entry.model_validate_json(line) for line in (folder / "entries.jsonl").read_bytes().splitlines()]
    except (OSError, ValidationError):
        raise LedgerCorrupt("entries.jsonl: not ledger entries") from None


def _heard(folder: Path) -> list[Entry]:
    """The exported entries without the words of those whose key is not among the exported ones."""
    keys: dict[str, str] = _json(folder / "keys.json")
    return list(heard(_entries(folder), keys.get))


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in files}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise DataError(f"{path.name}: missing or not JSON") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
