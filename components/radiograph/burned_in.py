"""Text in the pixels: found, read, and painted over unless it is a radiographer's marker.

Two steps: `glyphs.rows` says where letters may stand, for a few ms an image; only there a text recogniser
(PP-OCRv4 through RapidOCR, its models in the wheel) is run. What it reads is compared with the words of markers and
never stored, logged or shown: an area is all that is kept.

Source: DICOM PS3.15 E.3.1, clean pixel data option (113101); PS3.3 C.7.6.1.1 Burned In Annotation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from components.errors import UnreadableImage
from components.radiograph.glyphs import Area, Row, merged, rows
from components.radiograph.image import Radiograph

if TYPE_CHECKING:
    from rapidocr_onnxruntime import RapidOCR

Policy = Literal["mask", "quarantine"]
REASON = "burned_in_text"
GLYPH = 28  # pixels a letter is high when it is read: what the recogniser was trained on
LONGEST = 1280  # pixels of the longest side of what is read at once
MOST_AREAS = 12  # candidate areas beyond which the whole picture is read at once
SURE = 0.3  # the recogniser's confidence below which nobody can say whether it is text
PATTERN = 0.8  # share of one character in a line that makes it a row of holes or teeth, read as 0000 or 1111
COVER = 0.2  # share of the picture that may be painted over: more leaves too little of a radiograph
TALL = 3  # times as thick as a line: a candidate that is thicker is no part of it, but anatomy that looks like letters
DIGITS = 3  # in one line: a size or a number of the view; four may be a year

# Words of radiographic markers, in the languages of the DICOM and ISO vocabularies this platform reads.
_WORDS = """
L R LT RT LEFT RIGHT LI RE LINKS RECHTS B BV BILAT BILATERAL BOTH
AP PA DP PD LAT LATERAL LATERO MED MEDIAL ML LM OBL OBLIQUE LAO RAO LPO RPO FRONTAL AXIAL TANGENTIAL SKYLINE MORTISE
SCAPHOID ROSENBERG DECUB DECUBITUS XTABLE CROSS TABLE HORIZONTAL BEAM
WB NWB FWB PWB WEIGHT BEARING NON ERECT UPRIGHT STANDING STAND SUPINE PRONE SITTING SEMI SEMIERECT UP DOWN
PORTABLE MOBILE STRESS FLEXION EXTENSION FLEX EXT INT INTERNAL EXTERNAL ROTATION ROT NEUTRAL INSPIRATION EXPIRATION
HAND WRIST FINGER THUMB FOREARM ELBOW ARM HUMERUS SHOULDER CLAVICLE HIP PELVIS FEMUR THIGH KNEE PATELLA LEG TIBIA
FIBULA     ANKLE FOOT TOE TOES HEEL CALCANEUS CHEST RIBS SPINE SKULL JOINT VIEW POST PRE OP CAST PLASTER
CM MM KV MAS KVP SID X-RAY XRAY AND OF THE
"""
MARKERS = frozenset(_WORDS.split())


@dataclass(frozen=True)
class Line:
    """A line of text: where, what, and how sure the recogniser is. The words stay in memory."""

    area: Area
    words: str
    sure: float

    def __repr__(self) -> str:
        return f"Line({self.area}, words hidden)"


def clean(image: Radiograph, policy: Policy) -> Radiograph:
    """`image` without text that is no marker; the areas painted over are written into its metadata.

    Args:
        policy: "mask" paints such text over; "quarantine" refuses the image.

    Where the sender says that there is text (0028,0301), the whole picture is read, and an image in which none is
    found is refused, for nobody can say where it is.

    Raises:
        UnreadableImage: reason burned_in_text.
    """
    candidates = rows(image.pixels)
    if not candidates and not image.burned_in:
        return image
    found = read(image.pixels, [] if image.burned_in else candidates)
    if image.burned_in and not found:
        raise UnreadableImage("the sender says that text is burned in, and none can be found", reason=REASON)
    strange = [line for line in found if not is_marker(line.words)]
    if not strange:
        return image
    if policy == "quarantine":
        raise UnreadableImage(f"{len(strange)} line(s) of burned-in text", reason=REASON)
    if unsure := sum(line.sure < SURE for line in strange):
        raise UnreadableImage(f"{unsure} line(s) of burned-in text that cannot be made out", reason=REASON)
    areas = _whole(strange, candidates, image.pixels.shape)
    covered = sum(area.width * area.height for area in areas) / image.pixels.size
    if covered > COVER:
        raise UnreadableImage(f"burned-in text covers {covered:.0%} of the image", reason=REASON)
    boxes = [{"x": a.x, "y": a.y, "width": a.width, "height": a.height} for a in areas]
    meta = image.meta.model_copy(update={"masked": json.dumps(boxes)})
    return Radiograph(meta=meta, pixels=painted(image.pixels, areas), burned_in=image.burned_in)


def is_marker(words: str) -> bool:
    """Whether a line says no more than a marker does: known words, or too little to name anybody."""
    parts = re.findall(r"[^\W\d_]+|\d+", words.upper())
    letters = [part for part in parts if not part.isdigit()]
    digits = sum(len(part) for part in parts if part.isdigit())
    plain = "".join(parts)
    most = max(map(plain.count, plain), default=0)
    if len(plain) <= 1 or most == len(plain) or (len(plain) > 4 and most >= PATTERN * len(plain)):
        return True
    return digits <= DIGITS and all(part in MARKERS or _joined(part) for part in letters)


def _joined(word: str) -> bool:
    """Markers without the space between them, as recognisers like to read them ("RFOOT", "APERECT")."""
    return len(word) > 2 and any(
        word[:cut] in MARKERS and (word[cut:] in MARKERS or _joined(word[cut:])) for cut in range(1, len(word))
    )


def read(pixels: np.ndarray, candidates: list[Row]) -> list[Line]:
    """The lines of text in a picture, at `candidates`; anywhere when there are none or too many."""
    whole = Row(Area(0, 0, pixels.shape[1], pixels.shape[0]), GLYPH)
    places = _gathered(candidates, pixels.shape)
    found: list[Line] = []
    for place in places if 0 < len(places) <= MOST_AREAS else [whole]:
        found += _read_at(pixels, place)
    return found


def painted(pixels: np.ndarray, areas: Iterable[Area]) -> np.ndarray:
    """A copy with each area in the grey of what is around it."""
    copy = pixels.copy()
    for area in areas:
        ring = np.ones(pixels.shape, bool)[area.grown(4, pixels.shape).window]
        outer = area.grown(4, pixels.shape)
        ring[area.y - outer.y : area.y - outer.y + area.height, area.x - outer.x : area.x - outer.x + area.width] = 0
        around = pixels[outer.window][ring]
        copy[area.window] = np.median(around) if around.size else 0
    return copy


def overlaps(masked: str | None, boxes: Iterable[Any]) -> bool:
    """Whether a label's box (x, y, width, height in pixels of the image) lies on an area that was painted over."""
    areas = [Area(**area) for area in json.loads(masked)] if isinstance(masked, str) else []
    return any(
        area.meets(Area(int(box.x), int(box.y), int(box.width) + 1, int(box.height) + 1))
        for box in boxes
        for area in areas
    )


