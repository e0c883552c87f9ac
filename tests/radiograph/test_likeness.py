"""One picture is known again whatever was done to the file; another person, or the mirror, is another picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.likeness import SIDE, _coarse, _to_first_order, likeness, thumbnail
from components.radiograph.phantom import DETECTOR_A, draw

SAME = 0.97  # params.yaml, match.likeness


def phantom(number: int) -> np.ndarray:
    """(rows, columns) uint8."""
    drawn = draw(number, patient=number, detector=DETECTOR_A, fracture=False)
    pixels = read(drawn.dicom, Pseudonyms(bytes(32))).pixels.astype(np.float32)
    return (pixels * (255 / pixels.max())).astype(np.uint8)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return phantom(1)


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(likeness(np.stack([thumbnail(one), thumbnail(other)]), np.array([[0, 1]]))[0])


def turned(picture: np.ndarray, degrees: float) -> np.ndarray:
    rows, columns = picture.shape
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1)
    return cv2.warpAffine(picture, turn, (columns, rows), borderMode=cv2.BORDER_REPLICATE)


def marked(picture: np.ndarray) -> np.ndarray:
    scale = picture.shape[0] / 400
    return cv2.putText(picture.copy(), "L 12", (10, int(30 * scale)), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 2)


CHANGES = {
    "jpeg": lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0),
    "half": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "cropped": lambda p: p[round(p.shape[0] * 0.03) :, : round(p.shape[1] * 0.97)],
    "brighter": lambda p: cv2.convertScaleAbs(p, alpha=1, beta=20),
    "gamma": lambda p: (255 * (p / 255.0) ** 0.7).astype(np.uint8),
    "turned": lambda p: turned(p, 2),
    "marked": marked,
    "16 bit": lambda p: p.astype(np.uint16) * 200,
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_picture_is_known_again(picture, change):
    assert alike(picture, CHANGES[change](picture)) >= SAME


@pytest.mark.parametrize("mirror", [np.fliplr, np.flipud], ids=["left for right", "upside down"])
def test_the_mirror_is_another_picture(picture, mirror):
    assert alike(picture, np.ascontiguousarray(mirror(picture))) < SAME


def test_another_person_is_another_picture(picture):
    """Twenty of them."""
    assert max(alike(picture, phantom(number)) for number in range(2, 22)) < SAME


def test_order_does_not_matter_to_whom_a_pair_belongs(picture):
    thumbnails = np.stack([thumbnail(p) for p in (picture, phantom(2), marked(picture), phantom(3))])
    found = likeness(thumbnails, np.array([[0, 1], [2, 0], [3, 1], [1, 2]]))

    assert list(found >= SAME) == [False, True, False, False]


def test_a_likeness_does_not_depend_on_the_company(picture):
    """Alone or among many, to the last bit: what was compared tonight need not be compared again."""
    copies = [picture, marked(picture), turned(picture, 1), turned(picture, 2), CHANGES["jpeg"](picture)]
    thumbnails = np.stack([thumbnail(p) for p in copies])
    pairs = np.argwhere(np.triu(np.ones((5, 5)), 1))
    together = likeness(thumbnails, pairs)

    assert together.min() > 0.9
    assert [likeness(thumbnails, pair[None])[0] for pair in pairs] == together.tolist()


def test_to_first_order_does_not_depend_on_the_company():
    """The gate's number, of 40 pictures of noise: one product of all of them would differ in the last bit."""
    coarse = _coarse(np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE), dtype=np.uint8))
    pairs = np.argwhere(np.triu(np.ones((40, 40)), 1))
    together = _to_first_order(coarse, pairs)

    assert [_to_first_order(coarse, pair[None])[0] for pair in pairs] == together.tolist()


def test_a_flat_picture_is_like_nothing(picture):
    flat = np.full((300, 200), 7, np.uint8)

    assert alike(flat, flat) == 0
    assert alike(flat, picture) < SAME


def test_noise_is_like_no_other_noise():
    """Both are told apart before any registration."""
    one, other = np.random.default_rng(0).integers(0, 256, (2, 96, 96), dtype=np.uint8)

    assert alike(one, other) == 0
    assert alike(one, one) > SAME


def test_a_thumbnail_has_one_size(picture):
    small = thumbnail(picture[:20, :9].astype(np.uint16) * 256)

    assert (small.shape, small.dtype) == ((SIDE, SIDE), np.uint8)


def test_no_pairs_no_work():
    assert likeness(np.empty((0, SIDE, SIDE), np.uint8), np.empty((0, 2), np.int64)).shape == (0,)
