"""Whether a picture with colour in it is a colour picture: a photograph, a diagram, a rendering; and so no radiograph.

A tint (a digitised blue film, sepia) gives every brightness one colour, and a mark or a logo is small: both may lie on
a radiograph. Colours that follow neither lie on something else.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 64  # pixels the long side is reduced to: averages what JPEG does to colours, and marks of some pixels
AWAY = 12.0  # of 255 levels from the colour that a pixel's brightness has elsewhere
SHARE = 0.1  # of the picture that must be so far away; marks and logos are smaller


def in_colour(channels: np.ndarray) -> bool:
    """Whether a tenth of the picture has other colours than one tint explains.

    Args:
        channels: (rows, columns, 3) uint8, red, green and blue.
    """
    scale = min(1.0, SIDE / max(channels.shape[:2]))
    size = [max(1, round(n * scale)) for n in channels.shape[1::-1]]
    red, green, blue = cv2.resize(channels, size, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(float).T
    brightness = (red + green + blue) / 3
    opponents = np.stack([red - green, (red + green) / 2 - blue], axis=1)
    # A tint vanishes towards black and white, so that it is a curve over brightness; the median settles each piece of
    # it, so that a mark does not bend it.
    piece = np.digitize(brightness, np.quantile(brightness, np.linspace(0, 1, 17)[1:-1]))
    tint = np.zeros_like(opponents)
    for number in np.unique(piece):
        tint[piece == number] = np.median(opponents[piece == number], axis=0)
    return bool((np.linalg.norm(opponents - tint, axis=1) > AWAY).mean() >= SHARE)
