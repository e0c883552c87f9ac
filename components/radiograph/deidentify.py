"""Privacy: keyed pseudonyms that only this site can make, and DICOM's basic confidentiality profile.

Source: DICOM PS3.15 Annex E, basic application level confidentiality profile (113100) with the options "clean pixel
data" (113101, once text in the pixels was looked for and painted over), "retain longitudinal temporal information with
modified dates" (113107) and "retain patient characteristics" (113108: sex and age).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from components.errors import ConfigError
from components.radiograph import profile

KEY_FILE = "pseudonym.key"
KEY_BYTES = 32
MAX_SHIFT_DAYS = 3650
AGE_CEILING = 89  # above it an age identifies; it is written as 90

DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")
EMPTIED = (
    "PatientBirthDate",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)  # action Z: present, without value
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
BASIC, CLEAN_PIXELS = "113100", "113101"
METHODS = {
    BASIC: "Basic Application Confidentiality Profile",
    CLEAN_PIXELS: "Clean Pixel Data Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
MAX_LUT = 65_536  # entries of a look-up table, PS3.3 C.11.1.1.1


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
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """A new header for `dataset` that says what a radiograph is and nothing of whose it is; it holds no pixels.

    Built from what may stay, not by removing what may not: terms of the standard, numbers in their physical range,
    codes of the standard, look-up tables, pseudonyms for patient and UIDs at every depth, dates moved by a constant
    per patient, hours. An attribute nobody thought of, private, repeating or broken, is not looked at. The input is
    not changed. `profile` holds the lists.

    Args:
        dataset: a DICOM data set that names its patient (PatientID); values may be malformed.
    """
    patient = identity_of(dataset)
    clean = Dataset()
    _describe(dataset, clean, pseudonyms)
    for name in UIDS:
        if value := text(dataset, name):
            setattr(clean, name, pseudonyms.uid(value))
    shift = pseudonyms.shift_days(patient)
    for name in DATES:
        if moved := shifted(text(dataset, name), shift):
            setattr(clean, name, moved)
    for name in TIMES:
        if (hour := hour_of(text(dataset, name))) is not None:
            setattr(clean, name, f"{hour:02d}0000")
    for name in EMPTIED:
        setattr(clean, name, "")
    clean.PatientID = pseudonyms.of("patient", patient)
    clean.PatientName = clean.PatientID
    if (age := age_of(text(dataset, "PatientAge"))) is not None:
        clean.PatientAge = f"{age:03d}Y"
    clean.PatientIdentityRemoved = "YES"
    _claim(clean, [code for code in METHODS if code != CLEAN_PIXELS])
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    return clean


def with_pixels(header: Dataset, pixels: np.ndarray, bits: int) -> Dataset:
    """`header` (as `deidentify` made it) over pixels in which no text but markers is left.

    The pixels are written anew, uncompressed: nothing rides along in unused bits, after the last row, or in the
    comments of a compressed stream.

    Args:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2, after the modality LUT.
        bits: depth of their full range.
    """
    clean = Dataset()
    clean.update({element.tag: element for element in header if element.keyword not in _OF_STORED_PIXELS})
    clean.SamplesPerPixel, clean.PhotometricInterpretation = 1, "MONOCHROME2"
    clean.PresentationLUTShape = "IDENTITY"
    clean.Rows, clean.Columns = pixels.shape
    clean.BitsAllocated, clean.BitsStored, clean.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    clean.PixelRepresentation = 0
    data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    clean.add_new("PixelData", "OW", data + b"\0" * (len(data) % 2))
    clean.BurnedInAnnotation = "NO"
    _claim(clean, list(METHODS))
    return clean


# They describe pixels as they were stored, before the look-up tables and the polarity were applied.
_OF_STORED_PIXELS = frozenset(
    (*profile.WHOLE, *profile.LUTS, "RescaleIntercept", "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth")
)


def identity_of(dataset: Dataset) -> str:
    """Who the image is of, as the sender says it: PatientID within its issuer; empty when not stated."""
    return identity(text(dataset, "PatientID"), text(dataset, "IssuerOfPatientID"))


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


def text(dataset: Dataset, name: str) -> str:
    """An attribute as one trimmed string; absent, empty or unreadable is ""."""
    try:
        return str(dataset.get(name, "") or "").strip()
    except Exception:  # noqa: BLE001  (a malformed value may raise anything, and quote itself)
        return ""


def _describe(dataset: Dataset, clean: Dataset, pseudonyms: Pseudonyms) -> None:
    """Copy what describes the picture from `dataset` into `clean`."""
    if uid := profile.standard_uid(text(dataset, "SOPClassUID")):
        clean.SOPClassUID = uid
    for name in profile.TERMS:
        if kept := profile.term(name, text(dataset, name)):
            setattr(clean, name, kept)
    for name in profile.RANGES:
        numbers = [profile.number(name, value) for value in _values(dataset, name)]
        if numbers and None not in numbers:
            setattr(clean, name, numbers if len(numbers) > 1 else numbers[0])
    for name in profile.WHOLE:
        if len(found := _values(dataset, name)) == 1 and isinstance(found[0], int) and abs(found[0]) < MAX_LUT:
            setattr(clean, name, int(found[0]))
    types = [str(value).strip().upper() for value in _values(dataset, "ImageType")[:2]]
    if len(types) == 2 and all(value in terms for value, terms in zip(types, profile.IMAGE_TYPES, strict=True)):
        clean.ImageType = types
    sides = [str(value).strip().upper() for value in _values(dataset, "PatientOrientation")]
    if len(sides) == 2 and all(profile.ORIENTATIONS.fullmatch(side) for side in sides):
        clean.PatientOrientation = sides
    maker, model = profile.device(text(dataset, "Manufacturer"), text(dataset, "ManufacturerModelName"), pseudonyms.of)
    clean.Manufacturer, clean.ManufacturerModelName = maker, model
    for name in profile.LISTS_OF_CODES:
        if codes := [code for item in _items(dataset, name) for code in _coded(item)]:
            setattr(clean, name, codes)
    for name in profile.LUTS:
        if tables := [table for item in _items(dataset, name) for table in _table(item)]:
            setattr(clean, name, tables)
    for name in profile.REFERENCES:
        if others := [other for item in _items(dataset, name) for other in _reference(item, pseudonyms)]:
            setattr(clean, name, others)


def _values(dataset: Dataset, name: str) -> list[Any]:
    """The values of an attribute; none when it is absent, empty or malformed."""
    try:
        value = dataset.get(name)
        if value is None or value == "":
            return []
        return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    except Exception:  # noqa: BLE001  (as in `text`)
        return []


def _items(dataset: Dataset, name: str) -> list[Dataset]:
    return [item for item in _values(dataset, name) if isinstance(item, Dataset)]


def _coded(item: Dataset) -> Iterator[Dataset]:
    known = profile.coded(text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning"))
    if known:
        code = _code(*known)
        for name in profile.LISTS_OF_CODES:  # modifiers lie inside what they modify
            if inner := [found for part in _items(item, name) for found in _coded(part)]:
                setattr(code, name, inner)
        yield code


def _table(item: Dataset) -> Iterator[Dataset]:
    """A look-up table, cut to the entries that it says it has."""
    descriptor = _values(item, "LUTDescriptor")
    try:
        entries = int(descriptor[0]) or MAX_LUT
        data = item["LUTData"].value
        bits = int(descriptor[2])
        table = Dataset()
        table.LUTDescriptor = [int(value) for value in descriptor]
        if isinstance(data, bytes):
            table.add_new("LUTData", "OW", data[: entries * (2 if bits > 8 or len(data) >= 2 * entries else 1)])
        else:
            table.add_new("LUTData", "US", [int(value) for value in list(data)[:entries]])
    except Exception:  # noqa: BLE001  (no table then: `dicom` refuses pixels that need it)
        return
    if kind := profile.term("ModalityLUTType", text(item, "ModalityLUTType")):
        table.ModalityLUTType = kind
    yield table


def _reference(item: Dataset, pseudonyms: Pseudonyms) -> Iterator[Dataset]:
    sop_class, instance = (
        profile.standard_uid(text(item, "ReferencedSOPClassUID")), text(item, "ReferencedSOPInstanceUID")
    )  # fmt: skip
    if sop_class and instance:
        other = Dataset()
        other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = sop_class, pseudonyms.uid(instance)
        yield other


def _claim(clean: Dataset, codes: list[str]) -> None:
    clean.DeidentificationMethod = [METHODS[code] for code in codes]
    clean.DeidentificationMethodCodeSequence = [_code(code, "DCM", METHODS[code]) for code in codes]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    if value:
        item.CodeValue, item.CodingSchemeDesignator = value, scheme
    item.CodeMeaning = meaning
    return item
