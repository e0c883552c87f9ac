"""Nothing that names a person survives, and the same person stays the same."""

from __future__ import annotations

import io
import logging
import os
import stat
import subprocess
import sys
import traceback
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from components.errors import ConfigError
from components.radiograph import dicom, header, profile
from components.radiograph.deidentify import Pseudonyms, age_of, deidentify, hour_of, shifted
from components.radiograph.release import encoded, release
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
    """The clean pixel option is claimed, and Burned In Annotation denied, only once pixels were looked at."""
    header = deidentify(identified, pseudonyms)
    whole = dcmread(io.BytesIO(release(to_bytes(identified), pseudonyms, "mask")[1]))

    assert (header.PatientIdentityRemoved, whole.PatientIdentityRemoved) == ("YES", "YES")
    assert header.LongitudinalTemporalInformationModified == "MODIFIED"
    assert codes(header) == ["113100", "113107", "113108"]
    assert codes(whole) == ["113100", "113101", "113107", "113108"]
    assert list(whole.DeidentificationMethod)[1] == "Clean Pixel Data Option"
    assert "BurnedInAnnotation" not in header
    assert whole.BurnedInAnnotation == "NO"


def codes(clean: Dataset) -> list[str]:
    return [item.CodeValue for item in clean.DeidentificationMethodCodeSequence]


def test_the_result_is_the_same_radiograph(identified, pseudonyms):
    """Pixels, sex, age and hour stay; the image can be read, and is of the same person as before."""
    image = dicom.read(release(to_bytes(identified), pseudonyms, "mask")[1], pseudonyms)

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


def test_the_key_is_never_shown(pseudonyms, caplog):
    """Neither by repr nor str, nor in a log line, an exception or a traceback that shows local variables."""
    shown = [repr(pseudonyms), str(pseudonyms), f"{pseudonyms!r}"]
    logging.getLogger("test").warning("opened %s", pseudonyms)
    try:
        raise ValueError(pseudonyms)
    except ValueError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        shown += [str(error), *told.format()]
    text = "".join(shown) + caplog.text

    assert shown[0] == "Pseudonyms(key hidden)"
    assert "key hidden" in caplog.text
    assert [form for form in forms(bytes(range(32))) if form in text] == []


def forms(key: bytes) -> list[str]:
    return [key.hex(), repr(key), repr(key)[2:-1], str(list(key))[1:-1]]


def test_a_wrong_key_is_not_quoted():
    with pytest.raises(ConfigError) as error:
        Pseudonyms(b"sixteen letters!")

    assert "sixteen" not in "".join(traceback.format_exception(error.value, chain=True)).split("ConfigError:")[-1]


def test_processes_that_race_for_the_first_key_agree(tmp_path):
    """Many at once make one key, and leave nothing else behind."""
    script = "import sys; from pathlib import Path; from components.radiograph.deidentify import Pseudonyms; "
    script += "sys.stdin.read(1); print(Pseudonyms.open(Path(sys.argv[1])).of('patient', '1'))"
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "keys")], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go")
        racer.stdin.flush()
    said = {racer.communicate()[0] for racer in racers}

    assert len(said) == 1
    assert len(said.pop().strip()) == 20
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["pseudonym.key"]


def test_a_key_of_its_own_mode_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        Pseudonyms.open(tmp_path / "keys")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "keys" / "pseudonym.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("Manufacturer", "SIEMENS Healthineers for Dr Muster", "Siemens"),
        ("Manufacturer", "Praxis Muster", "maker-"),
        ("ManufacturerModelName", "Ysio Max", "Ysio Max"),
        ("ManufacturerModelName", "YSIO \u039c\u03bf\u03cd\u03c3\u03c4\u03b5\u03c1", "model-"),
        ("ManufacturerModelName", "ROOM 3 MUSTERFRAU", "model-"),
        ("BodyPartExamined", "C SPINE", "CSPINE"),
        ("BodyPartExamined", "MUSTERFRAU", None),
        ("ViewPosition", " AP", "AP"),
        ("ViewPosition", "MUSTER", None),
        ("ImageLaterality", "L", "L"),
        ("PatientSex", "MUSTER", None),
        ("RescaleType", "MUSTERFRAU", None),
        ("KVP", "60", 60),
        ("KVP", "19500101", None),
        ("ExposureIndex", "400.0", 400),
        ("ExposureIndex", "19500.101", 19500),
        ("WindowCenter", "19500101", None),
    ],
)
def test_what_stays_is_a_term_or_a_plausible_number(dicom_dataset, pseudonyms, name, value, kept):
    found = deidentify(dicom_dataset(**{name: value}), pseudonyms).get(name)

    assert str(found).startswith(kept) if isinstance(kept, str) else found == kept


