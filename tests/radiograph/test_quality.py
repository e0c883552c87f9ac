"""Each number answers to the fault it is there to see, and to no other."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from components.radiograph import dicom
from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, draw
from components.radiograph.quality import FEATURES, measure


def limb(rows: int = 512, columns: int = 400, *, noise: float = 60, seed: int = 0) -> np.ndarray:
    """A textured limb with a bone, in dark air; uint16 within 12 bits."""
    rng = np.random.default_rng(seed)
    across = np.abs(np.arange(columns) - columns / 2)[None, :] + np.zeros((rows, 1))
    picture = np.where(across < columns * 0.3, 1400.0, 100.0)
    picture[across < columns * 0.08] = 2600
    picture += rng.normal(0, noise, picture.shape) * (across < columns * 0.3)
    return np.clip(picture, 0, 4095).astype(np.uint16)


@pytest.fixture
def measured(radiograph):
    return lambda pixels, bits=12, **meta: measure(radiograph(pixels, bits=bits, **meta))


def test_every_feature_is_there(measured):
    found = measured(limb())

    assert set(found) == {*FEATURES, "polarity_ok", "phash"}
    assert all(isinstance(found[name], int | float) for name in FEATURES)


def test_exposure_is_the_anatomys_share_of_the_range(measured):
    found = measured(limb())

    assert found["exposure_median"] == pytest.approx(1400 / 4095, abs=0.01)
    assert found["exposure_p99"] == pytest.approx(2700 / 4095, abs=0.03)


def test_depth_does_not_change_the_exposure(measured):
    shallow = measured((limb() >> 4).astype(np.uint8), bits=8)

    assert shallow["exposure_median"] == pytest.approx(measured(limb())["exposure_median"], abs=0.01)


@pytest.mark.parametrize("sigma", [20, 60, 150])
def test_noise_is_measured(measured, sigma):
    """The noise that was put in is found, in shares of the range, whatever the anatomy's edges."""
    assert measured(limb(noise=sigma))["noise"] * 4095 == pytest.approx(sigma, rel=0.1)


def test_contrast_is_in_units_of_noise(measured):
    assert measured(limb(noise=60))["cnr"] == pytest.approx(1200 / 60, rel=0.15)


def test_blur_lowers_sharpness(measured):
    """A blur of a hundredth of the long side."""
    sharp = limb()

    assert measured(cv2.GaussianBlur(sharp, (0, 0), 5))["sharpness"] < measured(sharp)["sharpness"] / 10


def textured(rows: int = 512, columns: int = 400) -> np.ndarray:
    """A limb whose bone has a pattern finer than itself, with hardly any noise."""
    pattern = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 1, (rows, columns)), (0, 0), 2)
    return np.clip(limb(rows, columns, noise=2) + 400 * pattern / pattern.std(), 0, 4095).astype(np.uint16)


@pytest.mark.parametrize("kernel", [(25, 1), (1, 25)])
def test_motion_lowers_sharpness_too(measured, kernel):
    """A smear of 5% of the long side, across the bone or along it."""
    assert measured(cv2.blur(textured(), kernel))["sharpness"] < measured(textured())["sharpness"] / 2


def test_a_page_of_text_is_clutter(measured):
    page = np.full((512, 400), 240, np.uint8)
    for line in range(20, 500, 16):
        cv2.putText(page, "the quick brown fox jumps over it", (10, line), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (30,), 1)

    assert measured(page, bits=8)["clutter"] > 500
    assert measured(limb(noise=10))["clutter"] < 13


def test_a_large_picture_is_measured_as_a_small_one_is(measured):
    """Halving, the pitch, and the share of the rows that is looked at change no number that a limit is about."""
    small, large = measured(textured()), measured(cv2.resize(textured(), (1600, 2048), interpolation=cv2.INTER_CUBIC))

    for name in ("exposure_median", "field_fraction"):
        assert large[name] == pytest.approx(small[name], abs=0.01)
    assert large["sharpness"] == pytest.approx(small["sharpness"], rel=0.15)
    assert large["clutter"] == pytest.approx(small["clutter"], rel=0.15)


def test_motion_shows_its_direction(measured):
    still = limb()
    moved = cv2.blur(still, (1, 9))

    assert measured(still)["motion"] < 1.5
    assert measured(moved)["motion"] > 3


def test_saturation_is_a_share_of_the_anatomy(measured):
    burnt = limb()
    burnt[:, 180:220] = 4095

    assert measured(limb())["saturation"] == 0
    assert measured(burnt)["saturation"] == pytest.approx(40 / 240, abs=0.02)


