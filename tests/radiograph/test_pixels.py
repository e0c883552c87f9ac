"""Pixels are stored without loss and transformed in exactly one way."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from components.errors import UnreadableImage
from components.radiograph.pixels import Transform, decode, encode

PICTURES = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
)
GOLDEN_112 = "f29cd57e4ccababb97e35047729e42f5a74efac6377c204050eb6802f426afd9"


def limb(rows: int, columns: int) -> np.ndarray:
    """A bright bar with a brighter middle across black air, uint16 within 12 bits."""
    across = np.abs(np.arange(columns) / (columns - 1) - 0.5)
    along = 1 + 0.2 * np.sin(np.arange(rows) / 9)[:, None]
    return (np.clip(0.4 - across, 0, None) * along * 8000).astype(np.uint16)


@settings(max_examples=60, deadline=None)
@given(PICTURES)
def test_stored_pixels_come_back_exactly(pixels):
    again = decode(encode(pixels))

    assert again.dtype == pixels.dtype
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("data", [b"", b"PNG", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_damaged_pixels_are_refused(data):
    with pytest.raises(UnreadableImage):
        decode(data)


def test_colour_is_no_radiograph():
    _, data = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))

    with pytest.raises(UnreadableImage):
        decode(data.tobytes())


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 1), np.uint8), np.zeros(4, np.uint16)])
def test_only_whole_gray_pixels_are_stored(pixels):
    with pytest.raises(UnreadableImage):
        encode(pixels)


@settings(max_examples=60, deadline=None)
@given(PICTURES, st.integers(16, 64))
def test_the_model_always_sees_the_same_shape(pixels, size):
    square = Transform(size=size).apply(pixels)

    assert (square.shape, square.dtype) == ((size, size), np.uint8)


def test_bright_stays_bright():
    square = Transform(size=64).apply(limb(200, 100)).astype(float)

    assert square[:, 32].mean() > square[:, 24].mean() > square[:, 17].mean()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7))
def test_a_longer_exposure_scale_changes_nothing(factor):
    """Multiplying every intensity leaves what the model sees unchanged, up to one grey level of rounding."""
    picture = limb(150, 120)
    before = Transform(size=64).apply(picture).astype(int)
    after = Transform(size=64).apply((picture * factor).astype(np.uint16)).astype(int)

    assert np.abs(before - after).max() <= 1


def test_the_picture_is_centred_and_padded_with_black():
    square = Transform(size=40).apply(limb(80, 40))

    assert square[:, :10].max() == 0
    assert square[:, 30:].max() == 0
    assert square[:, 10:30].max() > 0


def test_a_map_is_laid_back_where_the_picture_was():
    """A hot spot over the picture's upper left quarter stays there, without the padding."""
    heat = np.zeros((8, 8), np.float32)
    heat[:4, :4] = 1  # the picture takes columns 2..5 of a square of 8
    placed = Transform(size=80).place(heat, rows=160, columns=80)

    assert placed.shape == (160, 80)
    assert placed[:60, :30].min() > 0.9
    assert placed[100:, 50:].max() < 0.1


def test_the_transform_proves_itself():
    """A change of code changes this literal; then VERSION must change too, and bundles be made anew."""
    assert Transform(size=112).golden() == GOLDEN_112


def test_other_settings_have_another_proof():
    proofs = {Transform(size=112).golden(), Transform(size=96).golden(), Transform(size=112, high=99).golden()}

    assert len(proofs) == 3
    assert all(len(proof) == len(hashlib.sha256().hexdigest()) for proof in proofs)


@pytest.mark.parametrize("value", [0, 200])
def test_an_even_picture_is_no_division_by_zero(value):
    assert Transform(size=16).apply(np.full((9, 9), value, np.uint8)).max() == 0
