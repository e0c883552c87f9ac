"""Noun: what the quality of a picture means for whoever reads it, and when no call is made on it.

Thresholds: clinical reference, section 5. They are about any radiograph; a site's own belong to `validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from components.radiograph.labels import UNKNOWN
from components.serving.bundle import Prediction

FAMILIAR = "familiar"  # beside the measurements of quality: whether the picture is in the bundle's scope
UNSUPPORTED = "unsupported"  # beside the measurements of quality: what a file states and the bundle was not checked on
REGION_SEEN = "region_seen"  # beside the measurements of quality: the region of a picture whose tag is contradicted
RULES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("polarity_ok", lambda v: v is False, "Light and dark may be reversed."),
    ("saturation", lambda v: v >= 0.05, "Large parts are at the limit of the detector's range."),
    ("deviation_index", lambda v: v > 3, "Strongly overexposed."),
    ("deviation_index", lambda v: v < -3, "Strongly underexposed."),
    ("grey_levels", lambda v: v < 64, "Very few grey levels; fine detail is lost."),
    ("field_fraction", lambda v: v < 0.25, "Only a small part of the picture is exposed."),
    ("cnr", lambda v: v < 3, "Bone stands out little from its surroundings."),
    ("motion", lambda v: v > 8, "The picture may be blurred by movement."),
    ("clutter", lambda v: v > 50, "This does not look like a radiograph."),
    (UNSUPPORTED, lambda v: bool(v), "The model was not checked on pictures of this kind ({}); it makes no call."),
    (REGION_SEEN, lambda v: bool(v), "The picture shows another body region than its file states: {}."),
    (FAMILIAR, lambda v: v is False, "Unlike the images that the model was checked on; it makes no call."),
]
OF_THE_MODEL = (FAMILIAR, UNSUPPORTED, REGION_SEEN)  # its word, not a measurement: withheld where its answer is
NO_RADIOGRAPH = ("grey_levels", "clutter")  # beyond these two nothing of a radiograph is left to judge
Reason = Literal["no_radiograph", "unsupported", "other_region", "unfamiliar", "between_points"]
WHY: dict[Reason, str] = {
    "no_radiograph": "The picture does not look like a radiograph",
    "unsupported": "The model was not checked on this body region or view",
    "other_region": "It shows another body region than its file states",
    "unfamiliar": "Unlike the images that the model was checked on",
    "between_points": "Between the operating points of the model",
}
NOT_THE_BUNDLES = ("no_radiograph", "unsupported", "other_region")  # it does not know of these by itself


def warnings(quality: Mapping[str, Any], *, hidden: bool = False) -> list[str]:
    """What a reader should know about the picture itself, in sentences.

    Args:
        hidden: the model's answer is withheld, and so is what it says of the picture.
    """
    return [sentence for name, sentence in _broken(quality) if not (hidden and name in OF_THE_MODEL)]


def abstain(said: Prediction, quality: Mapping[str, Any], region: str = UNKNOWN, view: str = UNKNOWN) -> Prediction:
    """`said`, with the call left to a person where the picture is no radiograph, shows another body region than its
    file states, or is of a body region or view that the bundle was not checked on.

    The probability is kept for the log. The prediction set is dropped: of what is no radiograph, or was not checked, it
    promises nothing, and beside a contradicted tag it would say more than the call does.

    Args:
        quality: what `radiograph.quality.measure` says of the same picture.
        region, view: what its file states.
    """
    if reason(said, quality, region, view) in NOT_THE_BUNDLES:
        return replace(said, call="review", prediction_set=None)
    return said


def reason(said: Prediction, quality: Mapping[str, Any], region: str = UNKNOWN, view: str = UNKNOWN) -> Reason | None:
    """Why the call that `abstain` makes of `said` leaves the case to a person; None: it does not."""
    if no_radiograph(quality):
        return "no_radiograph"
    if unsupported(said, region, view):
        return "unsupported"
    if other_region(said, region):
        return "other_region"
    if not said.familiar:
        return "unfamiliar"
    return "between_points" if said.call == "review" else None


def other_region(said: Prediction, stated: str) -> str | None:
    """The body region that the bundle is sure to see where the file states another one; None: it does not object.

    Nothing can be said against a region that the bundle has not learned, nor where none is stated.
    """
    return said.region if stated in said.regions and said.region != stated else None


def unsupported(said: Prediction, region: str, view: str) -> str | None:
    """The body region or view that the file states and the bundle was not checked on; None: there is none."""
    return said.supported.lacks(region, view) if said.supported else None


def no_radiograph(quality: Mapping[str, Any]) -> bool:
    """Whether nothing of a radiograph is left to judge."""
    return any(name in NO_RADIOGRAPH for name, _ in _broken(quality))


def _broken(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = ((name, quality.get(name), bad, sentence) for name, bad, sentence in RULES)
    return [(name, sentence.format(v)) for name, v, bad, sentence in told if v is not None and bad(v)]
