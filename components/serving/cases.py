"""What the service writes down about a case: predictions, reads, and what the readers agreed on. Pseudonyms only."""

from __future__ import annotations

import hashlib
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from components.serving.bundle import Call


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class LoggedPrediction(_Record):
    """One bundle's word on one image. `id` follows from both, so logging it again changes nothing.

    `inclusion_probability` is the probability with which any case was drawn for blind audit at that time; `audit`
    says whether this one was. `quality` is `radiograph.quality.measure`'s dict; `embedding` the bundle's, as floats.
    """

    id: str
    time: datetime
    image_id: str
    patient_id: str
    study_id: str
    site: str
    device: str
    view: str
    body_region: str
    bundle_hash: str
    version: str
    probability: float = Field(ge=0, le=1)
    logit: float
    call: Call
    audit: bool
    inclusion_probability: float = Field(ge=0, le=1)
    quality: dict[str, float | int | bool | str | None]
    embedding: tuple[float, ...]

    @staticmethod
    def key(image_id: str, bundle_hash: str) -> str:
        """The id of this image's prediction by this bundle: 20 hex characters."""
        return hashlib.sha256(f"{image_id}/{bundle_hash}".encode()).hexdigest()[:20]


class Correction(_Record):
    """A clinician's read of a case. A reader may read again: the latest read of a reader counts.

    `label` is of the vocabulary (fracture, no_fracture, unknown); `boxes` are x, y, width, height in pixels of the
    stored image; `blinded`: the AI output was withheld; `settled`: the batch of label events it went into.
    """

    id: str
    prediction_id: str
    image_id: str
    time: datetime
    reader: str = Field(min_length=1)
    label: str
    boxes: tuple[dict[str, float], ...] = ()
    blinded: bool = False
    adjudicator: bool = False
    note: str = ""
    settled: str | None = None


class Truth(_Record):
    """What the readers of one image agreed on."""

    image_id: str
    time: datetime
    label: str
    ai_visible: bool
    batch: str


class Case(_Record):
    """A prediction with every read of its image, oldest first, whichever bundle they were shown."""

    prediction: LoggedPrediction
    reads: tuple[Correction, ...]

    def withheld(self, readers: int) -> bool:
        """Whether the AI output is still hidden: an audit case that fewer than `readers` people have read blind."""
        return self.prediction.audit and len({read.reader for read in self.reads if read.blinded}) < readers
