"""The audit: whatever was changed in ledger or bundle is found and named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import LedgerCorrupt
from components.promotion import audit
from components.promotion.audit import Finding, Promoted, finding
from components.promotion.ledger import Ledger, SigningKey, canonical
from components.promotion.register import verified_hash
from components.promotion.roles import give
from tests.promotion.builds import make
from tests.promotion.conftest import NAME


@pytest.fixture
def way(tmp_path, record):
    """`way(version, key)` puts a version's whole way up into a ledger, with changes where a forger wants them."""
    ledger = Ledger(tmp_path / "ledger.jsonl")

    def act(version=1, *, judged=None, approved=None, rolled=None, approver="reviewer"):
        bundle = {"name": NAME, "version": version, "bundle_hash": str(version) * 64}
        key = SigningKey.open(tmp_path / "keys", approver) if approver else None
        decision = ledger.append("decision", record(**(bundle | (judged or {}))))
        approval = ledger.append("approval", bundle | {"decision_hash": decision.hash} | (approved or {}), key=key)
        ledger.append("rollout", bundle | {"approval_hash": approval.hash} | (rolled or {}))
        return ledger

    return act


def found(ledger):
    return list(audit.promoted(ledger.entries(), NAME))


def test_a_version_has_a_way_up(way):
    """Decision, signed approval, rollout; another model's entries are not looked at."""
    ledger = way()
    ledger.append("rollout", {"name": "hip", "version": 9, "bundle_hash": "9" * 64})
    (one,) = found(ledger)

    assert isinstance(one, Promoted)
    assert (one.version, one.decision.seq, one.approval.seq) == (1, 0, 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"judged": {"verdict": "failed"}}, "its decision is no pass"),
        ({"judged": {"bundle_hash": "f" * 64}}, "name different bundles"),
        ({"judged": {"proposer": "reviewer"}}, "its proposer approved it"),
        ({"approved": {"decision_hash": "f" * 64}}, "no decision behind its approval"),
        ({"rolled": {"approval_hash": "f" * 64}}, "no approval of its hash"),
        ({"approver": None}, "its approval is not signed"),
    ],
)
def test_a_rollout_without_a_way_up_is_named(way, changes, problem):
    (bad,) = found(way(**changes))

    assert isinstance(bad, Finding)
    assert (bad.what, bad.detail.startswith("ledger entry 2 (rollout): ")) == ("version 1: way up", True)
    assert problem in bad.detail


def test_a_rollback_needs_a_signature_and_a_bundle_that_served(way):
    ledger = way()
    back = {"name": NAME, "version": 1, "bundle_hash": "1" * 64}
    ledger.append("rollback", back)

    assert found(ledger)[-1].detail == "ledger entry 3 (rollback): nobody signed it"


def test_once_there_are_roles_a_rollback_by_no_reviewer_is_named(way, tmp_path):
    ledger, operator = way(), SigningKey.open(tmp_path / "keys", "operator")
    back = {"name": NAME, "version": 1, "bundle_hash": "1" * 64}
    give(ledger=ledger, person="engineer", roles=("engineer",), user="operator", key=operator)
    ledger.append("rollback", back, key=SigningKey.open(tmp_path / "keys", "engineer"))

    assert found(ledger)[-1].detail == "ledger entry 4 (rollback): 'engineer' was no reviewer"


def test_a_record_with_another_protocol_than_it_states_is_named(way):
    (one,) = found(way(judged={"protocol_sha256": "0" * 64}))

    assert re.search(
        r"protocol \w{12} where the record states 0{12}", finding("x", lambda: audit.record(one.decision)).detail
    )


def test_a_record_from_before_a_key_of_the_protocol_keeps_its_hash(way):
    """A protocol is hashed as it stands in the record: a key that came in since does not make it another one."""
    body = json.loads((Path(__file__).parent / "decision-1.json").read_text(encoding="utf-8"))
    old = hashlib.sha256(canonical(body["protocol"])).hexdigest()
    entry = way().append("decision", body | {"protocol_sha256": old})

    assert "signers" not in body["protocol"]
    assert audit.record(entry).endswith(f"protocol {old[:12]}")


def test_a_decision_that_is_no_record_is_named(way):
    ledger = way()
    ledger.append("decision", {"name": NAME, "version": 1})

    assert "ledger entry 3: not a decision record" in finding("x", lambda: audit.record(ledger.entries()[-1])).detail


def test_records_name_the_one_before(way, record):
    """A record that skips one is named; records of format 1 name none, and those of another model do not count."""
    ledger = way(1)
    first = ledger.entries()[0]
    old = {"format": 1, "name": NAME, "version": 2}
    ledger.append("decision", record(bundle_hash="9" * 64, name="hip"))
    second = ledger.append("decision", old)
    ledger.append("decision", record(bundle_hash="3" * 64, previous_record=second.hash))
    assert audit.records(ledger.entries()) == "4 decision(s), each with the one before it"

    ledger.append("decision", record(bundle_hash="4" * 64, previous_record=first.hash))
    with pytest.raises(LedgerCorrupt, match=r"entry 6 \(decision\): does not name the record before it"):
        audit.records(ledger.entries())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from(["ledger.jsonl", "manifest.json", "model.tflite"]),
    place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7),
)  # fmt: skip
def test_a_flipped_bit_in_ledger_or_bundle_is_found_and_named(way, tmp_path, which, place, bit):
    """Property: one bit anywhere in a copy of the two; the finding names the entry or the part."""
    if not (tmp_path / "copy").exists():
        (tmp_path / "copy").mkdir()
        shutil.copy(way().path, tmp_path / "copy" / "ledger.jsonl")
        shutil.copytree(make(tmp_path, "one").bundle, tmp_path / "copy", dirs_exist_ok=True)
    path, folder = tmp_path / "copy" / which, tmp_path / "copy"
    whole, expected = path.read_bytes(), verified_hash(tmp_path / "build-one" / "models" / "bundle")
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    try:
        seen = [
            finding("ledger", lambda: str(Ledger(folder / "ledger.jsonl").verify())),
            finding("bundle", lambda: audit.bundle(folder, expected)),
        ]
    finally:
        path.write_bytes(whole)
    (bad,) = [f for f in seen if not f.well]

    assert bad.what == ("ledger" if which == "ledger.jsonl" else "bundle")
    assert re.search(r"ledger.jsonl: entry \d" if which == "ledger.jsonl" else "manifest|model.tflite", bad.detail)
