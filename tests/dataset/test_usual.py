"""What is usual at a site, and how strange something else is there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from components.dataset.limits import Limits, SiteLimits, read_limits, record_limits
from components.dataset.usual import Usual
from components.radiograph import dicom
from components.radiograph.appearance import appearance
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, draw
from tests.benchmarks import planted

OWN = {"max_saturation": 0.5, "min_grey_levels": 20, "min_field_fraction": 0.1, "min_sharpness": 0.25}


def correlated(count: int, seed: int) -> np.ndarray:
    """(count, 6) normal numbers, each leaning on the one before."""
    loose = np.random.default_rng(seed).normal(size=(count, 6))
    return 10 + np.cumsum(loose, axis=1) * [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("count", [200, 1000])
def test_of_a_sites_own_images_few_are_strange(count):
    """One in two hundred is meant to be; ten thousand that it did not learn from, ten times."""
    shares = [
        (Usual.of(correlated(count, seed)).strangeness(correlated(10_000, 100 + seed)) > 1).mean() for seed in range(10)
    ]

    assert 0.002 < np.mean(shares) < 0.01
    assert max(shares) < 0.02


def test_what_breaks_the_pattern_is_strange_though_no_number_of_it_is():
    """Every number lies within a standard deviation; that they go together so does not."""
    usual, middle = Usual.of(correlated(500, 1)), correlated(100_000, 2)
    spread = middle.std(axis=0)
    broken = middle.mean(axis=0) + spread * [1, -1, 1, -1, 1, -1]

    assert usual.strangeness(broken[None])[0] > 3
    assert usual.strangeness(middle.mean(axis=0)[None])[0] < 0.1


def test_a_number_that_never_varies_is_no_error():
    same = np.ones((300, 3))

    assert Usual.of(same).strangeness(same)[0] <= 1
    assert Usual.of(same).strangeness(same + 1)[0] > 1


def test_what_was_learned_is_read_back(tmp_path):
    """To the last digit, in a file that a person can open; a site of before keeps its plain limits."""
    path = tmp_path / "limits.yaml"
    path.write_text("sites: {}\n")
    usual = Usual.of(correlated(300, 3))
    record_limits(path, "old", SiteLimits(images=200, **OWN), again=False)
    record_limits(path, "new", SiteLimits(images=200, **OWN, usual=usual), again=False)

    assert read_limits(path).usual == {"new": usual}
    assert read_limits(path).sites["old"].usual is None


@pytest.mark.parametrize("axes", [((1.0, 2.0),), ((1.0, 2.0), (1.0,)), ()])
def test_axes_that_do_not_fit_are_refused(axes):
    with pytest.raises(ValidationError, match="expected rows of 1 number to 2 numbers"):
        Limits(sites={"a": {"images": 200, **OWN, "usual": {"center": (0.0, 0.0), "axes": axes}}})


def test_a_gray_photograph_is_strange_among_phantoms():
    """Parts of three photographs, none of which it has seen; of forty more phantoms at most one."""
    rng, pictures = np.random.default_rng(4), []
    for patient in range(240):
        data = draw(4, patient=patient, detector=DETECTOR_A, fracture=patient % 5 == 0).dicom
        pictures.append(dicom.read(data, Pseudonyms(bytes(32))).pixels)
    looks = np.stack([appearance(pixels) for pixels in pictures])
    usual = Usual.of(looks[:200])
    small = [cv2.convertScaleAbs(pixels, alpha=1 / 16) for pixels in pictures[:20]]
    photographs = [planted.photo(pixels, rng) for pixels in small] + [planted.portrait(pixels, rng) for pixels in small]

    assert (usual.strangeness(np.stack([appearance(pixels) for pixels in photographs])) > 1).all()
    assert (usual.strangeness(looks[200:]) > 1).sum() <= 1
