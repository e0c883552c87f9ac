"""Nobody ever crosses: roles over random histories of arrivals, near-duplicates and merged identities."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.places import EXCLUDED, Merge, _one_by_one, bucket, deal, divided
from components.params import Shares, Split

SHARES = Shares(train=55, tune=12, calibrate=13, test=20)
PARAMS = Split(salt="osteoflow", shares=SHARES)
NONE = np.empty((0, 2), np.int64)

# What happens to an archive: an image of a patient arrives, and may repeat any earlier ones; or two pseudonyms turn out
# to be one person, before or after either was seen. Few patients, so that all of it meets.
patients = st.integers(0, 9).map(str)
arrival = st.tuples(st.just("image"), patients, st.sets(st.integers(1, 12), max_size=3))
merge = st.tuples(st.just("merge"), patients, patients)
histories = st.lists(st.one_of(arrival, arrival, arrival, merge), max_size=24)


class History:
    """The archive after some of its events: `images` patients, `pairs` near-duplicates, `merges`."""

    def __init__(self, events: list[tuple]) -> None:
        self.images: list[str] = []
        pairs: list[tuple[int, int]] = []
        self.merges: list[Merge] = []
        for kind, patient, other in events:
            if kind == "merge":
                self.merges.append(Merge(len(self.images), patient, other))
                continue
            here = len(self.images)
            pairs += [(here - back, here) for back in sorted(other) if back <= here]
            self.images.append(patient)
        self.pairs = np.array(pairs, np.int64).reshape(-1, 2)
        self.roles, self.groups = deal(self.images, self.pairs, PARAMS, self.merges)

    def people(self) -> dict[str, str]:
        """Patients to persons, from the merges alone: an independent union."""
        person = {patient: patient for patient in [*self.images, *(m.patient for m in self.merges)]}
        person |= {m.other: m.other for m in self.merges if m.other not in person}
        for m in self.merges:
            kept, gone = person[m.patient], person[m.other]
            person = {patient: kept if name == gone else name for patient, name in person.items()}
        return person


def roles_by(names: list[str], roles: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, role in zip(names, roles, strict=True):
        found[name] |= {role} - {EXCLUDED}
    return found


def a_patient(role: str, *, but: str = "") -> str:
    """A patient whose bucket is `role`."""
    return next(name for name in map(str, range(99)) if bucket(name, "osteoflow", SHARES) == role and name != but)


@given(histories)
@settings(deadline=None, max_examples=1000)
def test_no_person_ever_crosses(events):
    """Over 1,000 random histories, watched at every step: no role changes, but to excluded and by a merge."""
    before: list[str] = []
    for step in range(1, len(events) + 1):
        now = History(events[:step]).roles
        left = [(n, old, new) for n, (old, new) in enumerate(zip(before, now, strict=False)) if old != new]

        assert all(new == EXCLUDED and events[step - 1][0] == "merge" for _, _, new in left)
        before = now


@given(histories)
@settings(deadline=None, max_examples=1000)
def test_no_patient_no_person_and_no_group_has_two_roles(events):
    history = History(events)
    people = history.people()
    persons = [people[patient] for patient in history.images]

    for names in (history.images, persons, history.groups):
        assert all(len(roles) <= 1 for roles in roles_by(names, history.roles).values())


@given(histories)
@settings(deadline=None, max_examples=1000)
def test_near_duplicates_never_straddle_roles(events):
    history = History(events)
    roles = [{history.roles[end] for end in pair} - {EXCLUDED} for pair in history.pairs.tolist()]

    assert all(len(both) <= 1 for both in roles)


@given(histories, st.randoms())
@settings(deadline=None, max_examples=200)
def test_equal_archives_are_dealt_equally(events, random):
    """In whatever order, and however often, the search reports its pairs."""
    history = History(events)
    shuffled = [pair[:: random.choice((1, -1))] for pair in history.pairs.tolist() * 2]
    random.shuffle(shuffled)

    assert deal(history.images, np.array(shuffled), PARAMS, history.merges) == (history.roles, history.groups)


@given(histories)
@settings(deadline=None, max_examples=300)
def test_who_has_met_nobody_may_be_seated_apart(events):
    """Leaving out those whom no picture and no merge names changes nothing for anybody."""
    history = History(events)

    assert (history.roles, history.groups) == _one_by_one(history.images, history.pairs, PARAMS, history.merges)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["x", "y", None]))))
def test_keys_beside_several_values_are_those_that_a_groupby_finds(rows):
    table = pd.DataFrame(rows, columns=["key", "value"], dtype=object)
    counted = table.groupby("key")["value"].nunique()

    assert sorted(divided(table["key"], table["value"])) == sorted(counted.index[counted > 1])


def test_the_buckets_meet_the_shares():
    """10,000 patients: each share within 1.5 percent points (four standard deviations are 2)."""
    counts = Counter(bucket(f"patient-{n}", "osteoflow", SHARES) for n in range(10_000))

    assert counts["train"] == pytest.approx(5500, abs=150)
    assert counts["tune"] == pytest.approx(1200, abs=150)
    assert counts["calibrate"] == pytest.approx(1300, abs=150)
    assert counts["test"] == pytest.approx(2000, abs=150)


def test_the_deal_is_pinned():
    """These five roles are a promise to archives that exist: a change here re-deals every patient."""
    assert [bucket(name, "osteoflow", SHARES) for name in "abcde"] == [
        "calibrate",
        "calibrate",
        "train",
        "train",
        "train",
    ]


def test_a_role_of_no_share_gets_nobody():
    shares = Shares(train=100, tune=0, calibrate=0, test=0)

    assert {bucket(str(n), "salt", shares) for n in range(300)} == {"train"}


def test_one_person_under_two_names_gets_one_role():
    """A new patient who looks like an earlier one follows them, whatever the bucket says."""
    chain = np.array([(n, n + 1) for n in range(49)])
    roles, groups = deal([str(n) for n in range(50)], chain, PARAMS)

    assert set(roles) == {bucket("0", "osteoflow", SHARES)}
    assert set(groups) == {"0"}


def test_a_look_alike_of_a_test_image_is_excluded_and_nobody_moves():
    """`train` is known when an image of theirs repeats a test image."""
    one, other = a_patient("test"), a_patient("train")

    assert deal([one, other, other], np.array([(0, 2)]), PARAMS)[0] == ["test", "train", EXCLUDED]


class TestMerges:
    """Two pseudonyms turn out to be one person."""

    one, other = a_patient("test"), a_patient("train")

    def roles(self, images: list[str], after: int, pairs: np.ndarray = NONE) -> list[str]:
        return deal(images, pairs, PARAMS, [Merge(after, self.other, self.one)])[0]

    def test_who_arrived_first_stays(self):
        assert self.roles([self.one, self.other], 2) == ["test", EXCLUDED]
        assert self.roles([self.other, self.one], 2) == ["train", EXCLUDED]

    def test_images_to_come_are_excluded_too(self):
        """A model may have learned from the earlier ones."""
        assert self.roles([self.one, self.other, self.other, self.one], 2) == ["test", EXCLUDED, EXCLUDED, "test"]

    def test_a_name_that_was_never_seen_costs_nothing(self):
        """Known before their first image, they take the person's role."""
        assert self.roles([self.one, self.other], 1) == ["test", "test"]

    def test_nobody_else_moves(self):
        third = a_patient("train", but=self.other)

        assert self.roles([self.one, self.other, third], 3) == ["test", EXCLUDED, "train"]

    def test_who_shares_a_picture_with_them_is_them(self):
        """A third pseudonym filed the same picture: the same person again."""
        third = a_patient("train", but=self.other)
        images = [self.one, self.other, third, third]

        assert self.roles(images, 4, np.array([(1, 2)])) == ["test", EXCLUDED, EXCLUDED, EXCLUDED]

    def test_a_picture_of_theirs_under_a_new_name_stays_out(self):
        """And the new name follows the person, not its bucket."""
        third = a_patient("tune")
        images = [self.one, self.other, third, third]

        assert self.roles(images, 2, np.array([(1, 2)])) == ["test", EXCLUDED, EXCLUDED, "test"]

    def test_a_second_merge_brings_nobody_back(self):
        third = a_patient("train", but=self.other)
        merges = [Merge(3, self.one, self.other), Merge(3, third, self.one)]

        assert deal([third, self.one, self.other], NONE, PARAMS, merges)[0] == ["train", EXCLUDED, EXCLUDED]
