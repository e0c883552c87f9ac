"""The search is exact: it finds what comparing every two hashes finds."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset import neighbours as module
from components.dataset.neighbours import neighbours


def every_two(codes: np.ndarray, bits: int) -> list[tuple[int, int]]:
    return [
        (one, other)
        for one in range(len(codes))
        for other in range(one + 1, len(codes))
        if int(codes[one] ^ codes[other]).bit_count() <= bits
    ]


@pytest.fixture(params=[0, 6000], ids=["banded", "small"])
def _few(request, monkeypatch):
    monkeypatch.setattr(module, "FEW", request.param)


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("bits", [0, 3, 4, 12])
def test_it_finds_exactly_the_close_ones(bits):
    """60 hashes around 6 centres, at every distance up to 20 bits."""
    random = np.random.default_rng(bits)
    centres = random.integers(0, 2**63, 6).astype(np.uint64)
    made = [
        int(centre) ^ sum(1 << int(bit) for bit in random.choice(64, random.integers(0, 11), replace=False))
        for centre in centres
        for _ in range(10)
    ]
    codes = np.array(made, np.uint64)
    wanted = every_two(codes, bits)

    assert [tuple(pair) for pair in neighbours(codes, bits).tolist()] == wanted


@given(st.sets(st.integers(0, 63), max_size=12), st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=25)
def test_no_pattern_of_twelve_bits_slips_between_the_bands(flipped, code):
    far = np.array([code, code ^ sum(1 << bit for bit in flipped)], np.uint64)
    rows = module._banded(far, 12)
    pairs = {
        tuple(sorted((int(a), int(b)))) for left, right in module._pairs(rows) for a, b in zip(left, right, strict=True)
    }

    assert pairs == {(0, 1)}


@pytest.mark.usefixtures("_few")
def test_nobody_has_no_neighbours():
    assert neighbours(np.empty(0, np.uint64), 12).shape == (0, 2)
    assert neighbours(np.array([7], np.uint64), 12).shape == (0, 2)


def test_memory_is_bounded_when_all_are_alike(monkeypatch):
    """3,000 equal hashes are 4,498,500 pairs, found in small portions."""
    monkeypatch.setattr(module, "FEW", 0)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 10_000)
    sizes = [len(one) for one, _ in module._pairs(module._banded(np.zeros(3000, np.uint64), 0))]

    assert max(sizes) <= 10_000
    assert sum(sizes) == 4 * 4_498_500  # once a band


def test_fifty_thousand_take_seconds():
    codes = np.random.default_rng(0).integers(0, 2**63, 50_000).astype(np.uint64)
    begin = time.process_time()
    neighbours(codes, 12)

    assert time.process_time() - begin < 10
