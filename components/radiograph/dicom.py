"""DICOM in: bytes of a CR or DX object become a de-identified radiograph, or an error that says why not.

What it holds decides, not its name; `decoders` brings the stored values, `grayscale` the picture they mean.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from components.errors import MissingPatient, UnreadableImage
from components.radiograph.decoders import stored_values
from components.radiograph.deidentify import Pseudonyms, deidentify, identity_of, text
from components.radiograph.grayscale import Picture, picture
from components.radiograph.header import describe
from components.radiograph.image import Radiograph

# Computed Radiography; Digital X-Ray for presentation and for processing. Secondary Capture may be anything: refused.
RADIOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
}
# PS3.3 C.8.11.3.1.2: the only shape of the presentation LUT that each interpretation may state.
SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
# Words by which decoders say that pixel data ends too early.
SHORT = ("less than expected", "truncat", "end of", "length of the pixel data", "fewer", "insufficient")
BYTES_A_MEGAPIXEL, HEADER_BYTES = 2_000_000, 64 * 2**20
# Warning filters and log levels are the process's own: one thread at a time may silence them.
_QUIET = threading.Lock()


def read(data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int = 100) -> Radiograph:
    """Decode and de-identify one DICOM object. Text in its pixels is the business of `burned_in.clean`.

    Args:
        data: the file's bytes; what they hold decides, not a name.
        max_megapixels: larger images are refused before they are decoded.

    Raises:
        UnreadableImage: with `reason` one of not_dicom, no_transfer_syntax, not_a_radiograph, photometric, multi_frame,
            too_large, no_pixels, truncated, undecodable.
        MissingPatient: the object does not say whose it is.
    """
    with _contained():
        dataset = _parse(data, max_megapixels)
        _accept(dataset, max_megapixels)
        if not identity_of(dataset):
            raise MissingPatient(
                "no PatientID: without it one person could stand on both sides of the split; fix the sender"
            )
        found = _picture(dataset)
        declared = text(dataset, "BurnedInAnnotation").upper() == "YES"
        return Radiograph(describe(dataset, found, pseudonyms), found.pixels, burned_in=declared)


def clean_header(data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int = 100) -> Dataset:
    """The object's header as `deidentify` makes it, while nothing that is said about its values can be heard.

    Raises:
        UnreadableImage: reason not_dicom, no_transfer_syntax, too_large or truncated.
    """
    with _contained():
        return deidentify(_parse(data, max_megapixels), pseudonyms)


def sop_instance_uid(data: bytes) -> str | None:
    """The object's own UID, without decoding pixels; None when it has none or is no DICOM."""
    with _contained():
        try:
            return str(_parse(data).get("SOPInstanceUID", "") or "") or None
        except Exception:  # noqa: BLE001  (as in _parse: an identifier that cannot be read is none)
            return None


def image_id(sop_instance_uid: str, pseudonyms: Pseudonyms) -> str:
    """The pseudonym by which archive, service and corrections know one DICOM image."""
    return pseudonyms.of("image", sop_instance_uid)


def is_dicom(data: bytes) -> bool:
    """Whether `data` starts like a DICOM file (PS3.10 preamble), or like one whose preamble was cut off."""
    return data[128:132] == b"DICM" or data[:4] in (
        b"\x02\x00\x00\x00",
        b"\x08\x00\x05\x00",
        b"\x08\x00\x08\x00",
        b"\x08\x00\x00\x00",
    )


