"""Identifiers of an invented person, planted in every place a file has, and the means to find them again anywhere.

Tokens are made, not written: this file must not hold what the scan looks for.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import sqlite3
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin, TiffImagePlugin
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.sequence import Sequence

from components.radiograph.phantom import DETECTOR_A, draw

MARK = "zq" + "xj"  # every planted word begins with it
NUMBER = "73" + "9184"  # and every planted number
LETTERS = "ABCDEFGHKLMNPRSTUVWXY"
WORD = re.compile(rf"{MARK}[a-z]{{2}}", re.IGNORECASE)
DIGITS = re.compile(rf"{NUMBER}\d{{3}}")
# Names in their own alphabets, as code points, and the character sets they are sent in.
JAPANESE, GREEK = "".join(map(chr, (0x5C71, 0x7530, 0x592A, 0x90CE))), "".join(map(chr, (0x3A6, 0x3C9, 0x3C4, 0x3B9)))

NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName", "RequestingPhysician",
    "ResponsiblePerson", "PhysiciansOfRecord", "ConsultingPhysicianName",
)  # fmt: skip
TEXTS = (
    "PatientAddress", "PatientComments", "AdditionalPatientHistory", "InstitutionName", "InstitutionAddress",
    "InstitutionalDepartmentName", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
    "FrameComments", "MilitaryRank", "BranchOfService", "RegionOfResidence", "CountryOfResidence", "Occupation",
    "PatientReligiousPreference", "EthnicGroup", "PerformedProcedureStepDescription", "RequestedProcedureDescription",
    "ReasonForStudy", "AdmittingDiagnosesDescription", "DerivationDescription", "Allergies",
    "AcquisitionDeviceProcessingDescription",
    "MedicalAlerts", "IssuerOfPatientID", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "ContrastBolusAgent", "PlateType", "CassetteID", "DetectorDescription", "VisitComments", "CurrentPatientLocation",
    "InsurancePlanIdentification", "PatientTelecomInformation", "TextComments", "Arbitrary",
)  # fmt: skip
CODES = ("StationName", "AccessionNumber", "StudyID", "MedicalRecordLocator", "PerformedStationName",
         "PerformedProcedureStepID", "ScheduledProcedureStepID")  # fmt: skip
STRINGS = ("BodyPartExamined", "ViewPosition", "PerformedStationAETitle", "RetrieveAETitle")
NUMBERS = ("OtherPatientIDs", "PatientTelephoneNumbers", "DeviceSerialNumber", "DetectorID", "PlateID", "KVP",
           "ExposureIndex", "DeviationIndex", "WindowCenter", "InstanceNumber")  # fmt: skip


class Plants:
    """Hands out tokens, a new one for each kind of place."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def word(self, kind: str) -> str:
        number = len(self.kinds)
        kind = kind if kind not in self.kinds else f"{kind} ({number})"
        token = f"{MARK}{LETTERS[number // len(LETTERS)]}{LETTERS[number % len(LETTERS)]}".upper()
        self.kinds[kind] = token
        return token

    def number(self, kind: str) -> str:
        kind = kind if kind not in self.kinds else f"{kind} ({len(self.kinds)})"
        token = f"{NUMBER}{len(self.kinds):03d}"
        self.kinds[kind] = token
        return token


