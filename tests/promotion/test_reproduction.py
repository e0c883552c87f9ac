"""A version built again: what is said of it, and which environments it may be built in."""

from __future__ import annotations

from importlib import metadata

import pytest

from components.errors import ConfigError, DataError
from components.promotion import audit, reproduction
from components.promotion.ledger import Ledger
from components.promotion.reproduction import Figure, Part, Recorded, Reproduction


def found(*parts: Part, auroc: float | None = None) -> Reproduction:
    """A reproduction with a tolerance of .02, of a version with an AUROC of .9."""
    figures = () if auroc is None else (Figure(name="auroc", recorded=0.9, found=auroc),)
    return Reproduction(
        name="m", version=3, commit="c" * 40, machine="Linux", tolerance=0.02, parts=parts, figures=figures,
        wall_seconds=1,
    )  # fmt: skip


SAME = Part(what="data pointers", recorded="d", found="d")
WEIGHTS = Part(what="weights", recorded="w", found="v")
BUNDLE = Part(what="bundle", recorded="b", found="c")


def test_nothing_differs():
    assert (found(SAME, auroc=0.9).verdict, found(SAME, auroc=0.9).first) == ("identical", None)


@pytest.mark.parametrize(
    ("auroc", "verdict"), [(0.9, "within tolerance"), (0.885, "within tolerance"), (0.87, "differs")]
)
def test_other_weights_count_by_what_they_do(auroc, verdict):
    """The first difference is named all the same; those after it follow from it."""
    again = found(SAME, WEIGHTS, BUNDLE, auroc=auroc)

    assert (again.verdict, again.first) == (verdict, "weights")
    assert f": {verdict}. What differs first: weights." in again.text()


def test_other_inputs_differ_whatever_they_might_have_given():
    assert found(Part(what="data/prepared", recorded="4 file(s)", found="4 file(s), 1 altered")).verdict == "differs"


def test_the_ledger_keeps_what_was_found_and_where():
    """Hashes of both bundles, the verdict and what it rests on; no part's own listing."""
    record = Recorded(
        name="m", version=3, bundle_hash="b", git_commit="c" * 40, lock_sha256="l", data_sha256="d"
    )  # fmt: skip
    body = found(SAME, WEIGHTS, BUNDLE, auroc=0.885).body(record, "engineer")

    assert body == {
        "name": "m", "version": 3, "bundle_hash": "b", "found_hash": "c", "verdict": "within tolerance",
        "first_difference": "weights", "largest_difference": {"figure": "auroc", "is": pytest.approx(0.015)},
        "tolerance": 0.02, "git_commit": "c" * 40, "lock_sha256": "l", "machine": "Linux", "user": "engineer",
    }  # fmt: skip


def test_an_audit_tells_how_the_last_attempt_ended(tmp_path):
    """A difference is a finding; a later attempt that ends well takes its place."""
    ledger, record = (
        Ledger(tmp_path / "ledger.jsonl"),
        Recorded(name="m", version=3, bundle_hash="b", git_commit="c" * 40, lock_sha256="l", data_sha256="d"),
    )
    assert list(audit.reproduced(ledger.entries(), "b")) == []
    ledger.append("reproduction", found(SAME, WEIGHTS, auroc=0.5).body(record, "engineer"))
    [bad] = audit.reproduced(ledger.entries(), "b")
    ledger.append("reproduction", found(SAME, auroc=0.9).body(record, "engineer"))
    [good] = audit.reproduced(ledger.entries(), "b")

    assert (bad.what, bad.well, good.well) == ("version 3: built again", False, True)
    assert "the last time differs, from weights on, auroc by 0.4000, tolerance 0.02 (Linux, " in bad.detail
    assert "built again 2 time(s), the last time identical (Linux, " in good.detail


def test_an_audit_tells_of_an_attempt_that_trained_nothing(tmp_path):
    """The data were others: there is no figure to tell."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    record = Recorded(name="m", version=3, bundle_hash="b", git_commit="c" * 40, lock_sha256="l", data_sha256="d")
    other = Part(what="data pointers", recorded="d", found="e")
    ledger.append("reproduction", found(other).body(record, "engineer"))
    [bad] = audit.reproduced(ledger.entries(), "b")

    assert "the last time differs, from data pointers on, tolerance 0.02 (Linux, " in bad.detail


def lock(keras: str) -> bytes:
    """What uv would write: the product needs keras, keras needs numpy; a linter is for developers."""
    numpy = metadata.version("numpy")
    return f"""
[[package]]
name = "osteoflow"
version = "0.1.0"
dependencies = [{{ name = "keras" }}, {{ name = "of-another-system", marker = "sys_platform == 'win32'" }}]
[package.dev-dependencies]
dev = [{{ name = "ruff" }}]
[[package]]
name = "keras"
version = "{keras}"
dependencies = [{{ name = "numpy" }}]
[[package]]
name = "numpy"
version = "{numpy}"
[[package]]
name = "ruff"
version = "0.0.1"
[[package]]
name = "of-another-system"
version = "1.0"
""".encode()


def test_an_environment_of_the_lock_has_no_strangers():
    assert reproduction.strangers(lock(metadata.version("keras"))) == []


def test_another_version_is_named():
    """What the product runs on, and nothing that only developers or other systems need."""
    assert reproduction.strangers(lock("1.0")) == [f"keras {metadata.version('keras')} (lock: 1.0)"]


def test_a_lock_that_is_none_is_refused():
    with pytest.raises(DataError, match=r"uv\.lock: not a lock file"):
        reproduction.strangers(b"version = 1\n")


def test_a_version_without_a_record_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("decision", {"name": "m", "version": 1})

    with pytest.raises(ConfigError, match="m: no record of a version 2; on record: 1"):
        reproduction.recorded(ledger, "m", 2)
    with pytest.raises(DataError, match=r"m version 1: its record does not say what it was made from \(bundle_hash, "):
        reproduction.recorded(ledger, "m", 1)