def _gathered(candidates: list[Row], shape: tuple[int, ...]) -> list[Row]:
    """Candidates with room around them, joined where they meet: a recogniser wants to see the ends of a line."""
    return merged([Row(row.area.grown(int(2 * row.glyph) + 4, shape), row.glyph) for row in candidates])


def _read_at(pixels: np.ndarray, place: Row) -> list[Line]:
    part = pixels[place.area.window]
    low, high, _, _ = cv2.minMaxLoc(part)
    factor = 255.0 / max(1.0, high - low)
    eight = cv2.convertScaleAbs(part, alpha=factor, beta=-low * factor)
    scale = min(GLYPH / max(1.0, place.glyph), LONGEST / max(part.shape), 4.0)
    if scale != 1.0:
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        eight = cv2.resize(eight, None, fx=scale, fy=scale, interpolation=way)
    lines, _ = _recogniser()(cv2.cvtColor(eight, cv2.COLOR_GRAY2BGR))
    found = []
    for corners, words, sure in lines or []:
        x, y, width, height = cv2.boundingRect(np.array(corners, np.float32))
        area = Area(
            place.area.x + int(x / scale),
            place.area.y + int(y / scale),
            int(width / scale) + 1,
            int(height / scale) + 1,
        )
        found.append(Line(area.grown(0, pixels.shape), words, float(sure)))
    return found


def _whole(strange: list[Line], candidates: list[Row], shape: tuple[int, ...]) -> list[Area]:
    """What to paint: the lines with a margin, and the rows of specks that they touch, for a line may be cut short."""
    areas = []
    for line in strange:
        thickness = min(line.area.width, line.area.height)
        area = line.area.grown(max(2, thickness // 5), shape)
        for row in candidates:
            if row.area.meets(area) and min(row.area.width, row.area.height) <= TALL * thickness:
                area = area.around(row.area.grown(max(2, int(row.glyph / 5)), shape))
        areas.append(area)
    return areas


@cache
def _recogniser() -> RapidOCR:
    """Loaded once a process (0.2 s), on one thread: images are the parallelism."""
    import logging

    from rapidocr_onnxruntime import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)  # it would say which picture holds no text
    return RapidOCR(
        intra_op_num_threads=1,
        inter_op_num_threads=1,
        text_score=0.0,
        min_height=1,
        width_height_ratio=-1,
        det_limit_side_len=32,
        det_limit_type="min",
    )
