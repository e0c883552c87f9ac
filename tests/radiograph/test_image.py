"""An image's identity is its picture."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError


def test_equal_pixels_are_one_picture(radiograph):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)

    assert radiograph(pixels).sha256 == radiograph(np.asfortranarray(pixels), sex="F").sha256


def test_shape_and_depth_are_part_of_the_picture(radiograph):
    pixels = np.zeros((3, 4), np.uint8)
    others = (pixels, pixels.T, np.zeros((3, 2), np.uint16))

    assert len({radiograph(other).sha256 for other in others}) == 3


def test_metadata_has_no_unknown_field(radiograph):
    with pytest.raises(ValidationError):
        radiograph(np.zeros((3, 4), np.uint8), patient_name="never")