def test_a_code_keeps_the_words_of_the_standard(dicom_dataset, pseudonyms):
    """A known code is given its own meaning; a sender's own keeps no more than the projection that it names."""
    known, own, name = Dataset(), Dataset(), Dataset()
    known.CodeValue, known.CodingSchemeDesignator, known.CodeMeaning = "399067008", "SCT", SECRET
    own.CodeValue, own.CodingSchemeDesignator, own.CodeMeaning = SECRET, "99HOSP", f"postero-anterior, {SECRET}"
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = SECRET, "99HOSP", SECRET
    clean = deidentify(dicom_dataset(ViewCodeSequence=[known, own, name]), pseudonyms)

    assert [(item.get("CodeValue"), item.CodeMeaning) for item in clean.ViewCodeSequence] == [
        ("399067008", "lateral"), (None, "postero-anterior")
    ]  # fmt: skip


def test_references_follow_their_images(dicom_dataset, pseudonyms):
    """A UID that is referred to becomes what the image itself becomes; one inside an unknown class is dropped."""
    one, other = Dataset(), Dataset()
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.99"
    other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = "1.2.19500101.7", "1.2.3.98"
    clean = deidentify(dicom_dataset(SourceImageSequence=[one, other]), pseudonyms)
    source = deidentify(dicom_dataset(SOPInstanceUID="1.2.3.99"), pseudonyms)

    assert [item.ReferencedSOPInstanceUID for item in clean.SourceImageSequence] == [source.SOPInstanceUID]


def test_a_class_that_is_no_uid_is_dropped_in_silence(dicom_dataset, pseudonyms):
    """pydicom's warning about it would quote the value, and a log keeps what it is told."""
    dataset = dicom_dataset()
    with warnings.catch_warnings(action="ignore"):
        dataset.SOPClassUID = "GGGGGG"
    with warnings.catch_warnings(record=True, action="always") as said:
        clean = deidentify(dataset, pseudonyms)

    assert ("SOPClassUID" in clean, [str(warning.message) for warning in said]) == (False, [])


def test_nothing_rides_along_in_the_pixels(dicom_dataset, pseudonyms):
    """Overlays in unused bits, bytes after the last row and the preamble are gone from a released file."""
    pixels = np.full((8, 8), 1000, np.uint16)
    hidden = pixels | (np.arange(64, dtype=np.uint16).reshape(8, 8) % 16) << 12
    dataset = dicom_dataset(pixels, bits=12)
    dataset.PixelData = hidden.tobytes() + SECRET.encode()
    file = SECRET.encode().ljust(128, b"\0") + to_bytes(dataset)[128:] + b"\xfc\xff\xfc\xffOB" + SECRET.encode()
    clean = dcmread(io.BytesIO(release(file[: -len(SECRET) - 6], pseudonyms, "mask")[1]))

    assert clean.pixel_array.tolist() == pixels.tolist()
    assert len(clean.PixelData) == 128
    assert SECRET.encode() not in encoded(clean)[1]


def test_every_region_and_view_can_be_said():
    """What the header's tables understand passes the profile."""
    parts = {name for names in header.REGIONS.values() for name in names}
    views = {name for names in header.PROJECTIONS.values() for name in names}

    assert parts - profile.BODY_PARTS == set()
    assert views - profile.VIEWS == set()


def test_a_lookup_table_is_cut_to_what_it_says(dicom_dataset, pseudonyms):
    table = Dataset()
    table.LUTDescriptor, table.LUTExplanation = [4, 0, 16], SECRET
    table.add_new("LUTData", "OW", np.arange(4, dtype="<u2").tobytes() + SECRET.encode())
    clean = deidentify(dicom_dataset(ModalityLUTSequence=[table]), pseudonyms)

    assert len(clean.ModalityLUTSequence[0].LUTData) == 8
    assert "LUTExplanation" not in clean.ModalityLUTSequence[0]
