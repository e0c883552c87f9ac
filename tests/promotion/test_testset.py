"""The sealed test set: looks add up by patient, and a refresh is one signed word that retires them for good."""

from __future__ import annotations

from contextlib import suppress

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.dataset.retirements import marks, read_retirements, write_retirements
from components.dataset.rows import write_rows
from components.errors import DataError, PromotionRefused
from components.model.comparison import Sealed
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.testset import Standing, look, refresh, require_same, retired
from tests.promotion.conftest import NAME
from tests.protocols import protocol_of

PARAMS = protocol_of(
    auroc_floor=0.8, sensitivity_floor=0.75, specificity_floor=0.75, margin=0.05, min_positives=2,
    min_negatives=2, look_budget=3,
)  # fmt: skip


def sealed(patients) -> Sealed:
    """Two images a patient, one with a fracture."""
    rows = [(f"{p}-{n}", p, float(n)) for p in patients for n in range(2)]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "label"])
    return Sealed(table.assign(study_id=table["image_id"]), {}, 0)


def looked(ledger, patients, *, challenger="a") -> int:
    found = sealed(patients)
    question = {"name": NAME, "challenger_hash": challenger, "champion_hash": None, "test_sha256": found.sha256}
    return look(ledger, question, PARAMS, found)


@pytest.fixture
def refreshed(ledger, tmp_path):
    """`refreshed(patients)`: a refresh while these are the test patients."""

    def act(patients, *, reason="worn out", user="reviewer", groups=None):
        table = sealed(patients).table.assign(role="test", accepted=True, ai_visible=False, shard="a-0")
        if groups:
            table["group_id"] = table["patient_id"].map(groups)
        write_rows(tmp_path / "accepted", table)
        key = SigningKey.open(tmp_path / "keys", "reviewer")
        return refresh(
            ledger=ledger, name=NAME, accepted=tmp_path / "accepted", params=PARAMS, reason=reason, user=user, key=key
        )  # fmt: skip

    return act


def test_a_patient_more_buys_no_look(ledger):
    """Three looks at growing test sets are three; the fourth is refused; strangers to all of them are not concerned."""
    assert [looked(ledger, range(n), challenger=str(n)) for n in (4, 5, 6)] == [1, 2, 3]
    with pytest.raises(PromotionRefused, match="looked at 3 times, the protocol allows 3"):
        looked(ledger, range(7), challenger="b")
    assert looked(ledger, range(20, 24), challenger="b") == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=st.lists(st.frozensets(st.integers(0, 12), min_size=1), min_size=1, max_size=10))
def test_nobody_is_looked_at_more_often_than_the_budget(tmp_path_factory, sets):
    """Property: whatever test sets follow each other, no patient stands in more looks than the protocol allows."""
    ledger = Ledger(tmp_path_factory.mktemp("looks") / "ledger.jsonl")
    for number, patients in enumerate(sets):
        with suppress(PromotionRefused):
            looked(ledger, sorted(patients), challenger=str(number))
    seen = [mark for entry in ledger.entries("look") for mark in entry.body["patients"]]

    assert max(seen.count(mark) for mark in set(seen)) <= 3


def test_a_look_without_names_counts_for_everybody(ledger):
    """Looks of an earlier version did not write down at whom."""
    for _ in range(3):
        ledger.append("look", {"name": NAME, "test_sha256": "0" * 64, "look": 1, "budget": 3, "images": 8})

    with pytest.raises(PromotionRefused, match="looked at 3 times"):
        looked(ledger, range(4))


def test_a_refresh_says_who_is_retired_and_who_comes_in(ledger, refreshed):
    """Signed, with the reason; patients as marks, nobody by pseudonym."""
    looked(ledger, ["p1", "p2"])
    entry = refreshed(["p1", "p2", "p3", "p4", "p5"])

    assert (entry.kind, entry.signer, entry.body["reason"], entry.body["looks"]) == (
        "refresh",
        "reviewer",
        "worn out",
        1,
    )
    assert entry.body["retired"] == marks(["p1", "p2"])
    assert entry.body["sealed"] == marks(["p3", "p4", "p5"])
    assert (entry.body["images"], entry.body["positives"], entry.body["negatives"]) == (6, 3, 3)
    assert "p3" not in ledger.path.read_text()


def test_the_retired_stay_retired_and_the_new_have_a_budget_of_their_own(ledger, refreshed):
    """Two refreshes: each takes out those that were looked at since the one before."""
    patients = [f"p{n}" for n in range(6)]
    looked(ledger, patients[:2])
    refreshed(patients[:4])
    assert retired(ledger) == frozenset(marks(["p0", "p1"]))
    assert looked(ledger, patients[2:4]) == 1
    entry = refreshed(patients)

    assert retired(ledger) == frozenset(marks(["p0", "p1", "p2", "p3"]))
    assert entry.body["sealed"] == marks(["p4", "p5"])


