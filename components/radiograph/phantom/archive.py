"""Phantoms as files: valid DICOM objects of invented patients, and the truth about them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from components.radiograph.labels import FRACTURE, NO_FRACTURE, Box
from components.radiograph.phantom.anatomy import Limb, Pose, grow, project, turned
from components.radiograph.phantom.detector import TARGET_INDEX, Detector, Exposure, expose
from components.radiograph.phantom.fracture import KINDS, Break, break_bone, outline

FIRST_DAY = date(2026, 1, 5)
IMPLEMENTATION = "2.25.214748364799114711198108111119"
# DICOM context group 4031 (SNOMED CT) of the parts in `anatomy.LIMBS`; 4010 of the views.
REGIONS = {"FOREARM": ("14975008", "Forearm"), "LEG": ("30021000", "Lower leg"), "ARM": ("40983000", "Upper arm")}
VIEWS = {"AP": ("399348003", "antero-posterior"), "LAT": ("399067008", "lateral")}


@dataclass(frozen=True)
class Phantom:
    """A drawn radiograph and the truth about it.

    Attributes:
        dicom: the file's bytes.
        boxes: of the fracture, in pixels of the image; empty without one.
        name: of the file.
        kind: of the fracture, or None.
    """

    dicom: bytes
    label: str
    boxes: tuple[Box, ...]
    name: str
    sop_instance_uid: str
    patient: str
    kind: str | None


@dataclass(frozen=True)
class Archive:
    """A folder of phantoms."""

    folder: Path
    phantoms: tuple[Phantom, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Where each phantom lies, in the order of `phantoms`."""
        return tuple(self.folder / phantom.name for phantom in self.phantoms)


def draw(seed: int, *, patient: int, detector: Detector, fracture: bool | str, image: int = 0) -> Phantom:
    """Draw one radiograph; equal arguments give equal bytes.

    Args:
        patient: number of the invented patient; with `seed` it fixes the anatomy and the fracture.
        fracture: whether, or which of `fracture.KINDS`.
        image: number of the picture: even ones are frontal, odd ones lateral.
    """
    person = np.random.default_rng((seed, patient, 0))
    limb = grow(person)
    kinds = person.choice(KINDS)
    kind = fracture if isinstance(fracture, str) else str(kinds) if fracture else None
    reach = 0.27 * detector.rows * detector.pitch_mm
    broken = break_bone(person, kind, len(limb.bones), reach) if kind else None
    rng = np.random.default_rng((seed, patient, 1 + image))
    view = "LAT" if image % 2 else "AP"
    pose = Pose(
        tilt=float(rng.normal(0, 0.12)),
        shift=(float(rng.normal(0, 5)), float(rng.normal(0, 4))),
        turn=float(rng.normal(np.pi / 2 if view == "LAT" else 0, 0.12)),
    )
    attenuation = project(
        limb, pose, broken, rng, rows=detector.rows, columns=detector.columns, pitch=detector.pitch_mm
    )
    exposure = expose(attenuation, detector, rng)
    boxes = (_box(limb, pose, broken, detector, exposure),) if broken else ()
    number = f"{detector.name}-{patient:04d}"
    instance = _uid(seed, number, "instance", image)
    dataset = _describe(
        limb, view, detector, exposure, rng, patient=f"PHANTOM-{number}", uids=_uids(seed, number, image)
    )
    return Phantom(
        dicom=_write(dataset, instance),
        label=FRACTURE if kind else NO_FRACTURE,
        boxes=boxes,
        name=f"phantom-{number}-{image}.dcm",
        sop_instance_uid=instance,
        patient=f"PHANTOM-{number}",
        kind=kind,
    )