def test_few_grey_levels_are_counted(measured):
    assert measured((limb() // 512 * 512).astype(np.uint16))["grey_levels"] <= 8


@pytest.mark.parametrize("border", [0, 4095])
def test_the_collimators_border_is_not_the_field(measured, border):
    """Black or white borders of a quarter on each side leave a quarter of the area."""
    picture = np.full((1024, 800), border, np.uint16)
    picture[256:768, 200:600] = limb()

    assert measured(picture)["field_fraction"] == pytest.approx(0.25, abs=0.02)
    assert measured(picture)["exposure_median"] == pytest.approx(1400 / 4095, abs=0.02)


def test_the_deviation_index(measured):
    found = measured(limb(), exposure_index=500.0, target_exposure_index=250.0)["deviation_index"]

    assert found == pytest.approx(3.01, abs=0.01)


@pytest.mark.parametrize("index", [None, 0.0, -3.0])
def test_no_index_is_not_a_number(measured, index):
    assert math.isnan(measured(limb(), exposure_index=index, target_exposure_index=250.0)["deviation_index"])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"DeviationIndex": "-3.4"}, -3.4),
        ({"DeviationIndex": "-3.4", "ExposureIndex": "500"}, -3.4),
        ({"DeviationIndex": "-3.4", "TargetExposureIndex": "250"}, -3.4),
        ({"DeviationIndex": "-3.4", "ExposureIndex": "0", "TargetExposureIndex": "250"}, -3.4),
        ({"DeviationIndex": "-3.4", "ExposureIndex": "500", "TargetExposureIndex": "250"}, 3.01),
        ({"ExposureIndex": "500"}, None),
        ({"DeviationIndex": "-340"}, None),
    ],
)
def test_a_deviation_that_only_the_device_knows_counts(dicom_bytes, pseudonyms, stated, expected):
    """(0018,1413) speaks where (0018,1411) and (0018,1412) do not both; beyond 100 dB it is no deviation."""
    found = measure(dicom.read(dicom_bytes(limb(64, 48), **stated), pseudonyms))["deviation_index"]

    assert math.isnan(found) if expected is None else found == pytest.approx(expected, abs=0.01)


def test_wrong_polarity_is_noticed(measured):
    assert measured(limb())["polarity_ok"] is True
    assert measured((4095 - limb()).astype(np.uint16))["polarity_ok"] is False


@pytest.mark.parametrize("pixels", [np.zeros((20, 20)), np.full((300, 7), 255), np.eye(9) * 255, np.ones((1, 1))])
def test_an_odd_picture_is_measured_all_the_same(measured, pixels):
    found = measured(pixels.astype(np.uint8), bits=8)

    assert all(math.isfinite(found[name]) for name in FEATURES if name != "deviation_index")


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_a_copy_looks_the_same_and_another_does_not(measured, pseudonyms):
    first, second = (
        dicom.read(draw(1, patient=patient, detector=DETECTOR_A, fracture=False).dicom, pseudonyms).pixels
        for patient in (1, 2)
    )
    copy = cv2.resize(first, (200, 260), interpolation=cv2.INTER_AREA)

    assert distance(measured(first)["phash"], measured(copy)["phash"]) <= 4
    assert distance(measured(first)["phash"], measured(second)["phash"]) > 8
    assert len(measured(first)["phash"]) == 16


def test_phantoms_of_both_sites_are_good_images(pseudonyms):
    """Tag and pixels agree on polarity at both sites, and the second site is darker and noisier."""
    a, b = (
        [
            measure(dicom.read(draw(1, patient=n, detector=detector, fracture=False).dicom, pseudonyms))
            for n in range(1, 9)
        ]
        for detector in (DETECTOR_A, DETECTOR_B)
    )

    assert all(found["polarity_ok"] for found in a + b)
    assert np.median([found["noise"] for found in b]) > 1.5 * np.median([found["noise"] for found in a])
    assert np.median([found["deviation_index"] for found in b]) < -1


@pytest.mark.real_data
def test_real_radiographs_are_measured_sanely(real_data, radiograph):
    """Tags are right in this archive: polarity must not be doubted, nor the field lost."""
    files = sorted((real_data / "fracatlas" / "images").glob("*/*.jpg"))[::60]
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in files]
    found = [measure(radiograph(image)) for image in images if image is not None]

    assert len(found) > 30
    assert np.mean([one["polarity_ok"] for one in found]) > 0.97
    assert np.median([one["field_fraction"] for one in found]) > 0.8
    assert all(0 <= one["exposure_p1"] <= one["exposure_median"] <= one["exposure_p99"] <= 1 for one in found)
