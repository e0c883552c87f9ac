"""Stored values: exact, whole, and never more of them than the header says."""

from __future__ import annotations

import copy
import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGLosslessSV1, RLELossless

from components.errors import DataError, UnreadableImage
from components.radiograph import dicom
from components.radiograph.decoders import CODECS, JPEG, OURS, register, stored_values
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, draw
from tests.radiograph.test_golden import SYNTAXES, lossless, near

PSEUDONYMS = Pseudonyms(bytes(range(32)))
PHANTOM = pydicom.dcmread(io.BytesIO(draw(5, patient=1, detector=DETECTOR_A, fracture=True).dicom))
PIXELS = PHANTOM.pixel_array[:96, :64].copy()
ENCAPSULATED = [name for name, (_, encode, _, _) in SYNTAXES.items() if encode] + ["RLE"]


def frame_of(name: str, pixels: np.ndarray = PIXELS) -> bytes:
    _, encode, most, _ = SYNTAXES[name]
    if encode:
        return encode((pixels >> 4).astype(np.uint8) if most == 8 else pixels, 8 if most == 8 else 12)
    options = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": 1, "bits_allocated": 16}
    options |= {"bits_stored": 12, "pixel_representation": 0, "number_of_frames": 1}
    return pydicom.pixels.get_encoder(RLELossless).encode(pixels, photometric_interpretation="MONOCHROME2", **options)


def dataset_of(name: str, frame: bytes | None, **attributes: object) -> Dataset:
    """A phantom of 96 x 64 whose frame is `frame`; None leaves it native."""
    dataset = copy.deepcopy(PHANTOM)
    dataset.Rows, dataset.Columns = PIXELS.shape
    if SYNTAXES[name][2] == 8:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    for key, value in attributes.items():
        setattr(dataset, key, value)
    dataset.add_new("PixelData", "OB" if frame else "OW", encapsulate([frame]) if frame else PIXELS.tobytes())
    dataset["PixelData"].is_undefined_length = frame is not None
    dataset.file_meta = pydicom.dataset.FileMetaDataset(PHANTOM.file_meta)
    dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES[name][0])
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def refused(data: bytes, megapixels: int = 100) -> str:
    with pytest.raises(UnreadableImage) as refusal:
        dicom.read(data, PSEUDONYMS, max_megapixels=megapixels)
    return refusal.value.reason


@pytest.mark.parametrize("name", ENCAPSULATED)
def test_ours_and_what_pydicom_picks_give_the_same_values(name):
    """Exactly, where the syntax is lossless; else as near as two implementations of the cosine transform come."""
    dataset = dataset_of(name, frame_of(name))
    register()
    known = get_decoder(dataset.file_meta.TransferSyntaxUID)
    theirs, _ = known.as_array(dataset, decoding_plugin="pylibjpeg")

    apart = np.abs(stored_values(dataset).astype(int) - theirs.astype(int)).max()

    assert apart == 0 if name not in ("JPEG baseline", "JPEG extended") else apart <= 2


@pytest.mark.parametrize("name", [name for name in ENCAPSULATED if SYNTAXES[name][2] == 16])
def test_a_phantom_comes_back_from_every_lossless_syntax(name):
    assert np.array_equal(stored_values(dataset_of(name, frame_of(name))), PIXELS)


@pytest.mark.parametrize("name", ENCAPSULATED)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_frame_that_ends_early_is_refused_and_never_filled_in(name, kept, end):
    frame = frame_of(name)

    assert refused(written(dataset_of(name, frame[: int(len(frame) * kept)] + end))) in ("truncated", "undecodable")