def write_archive(
    folder: Path,
    *,
    patients: int,
    images_per_patient: int = 2,
    prevalence: float = 0.4,
    detector: Detector,
    seed: int,
    labels: bool = True,
) -> Archive:
    """Draw a site's archive into `folder`: *.dcm and, with `labels`, labels.csv (sop_instance_uid, label, boxes).

    Args:
        prevalence: share of patients with a fracture, met as closely as whole patients allow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng((seed, 0)).permutation(patients)
    broken = set(order[: round(prevalence * patients)].tolist())
    phantoms = []
    for patient in range(patients):
        for image in range(images_per_patient):
            phantom = draw(seed, patient=patient + 1, detector=detector, fracture=patient in broken, image=image)
            (folder / phantom.name).write_bytes(phantom.dicom)
            phantoms.append(phantom)
    if labels:
        _write_labels(folder / "labels.csv", phantoms)
    return Archive(folder, tuple(phantoms))


def _write_labels(path: Path, phantoms: list[Phantom]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sop_instance_uid", "label", "boxes"))
        for phantom in phantoms:
            boxes = json.dumps([box.model_dump() for box in phantom.boxes])
            writer.writerow((phantom.sop_instance_uid, phantom.label, boxes))


def _box(limb: Limb, pose: Pose, broken: Break, detector: Detector, exposure: Exposure) -> Box:
    """The smallest box around the fracture's outline, inside the collimator's opening."""
    u, v = outline(broken, turned(limb.bones[broken.bone], pose), pose.turn)
    x, y = pose.pixel(u, v, detector.rows, detector.columns, detector.pitch_mm)
    left, top, right, bottom = exposure.field
    x, y = np.clip(x, left, right), np.clip(y, top, bottom)
    x0, y0 = float(np.floor(x.min())), float(np.floor(y.min()))
    return Box(x=x0, y=y0, width=float(np.ceil(x.max())) - x0 or 1.0, height=float(np.ceil(y.max())) - y0 or 1.0)


def _uid(seed: int, *parts: object) -> str:
    digest = hashlib.sha256(json.dumps([seed, *map(str, parts)]).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def _uids(seed: int, number: str, image: int) -> dict[str, str]:
    return {
        "StudyInstanceUID": _uid(seed, number, "study"),
        "SeriesInstanceUID": _uid(seed, number, "series", image),
        "SOPInstanceUID": _uid(seed, number, "instance", image),
    }


def _describe(
    limb: Limb,
    view: str,
    detector: Detector,
    exposure: Exposure,
    rng: np.random.Generator,
    *,
    patient: str,
    uids: dict[str, str],
) -> Dataset:
    """A Digital X-Ray object, PS3.3 A.26: the attributes of type 1 and 2 of its mandatory modules, and what we read."""
    dataset = Dataset()
    day = FIRST_DAY + timedelta(days=int(patient[-4:]) % 180)
    clock = f"{int(rng.integers(7, 23)):02d}{int(rng.integers(60)):02d}00"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{name}Date", day.strftime("%Y%m%d"))
        setattr(dataset, f"{name}Time", clock)
    values: dict[str, object] = {
        **uids,
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientID": patient,
        "PatientName": patient.replace("-", "^", 1),
        "PatientBirthDate": "",
        "PatientSex": limb.sex,
        "PatientAge": f"{limb.age:03d}Y",
        "ReferringPhysicianName": "",
        "StudyID": "1",
        "AccessionNumber": "",
        "Modality": "DX",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": detector.maker,
        "ManufacturerModelName": detector.model,
        "InstitutionName": detector.site,
        "StationName": f"XR-{detector.name}",
        "SoftwareVersions": "1",
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "PatientOrientation": ["L", "F"] if view == "AP" else ["P", "F"],
        "BodyPartExamined": limb.part,
        "ImageLaterality": limb.side,
        "ViewPosition": view if view == "AP" else "LL",
        "AcquisitionContextSequence": [],
        "DetectorType": "DIRECT",
        "KVP": 55,
        "ExposureIndex": exposure.index,
        "TargetExposureIndex": TARGET_INDEX,
        "DeviationIndex": round(float(10 * np.log10(exposure.index / TARGET_INDEX)), 1),
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
    }
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.AnatomicRegionSequence = [_code(*REGIONS[limb.part])]
    dataset.ViewCodeSequence = [_code(*VIEWS[view])]
    _describe_pixels(dataset, detector, exposure.pixels)
    return dataset


def _describe_pixels(dataset: Dataset, detector: Detector, pixels: np.ndarray) -> None:
    inverse = detector.photometric == "MONOCHROME1"
    values: dict[str, object] = {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": detector.photometric,
        "PresentationLUTShape": "INVERSE" if inverse else "IDENTITY",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if inverse else -1,
        "BitsAllocated": 16,
        "BitsStored": detector.bits,
        "HighBit": detector.bits - 1,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "US",
        "WindowCenter": 2 ** (detector.bits - 1),
        "WindowWidth": 2**detector.bits,
        "ImagerPixelSpacing": [detector.pitch_mm, detector.pitch_mm],
        "PixelData": pixels.astype("<u2").tobytes(),
    }
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _write(dataset: Dataset, instance: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
