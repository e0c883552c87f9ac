"""Noun: what the quality of a picture means for whoever reads it, and when no call is made on it.

Thresholds: clinical reference, section 5. They are about any radiograph; a site's own belong to `validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from components.serving.bundle import Prediction

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
    ("familiar", lambda v: v is False, "Unlike the images that the model was checked on; it makes no call."),
]
NO_RADIOGRAPH = ("grey_levels", "clutter")  # beyond these two nothing of a radiograph is left to judge


def warnings(quality: Mapping[str, Any]) -> list[str]:
    """What a reader should know about the picture itself, in sentences."""
    return [sentence for _, sentence in _broken(quality)]


def abstain(said: Prediction, quality: Mapping[str, Any]) -> Prediction:
    """`said`; of what is no radiograph without call and set, but with the probability, for the log.

    Args:
        quality: what `radiograph.quality.measure` says of the same picture.
    """
    return replace(said, call="review", prediction_set=None) if no_radiograph(quality) else said


def no_radiograph(quality: Mapping[str, Any]) -> bool:
    """Whether nothing of a radiograph is left to judge."""
    return any(name in NO_RADIOGRAPH for name, _ in _broken(quality))


def _broken(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, sentence) for name, bad, sentence in RULES if (v := quality.get(name)) is not None and bad(v)]
