"""Which of many 64-bit hashes lie close together, exactly, without comparing every two."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

WIDTH = 16  # bits of a band; a hash has four
BANDS = 64 // WIDTH
FEW = 6_000  # comparisons a hash below which comparing every two is faster
PAIRS_AT_ONCE = 4_000_000  # bounds memory whatever the hashes are


def neighbours(codes: np.ndarray, bits: int, first: int = 0) -> np.ndarray:
    """Every two hashes that differ in at most `bits` bits, one of them at `first` or behind it.

    Pigeonhole: hashes within `bits` are close in at least one band, so only hashes that share a band's value, or
    nearly, are compared.

    Args:
        codes: (n,) uint64.
        first: hashes before it were compared with each other earlier.

    Returns:
        (m, 2) int64 positions, smaller first, sorted; exact.

    Source: multi-index hashing, Norouzi, Punjani and Fleet, CVPR 2012.
    """
    codes = np.ascontiguousarray(codes, dtype=np.uint64)
    n = len(codes)
    every = (n - first) * (n + first) // 2
    found = _every_two(codes, bits, first) if every <= FEW * n else _looked_up(codes, bits, first)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def _every_two(codes: np.ndarray, bits: int, first: int) -> np.ndarray:
    """(m, 2): the later hashes beside all hashes, a bounded number of comparisons at a time."""
    at_once = max(1, PAIRS_AT_ONCE // max(1, len(codes)))
    kept = [np.empty((0, 2), np.int64)]
    for start in range(first, len(codes), at_once):
        later = codes[start : start + at_once]
        row, before = np.nonzero(np.bitwise_count(later[:, None] ^ codes[None, : start + len(later)]) <= bits)
        ordered = before < row + start
        kept.append(np.stack([before[ordered], row[ordered] + start], axis=1))
    return np.concatenate(kept)


def _looked_up(codes: np.ndarray, bits: int, first: int) -> np.ndarray:
    kept = [np.empty(0, np.int64)]
    for one, other in _pairs(_banded(codes, bits)):
        close = np.bitwise_count(codes[one] ^ codes[other]) <= bits
        earlier, later = np.minimum(one[close], other[close]), np.maximum(one[close], other[close])
        kept.append((earlier * len(codes) + later)[later >= first])
    found = np.unique(np.concatenate(kept))
    return np.stack(np.divmod(found, len(codes)), axis=1)


# A batch of rows: row r stands for the pairs of members[left[r]] with members[start[r]:stop[r]].
Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _banded(codes: np.ndarray, bits: int) -> Iterator[Rows]:
    """Candidates band by band. The bands' tolerances add up so that no pair within `bits` exceeds all of them."""
    spare = max(0, bits - BANDS + 1)
    for band in range(BANDS):
        tolerance = spare // BANDS + (band < spare % BANDS)
        keys = (codes >> np.uint64(band * WIDTH)).astype(np.uint16).astype(np.int64)
        members = np.argsort(keys, kind="stable")
        stops = np.cumsum(np.bincount(keys, minlength=1 << WIDTH))
        starts = np.concatenate(([0], stops[:-1]))
        place, ordered = np.arange(len(codes)), keys[members]
        yield members, place, place + 1, stops[ordered]
        for mask in _masks(tolerance):
            target = ordered ^ mask
            low = np.flatnonzero((ordered < target) & (stops[target] > starts[target]))
            yield members, low, starts[target[low]], stops[target[low]]


def _masks(tolerance: int) -> list[int]:
    flips = [chosen for k in range(1, tolerance + 1) for chosen in combinations(range(WIDTH), k)]
    return [sum(1 << bit for bit in chosen) for chosen in flips]


def _pairs(batches: Iterator[Rows]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Expand rows to pairs of positions, a bounded number at a time."""
    for members, left, start, stop in batches:
        ends = np.cumsum(stop - start)
        first = 0
        while first < len(left):
            done = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
            sizes = (stop - start)[first:last]
            offset = np.arange(int(ends[last - 1]) - done) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            yield members[np.repeat(left[first:last], sizes)], members[np.repeat(start[first:last], sizes) + offset]
            first = last
