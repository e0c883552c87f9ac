"""Nothing that names a person survives, and the same person stays the same."""

from __future__ import annotations

import io
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from components.errors import ConfigError
from components.radiograph import dicom
from components.radiograph.deidentify import Pseudonyms, age_of, deidentify, hour_of, shifted
from tests.radiograph.conftest import to_bytes

SECRET = "MUSTERFRAU"
TEXTS = (
    "PatientName", "OtherPatientIDs", "PatientBirthName", "PatientMotherBirthName", "PatientAddress", "PatientComments",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "InstitutionName", "InstitutionAddress",
    "StationName", "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ImageComments",
    "RequestedProcedureDescription", "AdditionalPatientHistory", "DeviceSerialNumber", "ProtocolName", "MilitaryRank",
    "MedicalRecordLocator", "PatientTelephoneNumbers", "CountryOfResidence", "DerivationDescription",
    "IssuerOfPatientID",
)  # fmt: skip


@pytest.fixture
def identified(dicom_dataset) -> Dataset:
    """An object with an identifier in every text above, in nested sequences, private tags, overlays and curves."""
    dataset = dicom_dataset(
        np.zeros((8, 8), np.uint16), PatientID=f"{SECRET}1", StudyDate="20260310", StudyTime="142233"
    )
    dataset.PatientBirthDate, dataset.PatientAge, dataset.PatientSex = "19500101", "076Y", "F"
    for name in TEXTS:
        setattr(dataset, name, SECRET)
    inner = Dataset()
    inner.PatientName, inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = SECRET, "1", "X", SECRET
    inner.AnatomicRegionModifierSequence = Sequence([_named()])
    dataset.AnatomicRegionSequence = Sequence([inner])
    dataset.RequestAttributesSequence = Sequence([_named()])
    dataset.OriginalAttributesSequence = Sequence([_named()])
    block = dataset.private_block(0x0029, "MAKER", create=True)
    block.add_new(0x10, "LO", SECRET)
    block.add_new(0x11, "SQ", [_named()])
    dataset.add_new(0x60003000, "OW", SECRET.encode() + b"\0" * 6)
    dataset.add_new(0x60000022, "LO", SECRET)
    dataset.add_new(0x50003000, "OW", SECRET.encode() + b"\0" * 6)
    dataset.add_new(0xFFFCFFFC, "OB", SECRET.encode())
    return dataset


def _named() -> Dataset:
    item = Dataset()
    item.PatientName = item.RequestingPhysician = SECRET
    return item


def test_thirty_planted_names_are_gone(identified, pseudonyms):
    before = to_bytes(identified)
    after = to_bytes(deidentify(identified, pseudonyms))

    assert before.count(SECRET.encode()) >= 30
    assert SECRET.encode() not in after
    for value in (b"1.2.3.4", b"19500101", b"20260310", b"142233"):
        assert value in before
        assert value not in after


def test_the_result_says_how_it_was_made(identified, pseudonyms):
    clean = deidentify(identified, pseudonyms)

    assert clean.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in clean.DeidentificationMethodCodeSequence] == ["113100", "113107", "113108"]
    assert clean.LongitudinalTemporalInformationModified == "MODIFIED"


def test_the_result_is_the_same_radiograph(identified, pseudonyms):
    """Pixels, sex, age and hour stay; the image can be read, and is of the same person as before."""
    clean = deidentify(identified, pseudonyms)
    image = dicom.read(to_bytes(clean), pseudonyms)

    assert image.sha256 == dicom.read(to_bytes(identified), pseudonyms).sha256
    assert (image.meta.sex, image.meta.age_years, image.meta.hour) == ("F", 76, 14)


def test_the_original_is_not_touched(identified, pseudonyms):
    before = to_bytes(identified)
    deidentify(identified, pseudonyms)

    assert to_bytes(identified) == before


def test_uids_stay_consistent_and_valid(identified, pseudonyms):
    """Two images of a study are in one study afterwards, under UIDs of legal length."""
    first = deidentify(identified, pseudonyms)
    identified.SOPInstanceUID = "1.2.3.5"
    second = deidentify(identified, pseudonyms)

    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert len(first.SOPInstanceUID) <= 64
    assert dcmread(io.BytesIO(to_bytes(first))).SOPInstanceUID.is_valid


def test_days_between_two_visits_stay(identified, pseudonyms):
    first = deidentify(identified, pseudonyms).StudyDate
    identified.StudyDate = "20260317"
    second = deidentify(identified, pseudonyms).StudyDate

    assert shifted(second, 7) == first


@given(st.text(max_size=30))
def test_a_pseudonym_is_stable_and_says_nothing(value):
    one, other = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)

    assert one.of("patient", value) == one.of("patient", value) != one.of("study", value)
    assert one.of("patient", value) != other.of("patient", value)
    assert len(one.of("patient", value)) == 20
    assert 1 <= one.shift_days(value) <= 3650


@given(st.text(max_size=16))
def test_odd_times_ages_and_days_are_not_stated(text):
    assert hour_of(text) is None or 0 <= hour_of(text) <= 23
    assert age_of(text) is None or 0 <= age_of(text) <= 90
    assert shifted(text, 10) is None or shifted(text, 10).isdigit()


def test_the_key_is_made_once_and_private(tmp_path):
    first = Pseudonyms.open(tmp_path / "keys")
    again = Pseudonyms.open(tmp_path / "keys")

    assert first.of("patient", "1") == again.of("patient", "1")
    assert stat.S_IMODE((tmp_path / "keys" / "pseudonym.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["pseudonym.key"]


def test_a_key_that_others_can_read_is_refused(tmp_path):
    Pseudonyms.open(tmp_path)
    (tmp_path / "pseudonym.key").chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600"):
        Pseudonyms.open(tmp_path)


def test_a_damaged_key_is_refused(tmp_path):
    Pseudonyms.open(tmp_path)
    (tmp_path / "pseudonym.key").write_bytes(b"short")

    with pytest.raises(ConfigError, match="5 bytes"):
        Pseudonyms.open(tmp_path)


def test_the_key_is_never_shown(pseudonyms):
    assert repr(pseudonyms) == "Pseudonyms(key hidden)"
