"""Privacy: keyed pseudonyms that only this site can make, and DICOM's basic confidentiality profile.

Source: DICOM PS3.15 Annex E, basic application level confidentiality profile with the options "retain longitudinal
temporal information with modified dates" (113107) and "retain patient characteristics" (113108: sex and age).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import date, timedelta
from pathlib import Path

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.tag import Tag

from components.errors import ConfigError

KEY_FILE = "pseudonym.key"
KEY_BYTES = 32
MAX_SHIFT_DAYS = 3650
AGE_CEILING = 89  # above it an age identifies; it is written as 90

# What a radiograph keeps: image pixels, how they were made, and what a model may be sliced by. Everything else goes,
# known or not: a list of what stays cannot be outdated by an attribute nobody thought of.
KEPT = frozenset(
    Tag(name)
    for name in (
        "SOPClassUID", "Modality", "PresentationIntentType", "Manufacturer", "ManufacturerModelName",
        "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "ViewModifierCodeSequence",
        "AnatomicRegionSequence", "ImageLaterality", "Laterality", "PatientSex", "PatientOrientation",
        "PixelSpacing", "ImagerPixelSpacing", "KVP", "Exposure", "ExposureTime", "ExposureIndex",
        "TargetExposureIndex", "DeviationIndex", "ImageType", "SamplesPerPixel", "PhotometricInterpretation",
        "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
        "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "RescaleIntercept", "RescaleSlope",
        "RescaleType", "PresentationLUTShape", "WindowCenter", "WindowWidth", "ModalityLUTSequence",
        "VOILUTSequence", "LUTDescriptor", "LUTData", "ModalityLUTType", "SmallestImagePixelValue",
        "LargestImagePixelValue", "BurnedInAnnotation", "LossyImageCompression", "NumberOfFrames",
        "PlanarConfiguration", "CodeValue", "CodingSchemeDesignator", "SpecificCharacterSet",
        "PixelPaddingValue", "PixelPaddingRangeLimit",
    )
)  # fmt: skip
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")
EMPTIED = (
    "PatientBirthDate",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)  # action Z: present, without value
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)


class Pseudonyms:
    """HMAC-SHA256 pseudonyms under one site's key; without the key they cannot be made or guessed.

    Args:
        key: 32 secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(
                f"the pseudonym key has {len(key)} bytes, expected {KEY_BYTES}; restore it from your backup"
            )
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms(key hidden)"

    @classmethod
    def open(cls, key_dir: Path) -> Pseudonyms:
        """Read the site's key, made on first use (file 0600, folder 0700). Losing it orphans the archive: back it up.

        Raises:
            ConfigError: others can read the key, or it is not a key.
        """
        path = key_dir / KEY_FILE
        try:
            key_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = key_dir / f".{KEY_FILE}.{secrets.token_hex(6)}"
            if not path.exists():
                handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    os.write(handle, secrets.token_bytes(KEY_BYTES))
                    os.fsync(handle)
                finally:
                    os.close(handle)
                try:
                    os.link(draft, path)  # the first of two racing processes wins; both read the same key below
                except FileExistsError:
                    pass
                finally:
                    draft.unlink()
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise ConfigError(f"{path}: others may read it (mode {mode:o}); run `chmod 600` on it")
            return cls(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; set OSTEOFLOW_KEY_DIR to a folder of your own") from None

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of `value` as a `kind` ("patient", "image" ...): 20 hex characters."""
        return self._digest(f"{kind}\0{value}").hex()[:20]

    def uid(self, uid: str) -> str:
        """A UID in the 2.25 arc that stands for `uid`, the same every time."""
        return f"2.25.{int.from_bytes(self._digest(f'uid{chr(0)}{uid}')[:16], 'big') | 1}"

    def shift_days(self, patient: str) -> int:
        """By how many days this patient's dates move back: 1 to 3650, so intervals within a patient stay."""
        return 1 + int.from_bytes(self._digest(f"shift\0{patient}")[:8], "big") % MAX_SHIFT_DAYS

    def _digest(self, text: str) -> bytes:
        return hmac.new(self._key, text.encode(), hashlib.sha256).digest()


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """A copy of `dataset` that keeps what a radiograph is and nothing of whose it is.

    Patient and UIDs become pseudonyms, dates move by a constant per patient, hours stay; every attribute outside the
    keep list, private tags, overlays and curves are gone, at every depth of nesting. The input is not changed.

    Args:
        dataset: a decoded DICOM data set that names its patient (PatientID).
    """
    patient = identity_of(dataset)
    clean = _kept(dataset)
    for name in UIDS:
        if value := str(dataset.get(name, "") or ""):
            setattr(clean, name, pseudonyms.uid(value))
    shift = pseudonyms.shift_days(patient)
    for name in DATES:
        if moved := shifted(str(dataset.get(name, "") or ""), shift):
            setattr(clean, name, moved)
    for name in TIMES:
        if (hour := hour_of(str(dataset.get(name, "") or ""))) is not None:
            setattr(clean, name, f"{hour:02d}0000")
    for name in EMPTIED:
        setattr(clean, name, "")
    clean.PatientID = pseudonyms.of("patient", patient)
    clean.PatientName = clean.PatientID
    if (age := age_of(str(dataset.get("PatientAge", "") or ""))) is not None:
        clean.PatientAge = f"{age:03d}Y"
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = [text for _, text in METHODS]
    clean.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in METHODS]
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    return clean


def identity_of(dataset: Dataset) -> str:
    """Who the image is of, as the sender says it: PatientID within its issuer; empty when not stated."""
    patient = str(dataset.get("PatientID", "") or "").strip()
    issuer = str(dataset.get("IssuerOfPatientID", "") or "").strip()
    return identity(patient, issuer)


def identity(patient: str, issuer: str) -> str:
    """The one text a person's pseudonym is made of: an id means something within its issuer only."""
    return f"{issuer}\0{patient}" if patient else ""


def shifted(day: str, days: int) -> str | None:
    """A DICOM date (YYYYMMDD) moved back by `days`, or None when it is no date."""
    try:
        return (date(int(day[:4]), int(day[4:6]), int(day[6:8])) - timedelta(days=days)).strftime("%Y%m%d")
    except (ValueError, OverflowError):
        return None


def hour_of(time: str) -> int | None:
    """The hour, 0 to 23, of a DICOM time (HHMMSS.FFFFFF), or None."""
    two = time[:2]
    return int(two) if len(two) == 2 and two.isascii() and two.isdigit() and int(two) < 24 else None


def age_of(age: str) -> int | None:
    """Whole years of a DICOM age string (nnnD, nnnW, nnnM, nnnY), capped at 90, or None."""
    if len(age) != 4 or not (age.isascii() and age[:3].isdigit()) or age[3] not in "DWMY":
        return None
    years = int(int(age[:3]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[age[3]])
    return years if years <= AGE_CEILING else AGE_CEILING + 1


def _kept(dataset: Dataset) -> Dataset:
    clean = Dataset()
    for element in dataset:
        if element.tag not in KEPT:
            continue
        if element.VR == "SQ":
            clean[element.tag] = DataElement(element.tag, "SQ", [_kept(item) for item in element.value])
        else:
            clean[element.tag] = element
    return clean


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
