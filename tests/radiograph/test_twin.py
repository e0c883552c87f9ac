"""One picture, two polarities, one reading."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.twin import twin


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 10), (np.uint16, 16)])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_twin_reads_as_what_it_was_made_of(dtype, bits, inverted):
    """An odd number of pixels, every depth, either polarity."""
    pixels = np.random.default_rng(bits).integers(0, 2**bits, (33, 21)).astype(dtype)
    found = read(twin(pixels, bits, inverted=inverted), Pseudonyms(bytes(32)))

    assert np.array_equal(found.pixels, pixels)
    assert found.meta.bits_stored == bits


def test_the_inverted_twin_is_a_negative(tmp_path):
    """What is stored differs; what is read does not."""
    (tmp_path / "a.dcm").write_bytes(twin(np.array([[0, 255]], np.uint8), 8, inverted=True))
    stored = pydicom.dcmread(tmp_path / "a.dcm")

    assert (stored.PhotometricInterpretation, stored.PixelData) == ("MONOCHROME1", b"\xff\x00")
