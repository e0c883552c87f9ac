"""JPEG that ends before its pixels do: libjpeg fills the rest with gray and only warns, so it is found here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

END = b"\xff\xd9"
# Entropy coded bytes that no picture ends with; without 0xFF, which would begin a marker.
NOISE = bytes(range(1, 201)) * 200


def ends_early(data: bytes, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray], *, always: bool = False) -> bool:
    """Whether `pixels` hold more than `data` does.

    A decoder that has everything ignores what follows; one that has not takes it for pixels. So the picture is
    decoded again with noise behind it, unless its last pixels differ: what libjpeg fills in is flat.

    Args:
        data: a JPEG codestream, lossy or lossless.
        pixels: (rows, columns, ...) as `decode` gives them for `data`.
        always: decode again whatever the last pixels are (progressive scans are not filled in flat).
    """
    whole = data.rstrip(b"\0")
    closed = whole.endswith(END)
    last = pixels[-1, -min(4, (pixels.shape[1] - 1) % 8 + 1) :]  # never wider than the last block of 8
    if closed and not always and not (last == last[0]).all():
        return False
    return not np.array_equal(pixels, decode((whole[:-2] if closed else whole) + NOISE + END))
