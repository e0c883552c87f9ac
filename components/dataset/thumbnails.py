"""Small pictures of the images a report is about: what a reason code means is seen at a glance."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from components.radiograph.pixels import Transform, encode

SIDE = 160  # pixels
EACH = 8  # images of one reason that are shown
PICTURES = 12  # pictures with contradicting labels that are shown, each with every image of it
CONFLICT = "label_conflict"
Read = Callable[[pd.DataFrame], Iterator[tuple[str, np.ndarray]]]


def gallery(table: pd.DataFrame, read: Read) -> list[dict[str, object]]:
    """What the page shows: one block a reason, and one a picture that has opposite labels.

    Args:
        table: accepted or not, with image_id, label, reasons, picture_id; in order of arrival.
        read: gives (image_id, pixels) of some rows of `table`, in any order.

    Returns:
        [{"title", "images": [{"image_id", "label", "picture"}]}], `picture` a PNG as a data URI.
    """
    refused = table[table["reasons"] != ""]
    reasons = refused["reasons"].str.split(";").explode()
    blocks: list[tuple[str, pd.DataFrame]] = []
    pictures = refused.loc[reasons.index[reasons == CONFLICT], "picture_id"].drop_duplicates().head(PICTURES)
    blocks += [("one picture, opposite labels", table[table["picture_id"] == picture]) for picture in pictures]
    for reason in sorted(set(reasons) - {CONFLICT}):
        blocks.append((reason, refused.loc[reasons.index[reasons == reason]].head(EACH)))
    shown = {image_id for _, rows in blocks for image_id in rows["image_id"]}
    drawn = {image_id: _uri(pixels) for image_id, pixels in read(table[table["image_id"].isin(shown)])}
    return [
        {
            "title": title,
            "images": [
                {"image_id": image_id, "label": _word(label), "picture": drawn[image_id]}
                for image_id, label in zip(rows["image_id"], rows["label"], strict=True)
            ],
        }
        for title, rows in blocks
    ]


def _uri(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(encode(Transform(SIDE).apply(pixels))).decode()


def _word(label: float) -> str:
    return {1.0: "fracture", 0.0: "no fracture"}.get(label, "unknown")
