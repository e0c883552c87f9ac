"""A truth that was given beside the AI's answer never judges it: over random histories of an archive that grows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.merges import one_person
from components.dataset.places import EXCLUDED, Merge
from components.dataset.split import seated
from components.params import Shares, Split

PARAMS = Split(salt="osteoflow", shares=Shares(train=35, tune=10, calibrate=15, test=40))

# An image arrives, whose truth may be aided, and may repeat earlier ones; two pseudonyms turn out to be one person; a
# patient leaves; or an image that is here, the n-th from the end, gets a truth that is aided.
patients = st.integers(0, 9).map(str)
arrival = st.tuples(st.just("image"), patients, st.sets(st.integers(1, 12), max_size=2), st.booleans())
merge = st.tuples(st.just("merge"), patients, patients)
leaving = st.tuples(st.just("leave"), patients)
aided = st.tuples(st.just("aided"), st.integers(1, 12))
histories = st.lists(st.one_of(arrival, arrival, arrival, aided, merge, leaving), max_size=24)


def archive(events: list[tuple], *, heard: bool = True) -> pd.DataFrame:
    """The seated images after some events. heard: False: as if no truth had been aided."""
    names: list[str] = []
    aided: list[bool] = []
    pairs: list[tuple[int, int]] = []
    merges: list[Merge] = []
    left: set[str] = set()
    for kind, *said in events:
        if kind == "image":
            pairs += [(len(names) - back, len(names)) for back in sorted(said[1]) if back <= len(names)]
            names.append(said[0])
            aided.append(said[2])
        elif kind == "merge":
            merges.append(Merge(len(names), *said))
        elif kind == "leave":
            left.add(said[0])
        elif said[0] <= len(names):
            aided[-said[0]] = True
    ids = [f"image-{n}" for n in range(len(names))]
    table = pd.DataFrame({"image_id": ids, "patient_id": names, "ai_visible": np.array(aided, bool) & heard})
    found = seated(table, np.array(pairs, np.int64).reshape(-1, 2), PARAMS, merges, one_person(left, merges))
    return found.assign(aided=np.array(aided, bool))


@given(histories, st.integers(0, 24))
@settings(deadline=None, max_examples=1000)
def test_no_aided_image_ever_judges(events, step):
    """Now and later; and what it has been told once, an image of the test set is never again."""
    before, after = archive(events[:step]), archive(events)
    aided = before[before["aided"]]

    assert "test" not in set(aided["role"]) | set(after.loc[after["aided"], "role"])
    assert "test" not in set(after.loc[aided.index, "role"])


@given(histories)
@settings(deadline=None, max_examples=200)
def test_an_aided_truth_moves_nobody_else(events):
    """It takes its own image out of the test set, and changes no other role."""
    found, unheard = archive(events), archive(events, heard=False)
    moved = found["role"] != unheard["role"]

    assert (moved == (found["aided"] & (unheard["role"] == "test"))).all()
    assert set(found.loc[moved, "role"]) <= {EXCLUDED}