def dicom(plants: Plants, seed: int) -> bytes:
    """A phantom's file with an identifier in every attribute, sequence, block and gap."""
    dataset = dcmread(io.BytesIO(draw(seed, patient=seed, detector=DETECTOR_A, fracture=bool(seed % 2)).dicom))
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 126", "ISO 2022 IR 87"]
    dataset.PatientID = plants.number("PatientID")
    for name in NAMES:
        setattr(dataset, name, f"{plants.word(f'{name}, family')}^{plants.word(f'{name}, given')}")
    dataset.PatientName = f"{dataset.PatientName}={JAPANESE}={GREEK}"
    for name in (*TEXTS, *CODES, *STRINGS):
        if name in ("TextComments", "Arbitrary"):
            setattr(dataset, name, f"see {plants.word(name)}, mail {plants.word(f'{name}, e-mail')}@clinic.example")
        elif name in ("PatientTelecomInformation", "InsurancePlanIdentification", "MedicalRecordLocator"):
            setattr(dataset, name, plants.word(name))
        else:
            setattr(dataset, name, plants.word(name))
    for name in NUMBERS:
        setattr(dataset, name, plants.number(name))
    dataset.StudyInstanceUID = f"1.2.{plants.number('StudyInstanceUID')}.1"
    dataset.SeriesInstanceUID = f"1.2.{plants.number('SeriesInstanceUID')}.2"
    dataset.SOPInstanceUID = f"1.2.{plants.number('SOPInstanceUID')}.3.{seed}"
    dataset.FrameOfReferenceUID = f"1.2.{plants.number('FrameOfReferenceUID')}.4"
    dataset.PatientBirthDate, dataset.PatientBirthTime = "19370914", "231759"
    inner, middle, outer = Dataset(), Dataset(), Dataset()
    inner.PatientName = plants.word("three sequences deep")
    inner.ReferencedSOPInstanceUID = f"1.2.{plants.number('UID three deep')}"
    middle.CodeMeaning, middle.CodeValue, middle.CodingSchemeDesignator = (
        plants.word("code meaning"), plants.word("code value"), "99HOSP"
    )  # fmt: skip
    middle.RequestAttributesSequence = Sequence([inner])
    outer.CodeMeaning = plants.word("region meaning")
    outer.AnatomicRegionModifierSequence = Sequence([middle])
    dataset.AnatomicRegionSequence = Sequence([outer])
    for name in ("RequestAttributesSequence", "OriginalAttributesSequence", "OtherPatientIDsSequence",
                 "ContentSequence", "InstitutionCodeSequence", "ReferencedPatientSequence", "IconImageSequence",
                 "DigitalSignaturesSequence", "EncryptedAttributesSequence"):  # fmt: skip
        item = Dataset()
        item.add_new("TextValue", "UT", plants.word(name))
        item.add_new("CertificateOfSigner", "OB", plants.word(f"{name}, bytes").encode().ljust(8, b"\0"))
        dataset.add_new(name, "SQ", [item])
    block = dataset.private_block(0x0029, plants.word("private creator"), create=True)
    nested = Dataset()
    nested.PatientName = plants.word("private sequence")
    block.add_new(0x10, "LO", plants.word("private text"))
    block.add_new(0x11, "SQ", [nested])
    block.add_new(0x12, "OB", plants.word("private bytes").encode())
    dataset.add_new(0x60003000, "OW", plants.word("overlay data").encode())
    dataset.add_new(0x60000022, "LO", plants.word("overlay description"))
    dataset.add_new(0x60001500, "LO", plants.word("overlay label"))
    dataset.add_new(0x50003000, "OW", plants.word("curve").encode())
    dataset.add_new(0xFFFCFFFC, "OB", plants.word("trailing padding").encode())
    dataset.file_meta.SourceApplicationEntityTitle = plants.word("file meta AE title")
    dataset.file_meta.ImplementationVersionName = plants.word("implementation")
    dataset.file_meta.PrivateInformationCreatorUID = f"1.2.{plants.number('file meta UID')}"
    dataset.file_meta.PrivateInformation = plants.word("file meta private").encode()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = plants.word("preamble").encode().ljust(128, b"\0")
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset)
    return buffer.getvalue()


def another(data: bytes, seed: int) -> bytes:
    """The same person's next image, with all that is planted in `data`."""
    dataset = dcmread(io.BytesIO(data))
    drawn = dcmread(io.BytesIO(draw(seed, patient=seed, detector=DETECTOR_A, fracture=bool(seed % 2)).dicom))
    dataset.PixelData = drawn.PixelData
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.{seed}"
    dcmwrite(buffer := io.BytesIO(), dataset)
    return buffer.getvalue()


def broken(data: bytes, plants: Plants) -> list[bytes]:
    """Files that make a parser complain, with identifiers in what it may quote."""
    word, number = plants.word("value that no date is").encode(), plants.number("number that is none").encode()
    return [
        data.replace(b"19370914", word[:6] + b"//"),
        data[:-5000] + word,
        word * 40,
        data.replace(b"MONOCHROME", word + b"XXXX", 1),
        b"\0" * 128 + b"DICM" + number * 9,
    ]


