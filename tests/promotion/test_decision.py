"""The decision record: one form, published as a schema, and older records stay readable."""

from __future__ import annotations

import json
from pathlib import Path

from components.gate_params import Signers
from components.promotion.decision import Decision, protocol_hash, schema

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_published_schema_is_that_of_the_record():
    """Who changes the record writes the schema again: json.dumps(schema(), indent=1, sort_keys=True)."""
    published = (REPOSITORY / "docs" / "decision.schema.json").read_text(encoding="utf-8")

    assert published == json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def test_a_record_is_valid_by_its_schema(record):
    """As another program would check it."""
    import jsonschema

    jsonschema.validate(record(bundle_hash="b" * 64), schema())


def test_a_record_of_format_1_is_readable():
    """As it was written before slices, evaluation and the record before were part of it."""
    body = json.loads((Path(__file__).parent / "decision-1.json").read_text(encoding="utf-8"))
    found = Decision.model_validate(body)

    assert (found.format, found.slices, found.evaluation_sha256, found.previous_record) == (1, (), None, None)
    assert found.markdown().startswith("## Version 1: passed (no champion yet)")


def test_a_record_of_format_3_keeps_its_protocol():
    """As it was written before signers had roles: a number of reviewers, and the hash of the protocol that says so."""
    import jsonschema

    body = json.loads((Path(__file__).parent / "decision-3.json").read_text(encoding="utf-8"))
    found = Decision.model_validate(body)
    jsonschema.validate(body, schema())

    assert (found.format, body["protocol"]["signers"], found.protocol.signers) == (3, 1, Signers(reviewer=1))
    assert protocol_hash(body["protocol"]) == body["protocol_sha256"]


def test_a_record_of_format_2_keeps_its_protocol():
    """As it was written before the protocol named changes and slices: the hash of its protocol is still the same."""
    body = json.loads((Path(__file__).parent / "decision-2.json").read_text(encoding="utf-8"))
    found = Decision.model_validate(body)

    assert (found.format, found.compared, found.changed, found.latency_ms) == (2, (), (), None)
    assert found.protocol.model_dump(mode="json") == body["protocol"]
    assert protocol_hash(found.protocol) == body["protocol_sha256"]
