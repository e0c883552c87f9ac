"""Boxes that archives draw, as they lie on the picture that is stored: turned the way the file says."""

from __future__ import annotations

from components.dataset.tree import File
from components.radiograph.labels import Box
from components.radiograph.raster import format_of, geometry, turn_box


def upright_size(file: File) -> tuple[int, int] | None:
    """(width, height) of a picture as it is looked at; None where it is none."""
    if (found := _measured(file)) is None:
        return None
    (rows, columns), orientation = found
    return (rows, columns) if orientation >= 5 else (columns, rows)


def upright_box(bbox: tuple[float, float, float, float], annotated: tuple[int, int], file: File) -> Box | None:
    """A box (x, y, width, height) of the annotated picture, as it lies on the upright one; None where it does not.

    Browsers turn pictures before anybody draws on them, so a box refers to the upright picture, unless its picture's
    size says otherwise.

    Args:
        annotated: (width, height) the box refers to.
    """
    if (found := _measured(file)) is None:
        return None  # `read` refuses the picture itself
    (rows, columns), orientation = found
    turned = (rows, columns) if orientation >= 5 else (columns, rows)
    if annotated == (columns, rows) != turned:
        bbox = turn_box(bbox, stored=(rows, columns), orientation=orientation)
    elif annotated != turned:
        return None
    x, y, width, height = bbox
    left, top = max(x, 0.0), max(y, 0.0)
    width, height = min(x + width, turned[0]) - left, min(y + height, turned[1]) - top
    if min(width, height) < 0.01:  # pixels; annotations carry two decimals
        return None
    return Box(x=round(left, 2), y=round(top, 2), width=round(width, 2), height=round(height, 2))


def _measured(file: File) -> tuple[tuple[int, int], int] | None:
    """((rows, columns) as stored, orientation 1 to 8), from the head where that says it; None: no picture."""
    try:
        head = file.head()
        if format_of(head) == "PNG" and len(head) >= 24 and b"eXIf" not in head:  # PIL would decode it to turn it
            return (int.from_bytes(head[20:24]), int.from_bytes(head[16:20])), 1
        return geometry(head) or geometry(file.data())
    except Exception:  # noqa: BLE001  (a damaged or encrypted zip may raise anything; `read` refuses the picture)
        return None
