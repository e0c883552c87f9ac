"""DICOM in: bytes of a CR or DX object become a de-identified radiograph, or an error that says why not.

Pixel pipeline of PS3.3: stored values -> modality LUT or rescale -> presentation (MONOCHROME1 is inverted). The VOI window is
how one reader liked to look at it, not what the detector saw; it is not applied.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut
from pydicom.uid import UID

from components.errors import DataError, MissingPatient, UnreadableImage
from components.radiograph.deidentify import Pseudonyms, age_of, hour_of, identity_of, shifted
from components.radiograph.image import ImageMeta, Radiograph

# Computed Radiography; Digital X-Ray for presentation and for processing; Secondary Capture is refused: it may be anything.
RADIOGRAPHS = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
}
MONOCHROMES = ("MONOCHROME1", "MONOCHROME2")
# PS3.3 C.8.11.5.1.1 View Position, and the CIDs for view codes in words, as three projections.
PROJECTIONS = {
    "frontal": ("AP", "PA", "DP", "PD"),
    "lateral": ("LL", "RL", "LAT", "LATERAL", "ML", "LM"),
    "oblique": ("LLO", "RLO", "LPO", "RPO", "LAO", "RAO", "OBL", "OBLIQUE"),
}
REGIONS = {
    "hand": ("HAND", "FINGER", "THUMB"),
    "wrist": ("WRIST",),
    "arm": ("FOREARM", "ARM", "HUMERUS", "UPPERARM", "ELBOW", "RADIUS", "ULNA", "RADIUSULNA"),
    "shoulder": ("SHOULDER", "CLAVICLE", "SCAPULA"),
    "hip": ("HIP", "PELVIS", "FEMUR", "THIGH"),
    "leg": (
        "LEG",
        "KNEE",
        "TIBIA",
        "FIBULA",
        "TIBIAFIBULA",
        "LOWERLEG",
        "ANKLE",
        "FOOT",
        "TOE",
        "CALCANEUS",
        "PATELLA",
    ),
    "chest": ("CHEST", "RIB", "RIBS", "STERNUM"),
    "spine": ("SPINE", "CSPINE", "TSPINE", "LSPINE"),
    "skull": ("SKULL", "HEAD", "JAW", "MANDIBLE"),
}


def read(data: bytes, pseudonyms: Pseudonyms, *, max_megapixels: int = 100) -> Radiograph:
    """Decode and de-identify one DICOM object.

    Args:
        data: the file's bytes; what they hold decides, not a name.
        max_megapixels: larger images are refused before they are decoded.

    Raises:
        UnreadableImage: with `reason` one of not_dicom, no_transfer_syntax, not_a_radiograph, photometric, multi_frame,
            too_large, burned_in_text, no_pixels, truncated, undecodable.
        MissingPatient: the object does not say whose it is.
    """
    with _contained():
        dataset = _parse(data)
        _accept(dataset, max_megapixels)
        if not identity_of(dataset):
            raise MissingPatient(
                "no PatientID: without it one person could stand on both sides of the split; fix the sender"
            )
        pixels = _pixels(dataset)
        return Radiograph(meta=_describe(dataset, pixels, pseudonyms), pixels=pixels)


def sop_instance_uid(data: bytes) -> str | None:
    """The object's own UID, without decoding pixels; None when it has none or is no DICOM."""
    with _contained():
        try:
            return str(_parse(data).get("SOPInstanceUID", "") or "") or None
        except DataError:
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
    level, _ = logger.level, logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _parse(data: bytes) -> Dataset:
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=not data[128:132] == b"DICM")
        # Values convert when first read: have every one read here, where a bad one is caught.
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        str(dataset.get("SOPClassUID", ""))
    except (InvalidDicomError, EOFError):
        raise UnreadableImage("not a DICOM object", reason="not_dicom") from None
    except Exception as error:  # noqa: BLE001  (a hostile file may raise anything; the text may quote it)
        raise UnreadableImage(f"not a readable DICOM object ({type(error).__name__})", reason="not_dicom") from None
    if not dataset:
        raise UnreadableImage("no DICOM attributes in it", reason="not_dicom")
    if not syntax or not UID(syntax).is_transfer_syntax:
        raise UnreadableImage(
            "no transfer syntax: its pixels can only be guessed at; re-export it", reason="no_transfer_syntax"
        )
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
        burned_in = str(dataset.get("BurnedInAnnotation", "")).upper()
    except Exception as error:  # noqa: BLE001  (as in _parse)
        raise UnreadableImage(
            f"its image attributes cannot be read ({type(error).__name__})", reason="not_dicom"
        ) from None
    if sop_class not in RADIOGRAPHS:
        raise UnreadableImage("not a CR or DX image object", reason="not_a_radiograph")
    if "PixelData" not in dataset or not rows or not columns:
        raise UnreadableImage("no pixels in it", reason="no_pixels")
    if photometric not in MONOCHROMES or samples != 1:
        raise UnreadableImage(
            f"photometric interpretation {photometric[:16]!r}, expected one of {', '.join(MONOCHROMES)}",
            reason="photometric",
        )
    if frames != 1:
        raise UnreadableImage(f"{frames} frames, expected 1", reason="multi_frame")
    if rows * columns > max_megapixels * 1_000_000:
        raise UnreadableImage(f"{rows} x {columns} pixels, more than {max_megapixels} megapixels", reason="too_large")
    if burned_in == "YES":
        raise UnreadableImage("the sender says that text is burned into the pixels", reason="burned_in_text")


