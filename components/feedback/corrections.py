"""Noun: where the readers of each corrected case stand, and what their word weighs.

A read is worth nothing alone. `readers` people who agree settle a case; blind reads settle it before reads that saw
the AI output are asked, and only an adjudicator who saw the disagreement from outside may decide against them.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.serving.store import Correction, PredictionLog, agreement


@dataclass(frozen=True)
class Standing:
    """One image with reads that wait.

    Attributes:
        image_id: pseudonym.
        label: what settles the case now, None while it is open.
        reads: the reads that `label` rests on, oldest first.
        pending: the reads that wait, oldest first.
        blinded: every read that `label` rests on was made without the AI output.
        disagree: readers contradict each other and no adjudicator has decided.
        overturns: `label` is not what the newest prediction said; "review" said nothing.
    """

    image_id: str
    label: str | None
    reads: tuple[Correction, ...]
    pending: tuple[Correction, ...]
    blinded: bool
    disagree: bool
    overturns: bool


def standings(log: PredictionLog, *, readers: int) -> list[Standing]:
    """Every image with reads that wait, by image_id.

    Raises:
        Unavailable: the prediction log does not answer.
    """
    waiting = sorted({read.image_id for read in log.corrections(pending_only=True)})
    reads: dict[str, list[Correction]] = {image_id: [] for image_id in waiting}
    for read in log.corrections(image_ids=waiting):
        reads[read.image_id].append(read)
    return [_stand(log, image_id, reads[image_id], readers) for image_id in waiting]


def _stand(log: PredictionLog, image_id: str, reads: list[Correction], readers: int) -> Standing:
    everyone = agreement(reads, readers)
    blind = agreement([read for read in reads if read.blinded], readers)
    # Contradicting labels settle only through an adjudicator, so another label than the blind one is a verdict on it.
    chosen = everyone if blind.label is None or everyone.label not in (None, blind.label) else blind
    return Standing(
        image_id=image_id,
        label=chosen.label,
        reads=chosen.reads if chosen.label else (),
        pending=tuple(read for read in reads if read.settled is None),
        blinded=chosen.label is not None and all(read.blinded for read in chosen.reads),
        disagree=everyone.disagree,
        overturns=chosen.label is not None and log.of_image(image_id)[-1].call != chosen.label,
    )
