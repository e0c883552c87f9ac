"""What a DICOM header says about an image, in this platform's words and under pseudonyms."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from components.errors import UnreadableImage
from components.radiograph.deidentify import Pseudonyms, age_of, deidentify, hour_of, identity_of, shifted, text
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
WIDEST = 131_072.0  # a window further away than twice 16 bits shows nothing; a longer number could be a record's


def describe(dataset: Dataset, found: Picture, pseudonyms: Pseudonyms) -> ImageMeta:
    """The metadata of a decoded image; what is missing, empty or malformed counts as not stated.

    Everything but pseudonyms is read from the de-identified header, so that the archive says no more than that does.

    Args:
        found: its pixels, decoded.

    Raises:
        UnreadableImage: the object has no identity of its own.
    """
    patient = identity_of(dataset)
    uid, study = text(dataset, "SOPInstanceUID"), text(dataset, "StudyInstanceUID")
    if not uid:
        raise UnreadableImage("no SOP instance UID: the image cannot be told from others", reason="undecodable")
    day = shifted(text(dataset, "StudyDate"), pseudonyms.shift_days(patient))
    hours = (hour_of(text(dataset, name)) for name in ("AcquisitionTime", "ContentTime", "StudyTime"))
    institution = text(dataset, "InstitutionName") or text(dataset, "StationName")
    clean = deidentify(dataset, pseudonyms)
    return ImageMeta(
        image_id=pseudonyms.of("image", uid),
        patient_id=pseudonyms.of("patient", patient),
        study_id=pseudonyms.of("study", study or uid),
        source="dicom",
        grouping="patient",
        site=f"site-{pseudonyms.of('site', institution)[:6]}" if institution else "unknown",
        device=" ".join(filter(None, (clean.Manufacturer, clean.ManufacturerModelName))) or "unknown",
        view=_view(clean),
        body_region=_region(text(clean, "BodyPartExamined")),
        laterality=clean.get("ImageLaterality") or clean.get("Laterality"),
        sex=clean.get("PatientSex"),
        age_years=age_of(text(clean, "PatientAge")),
        hour=next((hour for hour in hours if hour is not None), None),
        study_day=f"{day[:4]}-{day[4:6]}-{day[6:]}" if day else None,
        photometric=str(dataset.PhotometricInterpretation),
        bits_stored=found.bits,
        rows=found.pixels.shape[0],
        columns=found.pixels.shape[1],
        window_center=_bounded(found.window[0]) if found.window else None,
        window_width=max(0.1, _bounded(found.window[1])) if found.window else None,
        exposure_index=_number(clean, "ExposureIndex"),
        target_exposure_index=_number(clean, "TargetExposureIndex"),
        deviation_index=_number(clean, "DeviationIndex"),
        pixel_spacing_mm=_number(clean, "ImagerPixelSpacing") or _number(clean, "PixelSpacing"),
    )


def _view(dataset: Dataset) -> str:
    stated = text(dataset, "ViewPosition")
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


def _bounded(level: float) -> float:
    """A window's centre or width, inside what can be seen and to a tenth."""
    return round(min(max(level, -WIDEST), WIDEST), 1)


def _number(dataset: Dataset, name: str) -> float | None:
    """An attribute's first finite number, or None."""
    try:
        value = dataset.get(name)
        first = float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
    except Exception:  # noqa: BLE001  (absent, empty or not a number: not stated)
        return None
    return first if np.isfinite(first) else None
