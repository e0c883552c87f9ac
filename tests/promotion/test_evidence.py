"""The evidence folder: it verifies anywhere, and nothing in it can be changed unseen."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import BundleCorrupt, ConfigError, DataError
from components.promotion.evidence import export, pointers, verify
from components.promotion.ledger import Ledger, SigningKey
from components.workspace import Workspace
from tests.promotion.builds import make
from tests.promotion.conftest import NAME, REPOSITORY

FILES = {"uv.lock": "locked\n", "dvc.lock": "schema: '2.0'\n", "data/studies.dvc": "outs: []\n", 'data/"é".txt': "x\n"}


@pytest.fixture(scope="module")
def house(tmp_path_factory, record):
    """A repository, a ledger with two versions and a stop, and what `export` is told of version 1."""
    folder = tmp_path_factory.mktemp("house")
    root, bundle = folder / "repository", make(folder, "one").bundle
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy(REPOSITORY / "params.yaml", root)
    for command in ["init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm build"]:
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    home = Workspace(root, folder / "state", str(folder / "remote"), "a")
    home.state.mkdir()
    commit, paths = home.head(), ("params.yaml", "uv.lock", "dvc.lock", "data/studies.dvc")
    ledger, key = Ledger(folder / "ledger.jsonl"), SigningKey.open(folder / "keys", "reviewer")
    found = make_hash(bundle)
    (folder / "bundles").mkdir()
    shutil.copytree(bundle, folder / "bundles" / found)
    facts = {"git_commit": commit, "lock_sha256": sha256(FILES["uv.lock"].encode())}
    facts["data_sha256"] = sha256(pointers({"data/studies.dvc": FILES["data/studies.dvc"].encode()}))
    for version, bundle_hash in ((1, found), (2, "2" * 64)):
        named = {"name": NAME, "version": version, "bundle_hash": bundle_hash}
        ledger.append("look", {"name": NAME, "challenger_hash": bundle_hash, "look": version, "budget": 10})
        decision = ledger.append("decision", record(**named, **facts))
        approval = ledger.append("approval", named | {"decision_hash": decision.hash, "rationale": "größer"}, key=key)
        ledger.append("rollout", named | {"approval_hash": approval.hash})
        ledger.append("feedback", {"settled": 5})
    ledger.append("stop", {"reason": "misses hips"}, key=key)
    ledger.append("role", {"person": "reviewer", "roles": [], "user": "reviewer"}, key=key)
    ledger.append("reproduction", again(found, 1, "within tolerance"))
    ledger.append("reproduction", again("2" * 64, 2, "differs"))
    evaluation = folder / "evaluation"
    evaluation.mkdir()
    judged = {"bundle_hash": found, "test_sha256": "7" * 64}
    (evaluation / "evaluation.json").write_text(json.dumps(judged))

    def code(commit):
        return home.proof(commit, paths) | {f"files/{path}": home.text(commit, path) for path in paths}

    return {
        "ledger": ledger, "name": NAME, "bundles": folder / "bundles", "evaluation": evaluation, "code": code,
        "key": SigningKey.open(folder / "keys", "auditor"),
    }  # fmt: skip


def again(bundle_hash: str, version: int, verdict: str) -> dict:
    """What the ledger keeps of a version that was built again."""
    return {
        "name": NAME, "version": version, "bundle_hash": bundle_hash, "verdict": verdict,
        "first_difference": "weights", "largest_difference": {"figure": "auroc", "is": 0.0123}, "tolerance": 0.02,
        "machine": "Linux x86_64, 2 processors",
    }  # fmt: skip


def make_hash(bundle) -> str:
    return sha256((bundle / "manifest.json").read_bytes())


def sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def exported(house, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "evidence"
    export(**house, version=1, to=folder)
    return folder


def bad(folder):
    """What does not hold, by name."""
    return {finding.what: finding.detail for finding in verify(folder).findings if not finding.well}


def test_an_export_verifies_by_itself(exported):
    """Index, files, chain, decision, bundle, evaluation, code and data, way up."""
    found = verify(exported)

    assert found.well, found.text()
    assert [finding.what for finding in found.findings] == [
        "evidence.json", "files", "chain", "decision", "bundle", "evaluation", "code and data", "version 1: way up",
        "version 1: built again",
    ]  # fmt: skip
    assert (
        "the last time within tolerance, from weights on, auroc by 0.0123, tolerance 0.02 (Linux x86_64" in found.text()
    )
    assert "7 of the ledger's 14 entries in place, 3 of them signed" in found.text()
    assert "decision 1, approval 2 by 'reviewer', in this order" in found.text()


def test_it_holds_what_concerns_the_version_and_the_hash_of_the_rest(exported, house):
    """Another version's decision and the feedback stay at home; that they exist, and where, is in the chain."""
    lines = [json.loads(line) for line in (exported / "entries.jsonl").read_text().splitlines()]

    assert [(line["seq"], line["kind"]) for line in lines] == [
        (0, "look"), (1, "decision"), (2, "approval"), (3, "rollout"), (10, "stop"), (11, "role"),
        (12, "reproduction"),
    ]  # fmt: skip
    assert json.loads((exported / "chain.json").read_text()) == [entry.hash for entry in house["ledger"].entries()]
    assert set(json.loads((exported / "keys.json").read_text())) == {"reviewer", "auditor"}


