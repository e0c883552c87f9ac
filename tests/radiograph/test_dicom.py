"""DICOM in: exact pixels in one polarity, or a refusal that says why and names nobody."""

from __future__ import annotations

import itertools
import logging
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from components.errors import DataError, MissingPatient, UnreadableImage
from components.radiograph import dicom
from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, draw

SHAPES = ("MONOCHROME1", "MONOCHROME2")


def stored(bits: int, signed: bool) -> np.ndarray:
    """Lowest, second lowest, middle and highest value of a depth."""
    low = -(2 ** (bits - 1)) if signed else 0
    kind = (np.int16 if signed else np.uint16) if bits > 8 else (np.int8 if signed else np.uint8)
    return np.array([[low, low + 1], [low + 2 ** (bits - 1), low + 2**bits - 1]], kind)


@pytest.mark.parametrize(
    ("bits", "signed", "photometric", "rescale"),
    tuple(itertools.product((8, 10, 12, 16), (False, True), SHAPES, ((1, 0), (2, -1024), (-1, 0)))),
)
def test_golden_pixels(dicom_bytes, pseudonyms, bits, signed, photometric, rescale):
    """Depth, sign, polarity and rescale all lead to one picture: 0 is black, 2^bits - 1 is white, bone is white."""
    image = dicom.read(
        dicom_bytes(
            stored(bits, signed),
            bits=bits,
            PhotometricInterpretation=photometric,
            RescaleSlope=rescale[0],
            RescaleIntercept=rescale[1],
        ),
        pseudonyms,
    )
    top = 2**bits - 1
    expected = np.array([[0, 1], [2 ** (bits - 1), top]])
    if (photometric == "MONOCHROME1") != (rescale[0] < 0):
        expected = top - expected

    assert image.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert image.pixels.tolist() == expected.tolist()
    assert image.meta.bits_stored == bits


def test_a_modality_table_is_applied(dicom_bytes, pseudonyms):
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4, 0, 16], [0, 10, 100, 1000], "US"
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    data = dicom_bytes(np.array([[0, 1], [2, 3]], np.uint16), bits=2, ModalityLUTSequence=[table])

    assert dicom.read(data, pseudonyms).pixels.tolist() == [[0, 10], [100, 1000]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_in_either_polarity(dicom_bytes, pseudonyms, photometric):
    data = dicom_bytes(
        np.array([[7, 1000]], np.uint16), bits=10, PhotometricInterpretation=photometric, PixelPaddingValue=7
    )

    assert dicom.read(data, pseudonyms).pixels[0, 0] == 0


@pytest.mark.parametrize(
    ("reason", "attributes"),
    [
        ("photometric", {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}),
        ("photometric", {"PhotometricInterpretation": "PALETTE COLOR"}),
        ("photometric", {"PhotometricInterpretation": "MONOCHROME3"}),
        ("photometric", {"PhotometricInterpretation": None}),
        ("photometric", {"PresentationLUTShape": "INVERSE"}),
        ("multi_frame", {"NumberOfFrames": 2}),
        ("not_a_radiograph", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}),
        ("not_a_radiograph", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ("no_pixels", {"PixelData": None}),
        ("truncated", {"PixelData": b"\0\0"}),
        ("undecodable", {"BitsStored": 0}),
    ],
)
def test_what_is_refused_says_why(dicom_bytes, pseudonyms, reason, attributes):
    with pytest.raises(UnreadableImage) as refusal:
        dicom.read(dicom_bytes(**attributes), pseudonyms)

    assert refusal.value.reason == reason


def test_a_huge_image_is_refused_before_it_is_decoded(dicom_bytes, pseudonyms):
    with pytest.raises(UnreadableImage, match="megapixels") as refusal:
        dicom.read(dicom_bytes(Rows=65535, Columns=65535), pseudonyms)

    assert refusal.value.reason == "too_large"


@pytest.mark.parametrize("patient", [None, "", "  "])
def test_an_image_of_nobody_is_refused(dicom_bytes, pseudonyms, patient):
    with pytest.raises(MissingPatient):
        dicom.read(dicom_bytes(PatientID=patient), pseudonyms)


def test_a_cut_preamble_is_forgiven(dicom_bytes, pseudonyms):
    """Content decides: without the 128 bytes and the magic word it is still the same image."""
    data = dicom_bytes()

    assert dicom.read(data[132:], pseudonyms).sha256 == dicom.read(data, pseudonyms).sha256


@pytest.mark.parametrize("data", [b"", b"DICM", b"\xff\xd8\xff\xe0JFIF", b"hello" * 50, b"\0" * 500])
def test_other_files_are_no_dicom(pseudonyms, data):
    with pytest.raises(UnreadableImage) as refusal:
        dicom.read(data, pseudonyms)

    assert refusal.value.reason in ("not_dicom", "no_transfer_syntax")
    assert dicom.sop_instance_uid(data) is None


PHANTOM = draw(5, patient=1, detector=DETECTOR_A, fracture=True).dicom


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2500), st.integers(0, 255), st.integers(0, len(PHANTOM)))
def test_damage_is_an_error_of_ours_or_nothing(pseudonyms, place, value, end):
    """A wrong byte in the header and a cut anywhere never raise anything but a data error."""
    damaged = bytearray(PHANTOM[:end])
    if place < len(damaged):
        damaged[place] = value
    try:
        image = dicom.read(bytes(damaged), pseudonyms, max_megapixels=4)
    except DataError:
        return
    assert image.pixels.ndim == 2


