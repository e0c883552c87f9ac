"""Text in the pixels is found, read and painted over; markers, bone and what the sender claims are told apart."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest

from components.errors import UnreadableImage
from components.radiograph import burned_in, glyphs
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.glyphs import Area
from components.radiograph.image import Radiograph
from components.radiograph.labels import Box
from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, draw

NAME = "MUSTERFRAU ERIKA"


@pytest.fixture(scope="module")
def phantom() -> Radiograph:
    return read(draw(3, patient=3, detector=DETECTOR_A, fracture=True).dicom, Pseudonyms(bytes(32)))


def written(image: Radiograph, words: str, *, at: tuple[int, int] = (20, 40), turn: int = 0, dark: bool = False,
            size: float = 0.6) -> tuple[Radiograph, Area]:  # fmt: skip
    """`image` with words drawn in its white (or black), and where they stand."""
    pixels = np.ascontiguousarray(np.rot90(image.pixels, turn))
    ink = np.zeros(pixels.shape, np.uint8)
    cv2.putText(ink, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, 2, cv2.LINE_AA)
    share, grey = ink / 255, 0 if dark else int(pixels.max())
    pixels = np.rint(share * grey + (1 - share) * pixels).astype(pixels.dtype)
    pixels = np.ascontiguousarray(np.rot90(pixels, -turn))
    rows, columns = np.nonzero(pixels != image.pixels)
    area = Area(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    return Radiograph(image.meta, pixels), area


def areas(image: Radiograph) -> list[Area]:
    return [Area(**area) for area in json.loads(image.meta.masked or "[]")]


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_name_is_painted_over(phantom, turn):
    """Whichever way it is turned: nothing of it can be read afterwards, and the metadata says where it was."""
    image, where = written(phantom, NAME, turn=turn)
    clean = burned_in.clean(image, "mask")
    left = [line.words for line in burned_in.read(clean.pixels, [])]

    assert areas(clean)[0].around(where) == areas(clean)[0]
    assert [words for words in left if len(words) > 2] == []


def test_the_rest_of_the_picture_stays(phantom):
    image, _ = written(phantom, NAME)
    clean = burned_in.clean(image, "mask")
    outside = np.ones(clean.pixels.shape, bool)
    for area in areas(clean):
        outside[area.window] = False

    assert (clean.pixels == image.pixels)[outside].all()
    assert outside.mean() > 0.9


def test_dark_text_on_a_bright_field_is_found():
    image = read(draw(4, patient=4, detector=DETECTOR_B, fracture=False).dicom, Pseudonyms(bytes(32)))
    pixels = image.pixels.copy()
    pixels[:80] = pixels.max()
    image, where = written(Radiograph(image.meta, pixels), NAME, dark=True)
    clean = burned_in.clean(image, "mask")

    assert areas(clean)[0].around(where) == areas(clean)[0]


@pytest.mark.parametrize("words", ["LEFT AP", "R WRIST", "ERECT WB"])
def test_a_marker_stays(phantom, words):
    image, _ = written(phantom, words)

    assert burned_in.clean(image, "mask") is image


@pytest.mark.parametrize(
    ("words", "marker"),
    [
        ("L", True), ("R AP", True), ("Foot BV", True), ("KNEE LAT ERECT", True), ("RFOOT", True), ("72 CM", True),
        ("00002000000", True), ("TTT", True), ("", True),
        ("JM", False), ("R JM", False), ("12.03.1956", False), ("4711", False), ("LEFT MUELLER", False),
        ("\u5c71\u7530 \u592a\u90ce", False), ("\u039c\u03b1\u03c1\u03af\u03b1", False),
    ],
)  # fmt: skip
def test_a_marker_names_nobody(words, marker):
    """Sides, views, positions, parts and sizes; not initials, dates, numbers or names, in whatever letters."""
    assert burned_in.is_marker(words) is marker


def test_a_site_may_refuse_instead(phantom):
    image, _ = written(phantom, NAME)

    with pytest.raises(UnreadableImage) as refusal:
        burned_in.clean(image, "quarantine")
    assert refusal.value.reason == "burned_in_text"


def test_text_all_over_is_refused(phantom):
    image = phantom
    for row in range(40, phantom.pixels.shape[0] - 10, 40):
        image, _ = written(image, NAME + NAME, at=(5, row), size=1.0)

    with pytest.raises(UnreadableImage, match="covers"):
        burned_in.clean(image, "mask")


def test_declared_text_that_cannot_be_found_is_refused(phantom):
    """Burned In Annotation YES over a picture without any: nobody can say what it means."""
    with pytest.raises(UnreadableImage, match="none can be found"):
        burned_in.clean(Radiograph(phantom.meta, phantom.pixels, burned_in=True), "mask")


def test_declared_text_that_is_found_is_painted_over(phantom):
    image, _ = written(phantom, NAME)
    clean = burned_in.clean(Radiograph(image.meta, image.pixels, burned_in=True), "mask")

    assert len(areas(clean)) == 1


def test_what_was_read_is_never_said(phantom, caplog):
    """Neither in the refusal nor in a log, nor by the line itself."""
    image, _ = written(phantom, NAME)
    with caplog.at_level(logging.DEBUG), pytest.raises(UnreadableImage) as refusal:
        burned_in.clean(image, "quarantine")

    line = burned_in.Line(Area(0, 0, 1, 1), NAME, 1.0)
    assert "MUSTER" not in f"{refusal.value} {caplog.text} {line!r}".upper()


def test_cleaning_twice_changes_nothing(phantom):
    image, _ = written(phantom, NAME)
    once = burned_in.clean(image, "mask")

    assert burned_in.clean(once, "mask").sha256 == once.sha256


def test_a_box_on_a_painted_area_is_seen():
    masked = '[{"x": 10, "y": 10, "width": 20, "height": 5}]'

    assert burned_in.overlaps(masked, [Box(x=25, y=12, width=10, height=10)])
    assert not burned_in.overlaps(masked, [Box(x=40, y=40, width=10, height=10)])
    assert not burned_in.overlaps(None, [Box(x=25, y=12, width=10, height=10)])


@pytest.mark.parametrize("shape", [(8, 8), (20, 900), (1, 1), (300, 300)])
def test_pictures_without_letters_hold_none(shape):
    """Even, tiny, narrow, and full of noise."""
    noise = np.random.default_rng(1).integers(0, 65_535, shape).astype(np.uint16)

    assert glyphs.rows(np.zeros(shape, np.uint16)) == []
    assert isinstance(glyphs.rows(noise), list)


@pytest.mark.parametrize("number", range(6))
def test_phantoms_hold_none(number):
    image = read(draw(number, patient=number, detector=DETECTOR_B, fracture=True).dicom, Pseudonyms(bytes(32)))

    assert burned_in.clean(image, "mask") is image


def test_real_radiographs_keep_their_bones(real_data):
    """Of thirty real fractures without labels in the picture, nothing is taken for text but markers."""
    files = sorted((real_data / "fracatlas" / "images" / "Fractured").glob("*.jpg"))[100:130]
    pictures = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    found = [burned_in.read(pixels, rows) for pixels in pictures if (rows := glyphs.rows(pixels))]

    assert sum(not burned_in.is_marker(line.words) for lines in found for line in lines) == 0


def test_a_line_that_was_cut_short_is_painted_whole_and_the_bone_behind_it_is_not():
    """Candidates are rows of specks: one as thick as the line goes on with it, one much thicker is anatomy."""
    line = burned_in.Line(Area(100, 100, 30, 6), "words", 0.9)
    rest, bone = glyphs.Row(Area(90, 99, 60, 9), 6), glyphs.Row(Area(20, 40, 140, 200), 6)

    [area] = burned_in._whole([line], [rest, bone], (300, 300))

    assert area == Area(88, 97, 64, 13)
