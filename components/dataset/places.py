"""Who sits where: roles dealt in order of arrival, for life. Pure; nothing that comes later moves anybody."""

from __future__ import annotations

import hmac
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from components.params import Shares, Split

EXCLUDED = "excluded"


@dataclass(frozen=True)
class Merge:
    """Two pseudonyms that turned out to be one person, and how many images had arrived when that became known."""

    after: int
    patient: str
    other: str


@dataclass
class _Person:
    """Patients that belong together: by a picture they share, or because somebody said so.

    Attributes:
        name: the pseudonym that arrived first.
        first: position of the person's first image; None before it arrives.
        home: the role; None before the first image.
    """

    name: str
    first: int | None = None
    home: str | None = None
    patients: list[str] = field(default_factory=list)


def bucket(patient: str, salt: str, shares: Shares) -> str:
    """The role of a patient nobody has seen: HMAC-SHA256(salt, patient) mod 100 against the cumulative shares."""
    number = int.from_bytes(hmac.digest(salt.encode(), patient.encode(), "sha256"), "big") % 100
    bounds = (shares.train, shares.train + shares.tune, 100 - shares.test)
    return ("train", "tune", "calibrate", "test")[bisect_right(bounds, number)]


def likely(patient: str, role: str, params: Split) -> bool:
    """Whether this will be the role of a patient who shares no picture with another, and is nobody else's other id."""
    return bucket(patient, params.salt, params.shares) == role


def deal(
    patients: Sequence[str], pairs: np.ndarray, params: Split, merges: Sequence[Merge] = ()
) -> tuple[list[str], list[str]]:
    """Place images in order of arrival; what was learned about identities in between takes effect in between.

    A new patient takes the role of an earlier near-duplicate of another patient (one person under two names), or
    else a bucket. An image that repeats one in another role is excluded. When two persons turn out to be one, the
    role of whoever arrived first stands; where the other's differs, its images are excluded, past and future ones.

    Args:
        pairs: (m, 2) positions of near-duplicates.

    Returns:
        (roles, groups), an entry an image; a group is named by the patient of it that arrived first.
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    met = {patients[position] for position in np.unique(pairs).tolist()}
    met.update(name for merge in merges for name in (merge.patient, merge.other))
    # Who has met nobody keeps a bucket and a group of their own; few are left to be seated one after another.
    alone = {name: (bucket(name, params.salt, params.shares), name) for name in set(patients) - met}
    seats = np.array([position for position, patient in enumerate(patients) if patient in met], dtype=np.int64)
    moved = [replace(merge, after=int(np.searchsorted(seats, merge.after))) for merge in merges]
    together = [patients[position] for position in seats.tolist()]
    seated = zip(*_one_by_one(together, np.searchsorted(seats, pairs), params, moved), strict=True)
    placed = [alone.get(patient) or next(seated) for patient in patients]
    return [role for role, _ in placed], [group for _, group in placed]


def _one_by_one(
    patients: Sequence[str], pairs: np.ndarray, params: Split, merges: Sequence[Merge]
) -> tuple[list[str], list[str]]:
    """`deal`, image by image."""
    earlier: list[list[int]] = [[] for _ in patients]
    for one, other in np.sort(pairs, axis=1).tolist():
        earlier[other].append(one)
    table = _Table(params)
    waiting = sorted(merges, key=lambda merge: merge.after)  # stable: in the order of the log
    due = 0
    for position, patient in enumerate(patients):
        while due < len(waiting) and waiting[due].after <= position:
            table.merge(waiting[due].patient, waiting[due].other)
            due += 1
        table.place(position, patient, sorted(earlier[position]))
    for merge in waiting[due:]:
        table.merge(merge.patient, merge.other)
    return table.roles, [table.person(patient).name for patient in patients]


def divided(keys: pd.Series, values: pd.Series) -> pd.Index:
    """The keys that stand beside more than one value, rows without either aside; `keys` and `values` are of one table.

    What a groupby tells in ten times the time.
    """
    (key, names), (value, _) = pd.factorize(keys), pd.factorize(values)
    stated = (key >= 0) & (value >= 0)
    key, value = key[stated], value[stated]
    first = np.empty(len(names), value.dtype)
    first[key[::-1]] = value[::-1]  # of several that are put in one place the last stays: the earliest row's
    return pd.Index(names)[np.unique(key[value != first[key]])]


class _Table:
    """The state of the deal.

    Attributes:
        roles: an entry an image.
        barred: patients whose images are excluded for good: their person sits in another role.
    """

    def __init__(self, params: Split) -> None:
        self.params = params
        self.roles: list[str] = []
        self.barred: set[str] = set()
        self._owners: list[str] = []
        self._images: dict[str, list[int]] = {}
        self._people: dict[str, _Person] = {}

    def person(self, patient: str) -> _Person:
        if patient not in self._people:
            self._people[patient] = _Person(patient, patients=[patient])
        return self._people[patient]

    def place(self, position: int, patient: str, twins: list[int]) -> None:
        """Seat the image `position`; twins: its earlier near-duplicates."""
        seated = [twin for twin in twins if self.roles[twin] != EXCLUDED]
        tainted = [twin for twin in twins if self._owners[twin] in self.barred]
        person = self.person(patient)
        if person.home is None:
            if look_alikes := sorted(seated + tainted):
                person = self._unite(self.person(self._owners[look_alikes[0]]), person)
            else:
                person.home = bucket(patient, self.params.salt, self.params.shares)
        home = person.home or EXCLUDED
        if person.first is None:
            person.first = position
            person.name = patient
        out = patient in self.barred or bool(tainted) or any(self.roles[twin] != home for twin in seated)
        self.roles.append(EXCLUDED if out else home)
        self._owners.append(patient)
        self._images.setdefault(patient, []).append(position)
        for twin in [] if out else seated:
            self._unite(self.person(self._owners[twin]), self.person(patient))

    def merge(self, patient: str, other: str) -> None:
        """Make one person of two; the one who arrived first keeps the role."""
        one, two = self.person(patient), self.person(other)
        if one is two:
            return
        first, second = sorted((one, two), key=lambda person: (person.first is None, person.first or 0))
        if second.home is not None and second.home != first.home:
            for name in second.patients:
                self.barred.add(name)
                for image in self._images.get(name, ()):
                    self.roles[image] = EXCLUDED
        self._unite(first, second)

    def _unite(self, one: _Person, two: _Person) -> _Person:
        """One person of two whose roles agree, are not dealt yet, or have been settled; `one` decides."""
        if one is two:
            return one
        arrived = [person for person in (one, two) if person.first is not None]
        one.name = min(arrived, key=lambda person: person.first or 0).name if arrived else one.name
        one.first = min((person.first for person in arrived if person.first is not None), default=None)
        one.home = one.home or two.home
        one.patients += two.patients
        for name in two.patients:
            self._people[name] = one
        return one
