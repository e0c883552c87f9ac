"""JPEG that ends before its pixels do: libjpeg fills the rest with gray and only warns, so it is found here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

END = b"\xff\xd9"
# Entropy coded bytes that no picture ends with; without 0xFF, which would begin a marker.
NOISE = bytes(range(1, 201)) * 200


def ends_early(data: bytes, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray], *, scans: str) -> bool:
    """Whether `pixels` hold more than `data` does.

    A decoder that has everything ignores what follows; one that has not takes it for pixels. So the picture is
    decoded again with noise behind it, unless its last pixels cannot be libjpeg's: those are flat, and of one known
    gray where the scan is of cosine coefficients.

    Args:
        data: a JPEG codestream, lossy or lossless.
        pixels: (rows, columns, ...) as `decode` gives them for `data`.
        scans: "cosine", "lossless" or "progressive" (refined in many scans, so that nothing shows where one was cut).
    """
    whole = data.rstrip(b"\0")
    closed = whole.endswith(END)
    last = pixels[-1, -min(4, (pixels.shape[1] - 1) % 8 + 1) :]  # never wider than the last block of 8
    gray = 128 if pixels.dtype == np.uint8 else 2048
    if closed and scans != "progressive" and not (last == (gray if scans == "cosine" else last[0])).all():
        return False
    return not np.array_equal(pixels, decode((whole[:-2] if closed else whole) + NOISE + END))