def test_who_is_joined_to_the_retired_is_retired(ledger, refreshed):
    """A second id of one person, or a near-duplicate, has been looked at too."""
    looked(ledger, ["p1"])
    entry = refreshed(["p1", "p2", "p3", "p4"], groups={"p1": "g", "p2": "g", "p3": "h", "p4": "i"})

    assert entry.body["sealed"] == marks(["p3", "p4"])


def test_who_is_joined_to_somebody_withdrawn_since_stays_retired(ledger, refreshed):
    """p1 was looked at and has no test image any more; p2, who shares a picture with them, does not become new."""
    looked(ledger, ["p1"])
    entry = refreshed(["p2", "p3", "p4"], groups={"p2": "p1", "p3": "p3", "p4": "p4"})

    assert entry.body["sealed"] == marks(["p3", "p4"])


def test_looks_count_on_after_a_test_patient_is_withdrawn(ledger):
    """The test set that shrinks by p0 is not a new one."""
    assert [looked(ledger, ["p0", "p1", "p2"], challenger=name) for name in "ab"] == [1, 2]
    assert looked(ledger, ["p1", "p2"], challenger="c") == 3

    with pytest.raises(PromotionRefused, match="looked at 3 times"):
        looked(ledger, ["p1", "p2"], challenger="d")


def test_a_refresh_without_enough_new_patients_is_refused(ledger, refreshed):
    """Nothing is retired that the gate still needs."""
    looked(ledger, ["p1", "p2"])

    with pytest.raises(PromotionRefused, match="1 fractures and 1 non-fractures are of test patients that nobody"):
        refreshed(["p1", "p2", "p3"])
    assert ledger.entries("refresh") == []


def test_after_looks_without_names_everybody_present_is_retired(ledger, refreshed, tmp_path):
    """Allowed with nobody left: only those who come in later can be known to be new."""
    ledger.append("look", {"name": NAME, "test_sha256": "0" * 64, "look": 1, "budget": 3, "images": 8})
    entry = refreshed(["p1", "p2"])

    assert (entry.body["retired"], entry.body["sealed"]) == (marks(["p1", "p2"]), [])
    write_retirements(tmp_path / "retirements.csv", retired(ledger))
    with pytest.raises(DataError, match=r"no fractures and non-fractures .* 4 of them retired by a refresh"):
        Sealed.read(tmp_path / "accepted", tmp_path / "retirements.csv")


def test_the_retired_decide_about_no_model(ledger, refreshed):
    """They are worn out for a model of another name too, whose looks are its own."""
    looked(ledger, ["p1", "p2"])
    refreshed(["p1", "p2", "p3", "p4"])
    other = Standing.of(ledger, "another-use")

    assert (other.retired, other.looks) == (frozenset(marks(["p1", "p2"])), ())


def test_a_log_of_retirements_says_what_the_ledger_says(ledger, refreshed):
    """Before any refresh it is empty."""
    require_same(ledger, frozenset())
    looked(ledger, ["p1", "p2"])
    refreshed(["p1", "p2", "p3", "p4"])
    require_same(ledger, retired(ledger))

    with pytest.raises(DataError, match=r"lacks 2 whom a refresh has retired and names 0 .*doctor --repair"):
        require_same(ledger, frozenset())


def test_a_refresh_whose_signer_is_not_known_is_named(ledger, refreshed, tmp_path):
    """Its key went: the patients decide again, and who reads that is told where to look before the log is rewritten."""
    looked(ledger, ["p1", "p2"])
    refreshed(["p1", "p2", "p3", "p4"])
    elsewhere = Ledger(ledger.path, key_dir=tmp_path / "elsewhere")

    with pytest.raises(DataError, match=r"names 2 whom none has: see in `osteoflow doctor` why ledger entry 1 counts"):
        require_same(elsewhere, retired(ledger))


def test_a_damaged_log_of_retirements_is_refused_by_row(tmp_path):
    """And what the row holds is not repeated."""
    path = tmp_path / "retirements.csv"
    path.write_text("patient_sha256\nsomebody\n")

    with pytest.raises(DataError, match="row 2: expected 16 hex characters") as caught:
        read_retirements(path)
    assert "somebody" not in str(caught.value)


def test_there_is_no_refresh_without_a_look_a_reason_and_ones_own_key(ledger, refreshed):
    with pytest.raises(PromotionRefused, match="nobody has looked at the test set"):
        refreshed(["p1", "p2"])
    with pytest.raises(PromotionRefused, match="needs a reason, in your own words"):
        refreshed(["p1"], reason=" ")
    with pytest.raises(PromotionRefused, match="the key of 'reviewer' cannot sign for 'somebody'"):
        refreshed(["p1"], user="somebody")