def lettered(pixels: np.ndarray, words: str) -> np.ndarray:
    """`pixels` (uint8) with words burned in."""
    cv2.putText(pixels, words, (8, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2, cv2.LINE_AA)
    return pixels


def picture(seed: int) -> np.ndarray:
    """(420, 340) uint8 of soft blobs below white."""
    field = np.random.default_rng(seed).normal(size=(420, 340)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(field, (0, 0), 12), None, 0, 170, cv2.NORM_MINMAX).astype(np.uint8)


def fracatlas(folder: Path, plants: Plants) -> Path:
    """JPEGs with EXIF, XMP and a comment, letters in the pixels, and a table with columns too many."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = (plants.word(f"EXIF {n}") for n in ("description", "artist", "owner"))
    where = folder / "images" / "Non_fractured"
    where.mkdir(parents=True)
    for number in range(1, 4):
        buffer = io.BytesIO()
        words = plants.word("burned in a JPEG") if number == 1 else ""
        Image.fromarray(lettered(picture(number), words)).save(
            buffer, "JPEG", quality=95, exif=exif, comment=plants.word("JPEG comment"),
            xmp=f"<x:xmpmeta>{plants.word('XMP')}</x:xmpmeta>".encode(),
        )  # fmt: skip
        (where / f"IMG{number:07d}.jpg").write_bytes(buffer.getvalue() + plants.word("after a JPEG").encode())
    columns = ["hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan", "frontal", "lateral", "oblique"]
    with (folder / "dataset.csv").open("w", newline="") as text:
        table = csv.writer(text)
        table.writerow(["image_id", "fractured", *columns, plants.word("column of a table")])
        table.writerows(
            [f"IMG{n:07d}.jpg", 0, *([1] + [0] * 6 + [1, 0, 0]), plants.word("cell of a table")] for n in range(1, 4)
        )
    return folder


def grazpedwri(folder: Path, plants: Plants) -> Path:
    """A PNG with text chunks and a TIFF with tags, named after the person, in the layout of GRAZPEDWRI-DX."""
    (folder / "images").mkdir(parents=True)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", plants.word("PNG tEXt"))
    notes.add_itxt("Title", plants.word("PNG iTXt"), zip=True)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[315], tags[65000] = (plants.word(f"TIFF {n}") for n in ("description", "artist", "private"))
    stems = [f"{plants.number('file stem')}_{n}_WRI-L1_M014" for n in (1, 2)]
    Image.fromarray(picture(11)).save(folder / "images" / f"{stems[0]}.png", pnginfo=notes)
    Image.fromarray(picture(12)).save(folder / "images" / f"{stems[1]}.tif", tiffinfo=tags)
    header = "filestem,patient_id,study_number,gender,age,laterality,projection,fracture_visible"
    lines = [f"{stem},{plants.number('patient of a table')},{n},M,9,L,1,1" for n, stem in enumerate(stems, 1)]
    (folder / "dataset.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def zipped(path: Path, data: bytes, plants: Plants) -> Path:
    """A zip whose own comment, member names and member comments name the person."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(f"{plants.word('zip folder')}/{plants.word('zip member')}.dcm")
        entry.comment = plants.word("zip member comment").encode()
        archive.writestr(entry, data)
        archive.comment = plants.word("zip comment").encode()
    return path


def texts(name: str, data: bytes) -> Iterator[bytes]:
    """Everything a file says: its bytes, and what is packed in them (zlib, Parquet, SQLite, zip)."""
    yield data
    if data[:1] == b"\x78":
        with suppress(zlib.error):
            yield zlib.decompress(data)
    if data[:4] == b"PAR1":
        for row in pq.read_table(io.BytesIO(data)).to_pylist():
            said = {key: str(value) for key, value in row.items() if not isinstance(value, bytes)}
            yield json.dumps(said, ensure_ascii=False).encode() + b"".join(
                v for v in row.values() if isinstance(v, bytes)
            )
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield member.encode() + archive.read(member)


def database(path: Path) -> Iterator[bytes]:
    """Every row of an SQLite file, long values whole."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        for line in connection.iterdump():
            yield line.encode()


def git_objects(folder: Path) -> bytes:
    """Every object of a repository, packed or loose."""
    return subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=folder, capture_output=True, check=True
    ).stdout


def found(data: bytes) -> set[str]:
    """The tokens in `data`: as text of one or two bytes a letter, in hex, in base64, in any case."""
    heard: set[str] = set()
    low = data.lower()
    for form in (low, low.replace(b"\0", b"")):
        plain = form.decode("latin-1")
        heard |= {match.upper() for match in WORD.findall(plain)} | set(DIGITS.findall(plain))
    for text in (JAPANESE, GREEK):
        coded = [text.encode(way) for way in ("utf-8", "utf-16-le", "utf-16-be")]
        coded += [JAPANESE.encode("iso2022_jp")] if text == JAPANESE else [GREEK.encode("iso8859_7")]
        heard |= {text} if any(form in data for form in coded) else set()
        heard |= {text} if text.encode("unicode_escape") in data else set()
    for marker in (MARK.upper(), MARK, NUMBER):
        heard |= {f"hex:{marker}"} if marker.encode().hex().encode() in low else set()
        # base64 in each of its three alignments, without the letters that neighbours change
        for shift in range(3):
            whole = base64.b64encode(b"\0" * shift + marker.encode())
            sure = whole[(0, 2, 3)[shift] : (shift + len(marker)) * 8 // 6]
            heard |= {f"base64:{marker}"} if len(sure) >= 5 and sure in data else set()
    return heard