def test_whose_key_the_site_does_not_know_is_named_wherever_the_folder_goes(house, tmp_path):
    """Their entries travel, their keys do not: what they approved has no way up."""
    site = Ledger(house["ledger"].path, key_dir=tmp_path / "keys")
    export(**(house | {"ledger": site}), version=1, to=tmp_path / "evidence")
    found = bad(tmp_path / "evidence")

    assert set(json.loads((tmp_path / "evidence" / "keys.json").read_text())) == {"auditor"}
    assert found["entry 2: signer"].startswith("ledger entry 2 (approval): 'reviewer' signed with a key that")
    assert found["version 1: way up"] == "ledger entry 3 (rollout): no approval of its hash"


@settings(max_examples=150, deadline=None)
@given(which=st.integers(0), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found_and_named(exported, which, place, bit):
    """Property: one bit of any file; the finding is called by the file."""
    files = sorted(path for path in exported.rglob("*") if path.is_file())
    path = files[which % len(files)]
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    try:
        if path.name == "evidence.json":
            with pytest.raises(DataError, match=r"evidence\.json: (missing or damaged|not in canonical|the signature)"):
                verify(exported)
        else:
            assert bad(exported) == {path.relative_to(exported).as_posix(): "altered"}
    finally:
        path.write_bytes(whole)


def test_a_protocol_of_an_earlier_record_is_compared_as_it_stands():
    """Versions that were judged before the protocol grew keep evidence that verifies."""
    from components.promotion.evidence import _gate

    protocol = json.loads((REPOSITORY / "tests/promotion/decision-2.json").read_text())["protocol"]
    assert _gate(protocol) != _gate(protocol | {"margin": 0.5})
    with pytest.raises(DataError, match="is no protocol of this version"):
        _gate({"model": NAME})


def resigned(exported, folder, key_dir):
    """A copy whose index a forger has made again, with a key of their own."""
    from components.promotion.evidence import Index, _hashes
    from components.promotion.ledger import canonical

    shutil.copytree(exported, folder, dirs_exist_ok=True)

    def sign():
        index = Index.model_validate_json((folder / "evidence.json").read_bytes())
        key, files = (
            SigningKey.open(key_dir, "forger"),
            {k: v for k, v in _hashes(folder).items() if "evidence." not in k},
        )
        index = index.model_copy(update={"files": files, "signer": "forger", "public_key": key.public_key})
        index = index.model_copy(update={"signature": key.sign(index.digest())})
        (folder / "evidence.json").write_bytes(canonical(index.model_dump()) + b"\n")

    return sign


@pytest.mark.parametrize(
    ("file", "old", "new", "what", "detail"),
    [
        ("entries.jsonl", "größer", "kleiner", "chain", "entry 2 (approval): does not stand in the chain"),
        ("chain.json", '"]', '","' + "0" * 64 + '"]', "chain", "15 entries where 14 were exported"),
        ("keys.json", '"reviewer":"', '"reviewer":"0', "entry 2: signer", "'reviewer' signed with a key that the key"),
        ("decision.json", '"images":400', '"images":900', "decision", "decision.json: expected"),
        ("bundle/model.tflite", "weights", "Weights", "bundle", "model.tflite is"),
        ("evaluation/evaluation.json", "7777", "7778", "evaluation", "test_sha256 7778"),
        ("code/files/uv.lock", "locked", "looked", "code and data", "uv.lock: git hash"),
        ("code/files/params.yaml", "margin: 0.03", "margin: 0.30", "code and data", "params.yaml: git hash"),
        ("code/commit", "build", "other", "code and data", "commit: git hash"),
        ("code/trees/data.tree", "100644", "100755", "code and data", "data.tree: git hash"),
    ],
)
def test_signing_a_changed_folder_again_hides_nothing(exported, tmp_path, file, old, new, what, detail):
    """Whoever signs the index anew still meets the ledger's hashes, its signers' keys and git's."""
    sign = resigned(exported, tmp_path / "copy", tmp_path / "keys")
    path = tmp_path / "copy" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    sign()

    assert detail in bad(tmp_path / "copy")[what]


def test_a_file_more_or_less_is_named(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").unlink()
    (tmp_path / "copy" / "more.txt").write_text("x")

    assert bad(tmp_path / "copy") == {"README.md": "missing", "more.txt": "nobody exported this"}


def test_what_does_not_verify_is_not_exported(house, tmp_path):
    shutil.copytree(house["bundles"], tmp_path / "bundles")
    (model,) = (tmp_path / "bundles").glob("*/model.tflite")
    model.write_bytes(b"other weights")

    with pytest.raises(BundleCorrupt, match=r"model\.tflite"):
        export(**house | {"bundles": tmp_path / "bundles"}, version=1, to=tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def test_a_name_exports_with_the_key_it_signed_with(house, tmp_path):
    """Else the folder would hold two keys under one name."""
    stranger = SigningKey.open(tmp_path / "keys", "reviewer")

    with pytest.raises(ConfigError, match="'reviewer' signed the ledger with another key"):
        export(**house | {"key": stranger}, version=1, to=tmp_path / "evidence")


def test_a_version_nobody_judged_and_a_folder_that_exists_are_refused(house, tmp_path):
    with pytest.raises(ConfigError, match="never judged a version 7"):
        export(**house, version=7, to=tmp_path / "evidence")
    with pytest.raises(ConfigError, match="exists already"):
        export(**house, version=1, to=tmp_path)