def _pixels(dataset: Dataset) -> np.ndarray:
    """Decode to (rows, columns) uint8 or uint16, MONOCHROME2, over the full stored range.

    Raises:
        UnreadableImage: reason truncated or undecodable.
    """
    try:
        values = apply_modality_lut(dataset.pixel_array, dataset)
    except Exception as error:  # noqa: BLE001  (decoders raise anything; the text may quote the file)
        short = any(
            word in str(error).lower()
            for word in ("less than expected", "truncat", "end of", "length of the pixel data")
        )
        reason = "truncated" if short else "undecodable"
        raise UnreadableImage(f"its pixels do not decode ({type(error).__name__})", reason=reason) from None
    if values.ndim != 2 or values.shape != (dataset.Rows, dataset.Columns):
        raise UnreadableImage("its pixels are not one grayscale frame of the stated size", reason="undecodable")
    bits = int(dataset.BitsStored)
    pixels = _integral(values, bits)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        top = np.iinfo(pixels.dtype).max if pixels.max() >= 2**bits else 2**bits - 1
        pixels = (top - pixels).astype(pixels.dtype)
    return np.ascontiguousarray(pixels)


def _integral(values: np.ndarray, bits: int) -> np.ndarray:
    """Modality values as unsigned integers: shifted up when signed, kept as they are when they fit, scaled when not."""
    wanted = np.uint8 if bits <= 8 else np.uint16
    low, high = float(values.min()), float(values.max())
    if low < 0:
        values, high = values - low, high - low
    whole = np.issubdtype(values.dtype, np.integer) or bool(np.all(values == np.rint(values)))
    limit = np.iinfo(wanted).max
    if whole and high <= limit:
        return values.astype(wanted)
    if whole and high <= 65535:
        return values.astype(np.uint16)
    # Fractional or wider modality units keep their order and proportion at 16 bits.
    return np.rint(values.astype(np.float64) * (65535.0 / max(high, 1e-12))).astype(np.uint16)


def _describe(dataset: Dataset, pixels: np.ndarray, pseudonyms: Pseudonyms) -> ImageMeta:
    patient = identity_of(dataset)
    uid, study = _text(dataset, "SOPInstanceUID"), _text(dataset, "StudyInstanceUID")
    if not uid:
        raise UnreadableImage("no SOP instance UID: the image cannot be told from others", reason="undecodable")
    day = shifted(_text(dataset, "StudyDate"), pseudonyms.shift_days(patient))
    hours = (hour_of(_text(dataset, name)) for name in ("AcquisitionTime", "ContentTime", "StudyTime"))
    sex = _text(dataset, "PatientSex").upper()
    institution = _text(dataset, "InstitutionName") or _text(dataset, "StationName")
    return ImageMeta(
        image_id=image_id(uid, pseudonyms),
        patient_id=pseudonyms.of("patient", patient),
        study_id=pseudonyms.of("study", study or uid),
        source="dicom",
        grouping="patient",
        site=f"site-{pseudonyms.of('site', institution)[:6]}" if institution else "unknown",
        device=" ".join(filter(None, (_text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName"))))[:64]
        or "unknown",
        view=_view(dataset),
        body_region=_region(_text(dataset, "BodyPartExamined")),
        laterality=(_text(dataset, "ImageLaterality") or _text(dataset, "Laterality") or None),
        sex=sex if sex in ("F", "M", "O") else None,
        age_years=age_of(_text(dataset, "PatientAge")),
        hour=next((hour for hour in hours if hour is not None), None),
        study_day=f"{day[:4]}-{day[4:6]}-{day[6:]}" if day else None,
        photometric=str(dataset.PhotometricInterpretation),
        bits_stored=int(dataset.BitsStored),
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        exposure_index=_number(dataset, "ExposureIndex"),
        target_exposure_index=_number(dataset, "TargetExposureIndex"),
        pixel_spacing_mm=_number(dataset, "ImagerPixelSpacing") or _number(dataset, "PixelSpacing"),
    )


def _view(dataset: Dataset) -> str:
    stated = _text(dataset, "ViewPosition").upper().replace(" ", "")
    for projection, codes in PROJECTIONS.items():
        if stated in codes:
            return projection
    try:
        meaning = str(dataset.ViewCodeSequence[0].get("CodeMeaning", "")).lower()
    except Exception:  # noqa: BLE001  (an absent or malformed sequence states no view)
        return "unknown"
    words = {
        "frontal": ("antero-posterior", "postero-anterior", "frontal"),
        "lateral": ("lateral",),
        "oblique": ("oblique",),
    }
    return next((p for p in ("oblique", "frontal", "lateral") if any(word in meaning for word in words[p])), "unknown")


def _region(stated: str) -> str:
    plain = "".join(ch for ch in stated.upper() if ch.isalpha())
    return next((region for region, names in REGIONS.items() if plain in names), "unknown")


def _text(dataset: Dataset, name: str) -> str:
    """An attribute as one trimmed string; absent, empty or unreadable is ""."""
    try:
        return str(dataset.get(name, "") or "").strip()
    except Exception:  # noqa: BLE001  (as in _parse)
        return ""


def _number(dataset: Dataset, name: str) -> float | None:
    """An attribute's first finite number, or None."""
    try:
        value = dataset.get(name)
        first = float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
    except Exception:  # noqa: BLE001  (absent, empty or not a number: not stated)
        return None
    return first if np.isfinite(first) else None
