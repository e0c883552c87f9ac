"""Prediction sets: the cuts are the known ones, patients weigh alike, and only the order of the scores counts."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.model import measure
from components.model.conformal import conformal


def test_one_image_a_patient_gives_the_textbook_quantile():
    """19 fractures at alpha .1: the 18th of 19 from above, which is ceil(20 * .9); 9 others: the 9th from below."""
    p = np.r_[np.arange(1, 20) / 20, np.arange(1, 10) / 20]
    found = conformal(np.r_[np.ones(19), np.zeros(9)], p, np.arange(28).astype(str), 0.1)

    assert (found.fracture_from, found.no_fracture_to) == (2 / 20, 9 / 20)
    assert (found.fracture_patients, found.no_fracture_patients) == (19, 9)


def test_too_few_patients_exclude_nothing():
    """Eight patients cannot say what a tenth of the others look like, with however many images."""
    found = conformal(np.r_[np.ones(80), np.zeros(80)], np.linspace(0, 1, 160), (np.arange(160) // 10).astype(str), 0.1)

    assert (found.fracture_from, found.no_fracture_to) == (0.0, 1.0)
    assert found.labels(0.5) == ("fracture", "no_fracture")


def test_a_patient_weighs_as_one_however_many_images_it_has():
    """A patient whose one image is taken a hundred times changes no cut."""
    random = np.random.default_rng(0)
    label, p, who = np.arange(60) % 2.0, random.random(60), np.arange(60)
    again = np.r_[np.arange(60), np.zeros(99, int), np.ones(99, int)]

    assert conformal(label[again], p[again], who[again], 0.1) == conformal(label, p, who, 0.1)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 99)), min_size=30, max_size=80), st.floats(0.1, 5))
def test_only_the_order_of_the_scores_counts(rows, slope):
    """Whatever rising line is fitted on the same images, each is in the same set: Platt takes nothing away."""
    who, percent = (np.array(column) for column in zip(*rows, strict=True))
    p = percent / 100
    label = np.arange(len(rows)) % 2.0
    bent = p**slope  # rises; its values are others
    plain, other = conformal(label, p, who, 0.2), conformal(label, bent, who, 0.2)

    assert [plain.labels(v) for v in p] == [other.labels(v) for v in bent]


def test_the_figures_of_sets():
    """Four images, cuts .4 and .6: one set of both labels, two settled rightly, one wrongly, no empty one."""
    kinds = np.r_[np.ones(10), np.zeros(10)]
    cuts = conformal(kinds, np.r_[np.full(10, 0.4), np.full(10, 0.6)], np.arange(20), 0.1)
    found = measure.sets(np.array([1.0, 1, 0, 0]), np.array([0.5, 0.9, 0.3, 0.8]), np.arange(4), cuts)

    assert (found.fracture_covered.value, found.no_fracture_covered.value) == (1.0, 0.5)
    assert (found.both.value, found.settled.value, found.none.value) == (0.25, 0.75, 0.0)
    assert (found.sensitivity.value, found.specificity.value) == (1.0, 0.5)
    assert measure.sets(kinds, kinds, np.arange(20), None) is None


def test_the_cuts_name_their_role(trained):
    """They come from `calibrate`, over its patients: 20 pairs of one fracture and one other."""
    body = json.loads(trained.calibration.read_text())["conformal"]

    assert (body["source_role"], body["alpha"]) == ("calibrate", 0.1)
    assert (body["fracture_patients"], body["no_fracture_patients"]) == (20, 20)