def test_what_the_header_says(pseudonyms):
    meta = dicom.read(draw(5, patient=3, detector=DETECTOR_B, fracture=False, image=1).dicom, pseudonyms).meta

    assert (meta.view, meta.photometric, meta.bits_stored, meta.pixel_spacing_mm) == (
        "lateral",
        "MONOCHROME1",
        10,
        DETECTOR_B.pitch_mm,
    )
    assert meta.device == "Second Phantom Works Portable 7"
    assert meta.body_region in ("arm", "leg")
    assert meta.laterality in ("L", "R")
    assert 4 <= meta.age_years <= 96
    assert 7 <= meta.hour <= 22
    assert meta.target_exposure_index == 250
    assert meta.exposure_index > 0
    assert meta.site.startswith("site-")
    assert "Hospital" not in meta.site


@pytest.mark.parametrize(
    ("attributes", "field", "expected"),
    [
        ({"PatientAge": "045Y"}, "age_years", 45),
        ({"PatientAge": "018M"}, "age_years", 1),
        ({"PatientAge": "097Y"}, "age_years", 90),
        ({"PatientAge": "old"}, "age_years", None),
        ({"ViewPosition": "PA"}, "view", "frontal"),
        ({"ViewPosition": "LL"}, "view", "lateral"),
        ({"ViewPosition": "RPO"}, "view", "oblique"),
        ({"ViewPosition": "UPSIDE"}, "view", "unknown"),
        ({"BodyPartExamined": "HAND"}, "body_region", "hand"),
        ({"BodyPartExamined": "LOWER LEG"}, "body_region", "leg"),
        ({"BodyPartExamined": "EXTREMITY"}, "body_region", "unknown"),
        ({"StudyTime": "231500.5"}, "hour", 23),
        ({"StudyTime": "xx"}, "hour", None),
        ({"PatientSex": "X"}, "sex", None),
        ({"ImageLaterality": "MUSTERMANN"}, "laterality", None),
        ({"ExposureIndex": "240.5"}, "exposure_index", 240.5),
        ({"StudyDate": "not a day"}, "study_day", None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # the writer's; what the reader says is under test
def test_attributes_are_understood_or_not_stated(dicom_bytes, pseudonyms, attributes, field, expected):
    assert getattr(dicom.read(dicom_bytes(**attributes), pseudonyms).meta, field) == expected


def test_an_issuer_is_part_of_who_it_is(dicom_bytes, pseudonyms):
    """Two hospitals' patient 1 are two patients."""
    first = dicom.read(dicom_bytes(IssuerOfPatientID="A"), pseudonyms).meta.patient_id
    second = dicom.read(dicom_bytes(IssuerOfPatientID="B"), pseudonyms).meta.patient_id

    assert first != second


def test_one_image_id_for_archive_service_and_corrections(dicom_bytes, pseudonyms):
    data = dicom_bytes()

    uid = dicom.sop_instance_uid(data)

    assert uid == "1.2.3.4"
    assert dicom.image_id(uid, pseudonyms) == dicom.read(data, pseudonyms).meta.image_id


@pytest.mark.parametrize("name", [b"P-1\\", b"\xff\xfe-1", b"P\x00-1"])
def test_nothing_odd_is_said_aloud(dicom_bytes, pseudonyms, caplog, name):
    """A malformed value that may name a person reaches no warning and no log."""
    data = dicom_bytes(PatientID="QQQQ", PatientAge="045Y").replace(b"QQQQ", name).replace(b"045Y", name)
    with warnings.catch_warnings(record=True) as said, caplog.at_level(logging.DEBUG, logger="pydicom"):
        warnings.simplefilter("always")
        dicom.read(data, pseudonyms)

    assert [str(w.message) for w in said] == []
    assert caplog.text == ""


def test_a_refusal_does_not_quote_the_file(dicom_bytes, pseudonyms):
    with pytest.raises(UnreadableImage) as refusal:
        dicom.read(dicom_bytes(PatientID="MUSTERFRAU", PatientName="MUSTERFRAU", PixelData=b"MUSTERFRAU"), pseudonyms)

    assert "MUSTERFRAU" not in str(refusal.value)


@pytest.mark.real_data
def test_real_radiographs_decode_or_say_why(real_data, pseudonyms):
    found = {}
    for path in sorted((real_data / "dicom" / "radiographs").iterdir()):
        try:
            found[path.name] = dicom.read(path.read_bytes(), pseudonyms).sha256
        except UnreadableImage as refusal:
            found[path.name] = refusal.reason
        except MissingPatient:
            found[path.name] = "missing_patient"

    assert found["RG3_UNC"] == found["RG3_RLE"] == found["RG3_JPLL"] == found["RG3_JLSL"]
    assert found["RG2_JPLL"] == found["RG2_RLE"] == found["RG2_J2KR"]
    assert {name: value for name, value in found.items() if len(value) != 64} == {
        "chrJapMulti.dcm": "no_pixels",
        "gdcm-CR-MONO1-10-chest.dcm": "missing_patient",
    }


REFUSALS = {
    "3gb-bulk-data-truncated": "not_dicom",
    "GH340.dcm": "not_dicom",
    "JPEGLossless_1s_1f_i_16_16_bad.dcm": "not_a_radiograph",
    "MR_truncated.dcm": "not_a_radiograph",
    "SC_rgb_small_odd.dcm": "not_a_radiograph",
    "badVR.dcm": "not_dicom",
    "empty_charset_LEI.dcm": "not_a_radiograph",
    "meta_missing_tsyntax.dcm": "no_transfer_syntax",
    "no_meta.dcm": "not_dicom",
    "reportsi_with_empty_number_tags.dcm": "not_a_radiograph",
}


@pytest.mark.real_data
def test_real_broken_files_are_refused(real_data, pseudonyms):
    found = {}
    for path in sorted((real_data / "dicom" / "malformed").iterdir()):
        with pytest.raises(UnreadableImage) as refusal:
            dicom.read(path.read_bytes(), pseudonyms)
        found[path.name] = refusal.value.reason

    assert found == REFUSALS
