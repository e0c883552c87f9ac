"""What a DICOM header says about an image, in this platform's words and under pseudonyms."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from components.errors import UnreadableImage
from components.radiograph.deidentify import Pseudonyms, age_of, hour_of, identity_of, shifted
from components.radiograph.grayscale import Picture
from components.radiograph.image import ImageMeta

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
SIDES = ("L", "R", "B", "U")


def describe(dataset: Dataset, found: Picture, pseudonyms: Pseudonyms) -> ImageMeta:
    """The metadata of a decoded image; what is missing, empty or malformed counts as not stated.

    Args:
        found: its pixels, decoded.

    Raises:
        UnreadableImage: the object has no identity of its own.
    """
    patient = identity_of(dataset)
    uid, study = _text(dataset, "SOPInstanceUID"), _text(dataset, "StudyInstanceUID")
    if not uid:
        raise UnreadableImage("no SOP instance UID: the image cannot be told from others", reason="undecodable")
    day = shifted(_text(dataset, "StudyDate"), pseudonyms.shift_days(patient))
    hours = (hour_of(_text(dataset, name)) for name in ("AcquisitionTime", "ContentTime", "StudyTime"))
    sex = _text(dataset, "PatientSex").upper()
    side = (_text(dataset, "ImageLaterality") or _text(dataset, "Laterality")).upper()
    institution = _text(dataset, "InstitutionName") or _text(dataset, "StationName")
    return ImageMeta(
        image_id=pseudonyms.of("image", uid),
        patient_id=pseudonyms.of("patient", patient),
        study_id=pseudonyms.of("study", study or uid),
        source="dicom",
        grouping="patient",
        site=f"site-{pseudonyms.of('site', institution)[:6]}" if institution else "unknown",
        device=" ".join(filter(None, (_text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName"))))[:64]
        or "unknown",
        view=_view(dataset),
        body_region=_region(_text(dataset, "BodyPartExamined")),
        laterality=side if side in SIDES else None,
        sex=sex if sex in ("F", "M", "O") else None,
        age_years=age_of(_text(dataset, "PatientAge")),
        hour=next((hour for hour in hours if hour is not None), None),
        study_day=f"{day[:4]}-{day[4:6]}-{day[6:]}" if day else None,
        photometric=str(dataset.PhotometricInterpretation),
        bits_stored=found.bits,
        rows=found.pixels.shape[0],
        columns=found.pixels.shape[1],
        window_center=found.window[0] if found.window else None,
        window_width=found.window[1] if found.window else None,
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
