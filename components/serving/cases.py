"""What the service writes down about a case: predictions, reads, and when readers agree. Pseudonyms only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from components.radiograph.labels import FRACTURE, NO_FRACTURE, UNKNOWN
from components.serving.bundle import Call, PredictionSet

if TYPE_CHECKING:
    from components.radiograph.deidentify import Pseudonyms  # brings pydicom, which most readers of the log do without

LEFT = {
    (FRACTURE, NO_FRACTURE): "Cannot rule out either: fracture and no fracture both stay possible",
    (FRACTURE,): "Fits fractures only",
    (NO_FRACTURE,): "Fits images without a fracture only",
    (): "Fits neither: rare among fractures and among the others",
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class LoggedPrediction(_Record):
    """One bundle's word on one image. `id` follows from both, so logging it again changes nothing.

    `inclusion_probability` is the probability with which any case was drawn for blind audit at that time; `audit`
    says whether this one was. `quality` is `radiograph.quality.measure`'s dict, and what caution.py adds to it, as
    `familiar`: whether the picture is in the bundle's scope. `embedding` is the bundle's, as floats. `prediction_set`:
    the labels that were not ruled out; None where the call was left to a person, or the bundle or the log of that time
    had no such set.
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
    prediction_set: PredictionSet | None = None

    @staticmethod
    def key(image_id: str, bundle_hash: str) -> str:
        """The id of this image's prediction by this bundle: 20 hex characters."""
        return hashlib.sha256(f"{image_id}/{bundle_hash}".encode()).hexdigest()[:20]


class Comparison(_Record):
    """What champion and candidate say of one image in a stage of a roll-out: the answer given, and a silent one.

    `stage` is the hash of the ledger's stage entry. `answered`: the candidate's word was the answer, and the champion's
    is the silent one. `probability`, `call` and `milliseconds` are the candidate's; `error` is the class of what it
    raised, and then it has said nothing. `champion_probability` is None where the champion failed in silence.
    """

    stage: str
    image_id: str
    patient_id: str
    time: datetime
    champion_hash: str
    candidate_hash: str
    answered: bool
    champion_probability: float | None = Field(default=None, ge=0, le=1)
    champion_call: Call | None = None
    probability: float | None = Field(default=None, ge=0, le=1)
    call: Call | None = None
    milliseconds: float = Field(ge=0)
    error: str | None = None


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


@dataclass(frozen=True)
class Agreement:
    """Where the readers of one image stand.

    Attributes:
        label: what they agreed on, None while it is open.
        reads: the reads that label rests on, oldest first.
        disagree: definite labels contradict each other and no adjudicator has decided.
        closed: nobody is waited for: a label stands, an adjudicator has read, or `readers` people could not tell.
    """

    label: str | None
    reads: tuple[Correction, ...]
    disagree: bool
    closed: bool


def agreement(reads: Iterable[Correction], readers: int) -> Agreement:
    """Apply the reading protocol to the reads of one image.

    The latest read of a person counts. `readers` people who agree settle a case; if definite labels contradict each
    other, a person who had no part in the disagreement decides as adjudicator. "unknown" settles nothing.
    """
    ordered = sorted(reads, key=lambda read: (read.time, read.id))
    latest = {_person(read): read for read in ordered}
    ordinary = {_person(read) for read in ordered if not read.adjudicator}
    definite = [read for read in latest.values() if read.label != UNKNOWN]
    judges = [read for read in latest.values() if read.adjudicator and _person(read) not in ordinary]
    labels = {read.label for read in definite}
    judged = {read.label for read in judges if read.label != UNKNOWN}
    label: str | None = None
    if len(labels) == 1 and len(definite) >= readers:
        label = next(iter(labels))
    elif len(labels) > 1 and len(judged) == 1:
        label = next(iter(judged))
    return Agreement(
        label=label,
        reads=tuple(sorted((read for read in definite if read.label == label), key=lambda read: (read.time, read.id))),
        disagree=len(labels) > 1 and label is None,
        closed=label is not None or bool(judges) or len(latest) - len(definite) >= readers,
    )


def _person(read: Correction) -> str:
    """`Reader-1 ` and `reader-1` are one person."""
    return " ".join(read.reader.split()).casefold()


class Case(_Record):
    """A prediction with every read of its image, oldest first, whichever bundle they were shown."""

    prediction: LoggedPrediction
    reads: tuple[Correction, ...]

    def withheld(self, readers: int) -> bool:
        """Whether the AI output is still hidden: an audit case whose blind reads have not come to an end."""
        return self.prediction.audit and not agreement((r for r in self.reads if r.blinded), readers).closed


def drawn(pseudonyms: Pseudonyms, kind: str, value: str, share: float) -> bool:
    """Whether `value` is among this share of its `kind`: a keyed draw that nobody without the key can foresee."""
    digest = pseudonyms.of(kind, value)
    return bool(int(digest, 16) / 16 ** len(digest) < share)


def confidence(probability: float) -> str:
    """A calibrated probability in words: among images with this score, how many show a fracture."""
    if probability < 0.01:
        return "fewer than 1 in 100 such images show a fracture"
    if probability > 0.99:
        return "more than 99 in 100 such images show a fracture"
    if 0.1 <= probability <= 0.9:
        return f"about {round(probability * 10)} in 10 such images show a fracture"
    return f"about {round(probability * 100)} in 100 such images show a fracture"


def what_is_left(left: PredictionSet) -> str:
    """A prediction set in words: what it leaves open, and how often such sets are right."""
    promise = f"such sets hold the true answer for {100 * left.coverage:g}% of fractures and of the others"
    return f"{LEFT[left.labels]}; {promise}"
