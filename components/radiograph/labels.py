"""What may be said about a radiograph: a three-valued vocabulary, boxes, and label events that are never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.errors import UnknownLabel

FRACTURE = "fracture"
NO_FRACTURE = "no_fracture"
UNKNOWN = "unknown"
VALUES: dict[str, float | None] = {FRACTURE: 1.0, NO_FRACTURE: 0.0, UNKNOWN: None}

Provenance = Literal["archive", "report", "clinician", "adjudicated"]


def to_value(label: str) -> float | None:
    """1.0, 0.0, or None for unknown: an unknown label never becomes 0.

    Raises:
        UnknownLabel: `label` is outside the vocabulary.
    """
    try:
        return VALUES[label]
    except KeyError:
        raise UnknownLabel(f"label {label[:40]!r} is not one of {', '.join(VALUES)}") from None


class Box(BaseModel):
    """A fracture's bounding box: pixels of the stored image, 0-based, x and y of the top-left corner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: float = Field(ge=0)
    y: float = Field(ge=0)
    width: float = Field(gt=0)
    height: float = Field(gt=0)

    def holds(self, x: float, y: float, *, tolerance: float = 0.0) -> bool:
        """Whether a point lies in the box, its edge, or at most `tolerance` pixels from either side."""
        return (
            self.x - tolerance <= x <= self.x + self.width + tolerance
            and self.y - tolerance <= y <= self.y + self.height + tolerance
        )


class LabelEvent(BaseModel):
    """One statement about one image, by one reader, at one time. Events are appended, never changed.

    Attributes:
        event_id: follows from the content, so that saying it again changes nothing.
        time: ISO 8601, UTC.
        reader: pseudonym or role of who said it, or the archive's name.
        ai_visible: the reader had seen the AI's output; such a label never judges a model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    image_id: str
    time: str
    label: str
    boxes: tuple[Box, ...] = ()
    reader: str
    provenance: Provenance
    ai_visible: bool

    @classmethod
    def new(
        cls,
        *,
        image_id: str,
        time: str,
        label: str,
        reader: str,
        provenance: Provenance,
        boxes: Iterable[Box] = (),
        ai_visible: bool = False,
    ) -> LabelEvent:
        """An event whose id follows from what it says (not from when it was read in).

        Raises:
            UnknownLabel: `label` is outside the vocabulary.
        """
        to_value(label)
        kept = tuple(boxes)
        said: dict[str, Any] = {
            "image_id": image_id,
            "label": label,
            "boxes": [box.model_dump() for box in kept],
            "reader": reader,
            "provenance": provenance,
            "ai_visible": ai_visible,
        }
        if provenance in ("clinician", "adjudicated"):  # people may say the same again later, and mean it
            said["time"] = time
        event_id = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:20]
        return cls(
            event_id=event_id,
            image_id=image_id,
            time=time,
            label=label,
            boxes=kept,
            reader=reader,
            provenance=provenance,
            ai_visible=ai_visible,
        )


def boxes_of(text: object) -> tuple[Box, ...]:
    """The boxes of a row of `cases`: a JSON list, or nothing."""
    if not isinstance(text, str) or not text:
        return ()
    return tuple(Box.model_validate(box) for box in json.loads(text))