@pytest.mark.parametrize("name", [name for name, (uid, *_) in SYNTAXES.items() if uid in JPEG])
def test_a_jpeg_frame_that_ends_early_is_called_truncated(name):
    frame = frame_of(name)

    assert refused(written(dataset_of(name, frame[: len(frame) // 2] + b"\xff\xd9"))) == "truncated"


@pytest.mark.parametrize("name", ["JPEG lossless", "JPEG-LS"])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9\0", b"\xff\xd9\0\0"])
def test_a_whole_frame_may_end_oddly(name, end):
    """Without its end marker, or padded to an even length: every pixel is there."""
    frame = frame_of(name).removesuffix(b"\xff\xd9") + end

    assert np.array_equal(stored_values(dataset_of(name, frame)), PIXELS)


def test_a_flat_corner_is_no_cut():
    flat = PIXELS.copy()
    flat[-8:] = 0

    assert np.array_equal(stored_values(dataset_of("JPEG lossless", lossless(1)(flat, 12))), flat)


@pytest.mark.parametrize("name", [name for name in ENCAPSULATED if name != "RLE"])
def test_a_codestream_of_another_size_than_its_header_is_refused(name):
    dataset = dataset_of(name, frame_of(name, np.tile(PIXELS, (2, 1))))

    assert refused(written(dataset)) == "undecodable"


def test_a_codestream_that_claims_gigabytes_is_refused_before_memory_follows():
    frame = bytearray(frame_of("JPEG lossless"))
    place = frame.index(b"\xff\xc3") + 5
    frame[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    data = written(dataset_of("JPEG lossless", bytes(frame)))

    tracemalloc.start()
    reason, (_, peak) = refused(data), tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (reason, peak < 20 * 2**20) == ("undecodable", True)


def test_lossy_overshoot_is_white_and_does_not_wrap_to_black():
    """A 12-bit codestream of a 10-bit image rings over 1023 beside an edge."""
    edge = np.full(PIXELS.shape, 1023, np.uint16)
    edge[:, 30:34] = 0
    frame = imagecodecs.jpeg8_encode(edge, level=60, bitspersample=12)

    values = stored_values(dataset_of("JPEG extended", frame, BitsStored=10, HighBit=9))

    assert imagecodecs.jpeg8_decode(frame).max() > 1023
    assert (values.max(), bool((values[:, 40:] > 900).all())) == (1023, True)


def test_plugins_are_added_once_and_not_by_importing():
    said = "import components.radiograph.dicom, pydicom.pixels as p; print(p.get_decoder('{}').available_plugins)"
    fresh = subprocess.run(
        [sys.executable, "-c", said.format(JPEGLosslessSV1)], capture_output=True, text=True, check=True
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: register(), range(32)))

    assert OURS not in fresh.stdout
    assert {get_decoder(uid).available_plugins.count(OURS) for uid in CODECS} == {1}


@pytest.mark.real_data
def test_real_files_decode_to_what_pydicom_decodes(real_data):
    compared = 0
    for path in sorted((real_data / "dicom" / "radiographs").iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            if "PixelData" not in dataset:
                continue
            theirs = dataset.pixel_array
        assert np.array_equal(stored_values(dataset), theirs), path.name
        compared += 1

    assert compared == 12


def deflated(dataset: bytes) -> bytes:
    """A file whose data set is `dataset`, deflated."""
    meta = written(dataset_of("deflated", None))
    inside = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = meta.index(b"1.2.840.10008.1.2.1.99")
    length = 132 + 12 + struct.unpack_from("<I", meta, 140)[0]
    assert 132 < start < length
    return meta[:length] + inside.compress(dataset) + inside.flush()


def test_a_deflated_bomb_is_not_inflated():
    bomb = deflated(b"\x08\x00\x60\x00CS\x02\x00CR" + bytes(400 * 2**20))

    tracemalloc.start()
    reason, (_, peak) = refused(bomb, megapixels=4), tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (len(bomb) < 2**20, reason, peak < 250 * 2**20) == (True, "too_large", True)


def test_a_cut_deflated_object_is_truncated():
    data = written(dataset_of("deflated", None))

    assert np.array_equal(
        dicom.read(data, PSEUDONYMS).pixels,
        dicom.read(written(dataset_of("JPEG-LS", near(PIXELS, 12))), PSEUDONYMS).pixels,
    )
    assert refused(data[: len(data) // 2]) == "truncated"


def test_a_native_image_that_claims_gigabytes_is_refused_before_memory_follows():
    plain = dataset_of("explicit little endian", None, Rows=65_535, Columns=65_535)
    data = written(plain)

    tracemalloc.start()
    reasons = refused(data), refused(data, megapixels=10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (reasons, peak < 20 * 2**20) == (("too_large", "truncated"), True)


def test_many_frames_are_refused_before_memory_follows():
    assert refused(written(dataset_of("JPEG-LS", frame_of("JPEG-LS"), NumberOfFrames=2_000_000_000))) == "multi_frame"


def nested(depth: int) -> bytes:
    """A phantom with items of undefined length inside each other: (0040,0275), then (FFFE,E000)."""
    plain = written(dataset_of("explicit little endian", None))
    opening = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    place = plain.index(b"\xe0\x7f\x10\x00")
    return plain[:place] + opening * depth + closing * depth + plain[place:]


def test_sequences_in_sequences_are_read():
    assert dicom.read(nested(20), PSEUDONYMS).pixels.shape == (96, 64)


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_sequences_nested_without_end_are_refused(depth):
    assert refused(nested(depth)) == "not_dicom"


def test_run_lengths_that_make_a_decoder_panic_are_refused():
    """A run in the place of a literal; what pylibjpeg's RLE raises of it is no Exception."""
    frame = bytearray(frame_of("RLE"))
    frame[64] = 129

    assert refused(written(dataset_of("RLE", bytes(frame)))) == "undecodable"


@pytest.mark.real_data
def test_real_cut_pixels_are_refused_even_as_a_radiograph(real_data):
    """The file is of another modality and refused for that; here it says it is CR, so that it is decoded."""
    broken = pydicom.dcmread(real_data / "dicom" / "malformed" / "MR_truncated.dcm")
    broken.SOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    broken.PatientID = "P-1"

    assert refused(written(broken)) == "truncated"


HOSTILE = {name: written(dataset_of(name, frame_of(name))) for name in ENCAPSULATED}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(HOSTILE)), st.data())
def test_damage_anywhere_is_an_error_of_ours_or_nothing(name, data):
    """Any prefix with any few bytes changed, codestream included."""
    file = bytearray(HOSTILE[name])
    for _ in range(data.draw(st.integers(0, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.one_of(st.just(len(file)), st.integers(0, len(file))))
    try:
        image = dicom.read(bytes(file[:kept]), PSEUDONYMS, max_megapixels=1)
    except DataError:
        dicom.sop_instance_uid(bytes(file[:kept]))
        return
    assert image.pixels.ndim == 2