@contextmanager
def _contained() -> Iterator[None]:
    """Odd files make pydicom warn with values of attributes; no such text may reach a log."""
    logger = logging.getLogger("pydicom")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def _parse(data: bytes, max_megapixels: int = 100) -> Dataset:
    # Without a preamble a data set begins with group 2 or 8, in either byte order. Anything else is not worth a look:
    # a disk's lost sectors, zeros, would be read as millions of empty elements.
    if data[128:132] != b"DICM" and data[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        raise UnreadableImage("not a DICOM object", reason="not_dicom")
    try:
        dataset = _dataset(data, max_megapixels)
        # Values convert when first read: have every one read here, where a bad one is caught.
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        known = bool(syntax) and UID(syntax).is_transfer_syntax
        sop_class = str(dataset.get("SOPClassUID", "") or "")
    except UnreadableImage:
        raise
    except (InvalidDicomError, EOFError):
        raise UnreadableImage("not a DICOM object", reason="not_dicom") from None
    except Exception as error:  # noqa: BLE001  (a hostile file may raise anything; the text may quote it)
        raise UnreadableImage(f"not a readable DICOM object ({type(error).__name__})", reason="not_dicom") from None
    if not dataset or not (data[128:132] == b"DICM" or sop_class):
        raise UnreadableImage("not a DICOM object", reason="not_dicom")
    if not known:
        raise UnreadableImage(
            "no transfer syntax: its pixels can only be guessed at; re-export it", reason="no_transfer_syntax"
        )
    return dataset


def _dataset(data: bytes, max_megapixels: int) -> Dataset:
    """What pydicom reads; of a deflated object no more is inflated than a radiograph can need.

    Raises:
        UnreadableImage: reason too_large or truncated.
        Exception: whatever pydicom says of a broken file.
    """
    stream = io.BytesIO(data)
    stream.seek(132 if data[128:132] == b"DICM" else 0)
    # The group of the file's own header, as pydicom finds it.
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(io.BytesIO(data), force=data[128:132] != b"DICM")
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)  # PS3.5 A.5
    plain = inflating.decompress(stream.read(), max_megapixels * BYTES_A_MEGAPIXEL + HEADER_BYTES)
    if not inflating.eof:
        too_much = bool(inflating.unconsumed_tail)
        raise UnreadableImage(
            f"inflates to more than {max_megapixels} megapixels need" if too_much else "its deflated data ends early",
            reason="too_large" if too_much else "truncated",
        )
    dataset = read_dataset(io.BytesIO(plain), False, True)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = FileMetaDataset(meta)
    return dataset


def _accept(dataset: Dataset, max_megapixels: int) -> None:
    """Refuse what is not one grayscale radiograph of a bearable size.

    Raises:
        UnreadableImage: see `read`.
    """
    try:
        sop_class, photometric = str(dataset.get("SOPClassUID", "")), str(dataset.get("PhotometricInterpretation", ""))
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
        shape = str(dataset.get("PresentationLUTShape", "") or "").upper()
        identity_of(dataset)  # what cannot be read fails here, where it is caught
    except Exception as error:  # noqa: BLE001  (as in _parse)
        raise UnreadableImage(
            f"its image attributes cannot be read ({type(error).__name__})", reason="not_dicom"
        ) from None
    if sop_class not in RADIOGRAPHS:
        raise UnreadableImage("not a CR or DX image object", reason="not_a_radiograph")
    if "PixelData" not in dataset or not rows or not columns:
        raise UnreadableImage("no pixels in it", reason="no_pixels")
    if photometric not in SHAPES or samples != 1:
        raise UnreadableImage(
            f"photometric interpretation is not one of {', '.join(SHAPES)}, or more than one sample a pixel",
            reason="photometric",
        )
    if shape not in ("", SHAPES[photometric]):
        raise UnreadableImage(f"{photometric} contradicts its presentation LUT shape", reason="photometric")
    if frames != 1:
        raise UnreadableImage(f"{frames} frames, expected 1", reason="multi_frame")
    if rows * columns > max_megapixels * 1_000_000:
        raise UnreadableImage(f"{rows} x {columns} pixels, more than {max_megapixels} megapixels", reason="too_large")


def _picture(dataset: Dataset) -> Picture:
    """Decode and map to what the sender means.

    Raises:
        UnreadableImage: reason truncated or undecodable.
    """
    try:
        found = picture(stored_values(dataset), dataset)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  (decoders raise anything; the text may quote the file)
        reason = "truncated" if any(word in str(error).lower() for word in SHORT) else "undecodable"
        raise UnreadableImage(f"its pixels do not decode ({type(error).__name__})", reason=reason) from None
    if found.pixels.shape != (dataset.Rows, dataset.Columns) or not 1 <= found.bits <= 16:
        raise UnreadableImage("its pixels are not one grayscale frame of the stated size", reason="undecodable")
    return found
