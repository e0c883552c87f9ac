"""What goes back to the PACS: a structured report and a marked overlay, beside the original, which stays untouched.

The report comes first and carries the numbers (DICOM SR, TID 1500); the overlay is a Secondary Capture with "not for
primary diagnosis" burnt in, and a bundle that hides its heat map has none. Both belong to the source's patient and
study: they carry what a PACS files by, so they are written only where the caller says. Nothing else is taken from the
source's header: what is optional there (other names, history, occupation, physicians, institution, device, private
attributes) is in the source already, and its picture comes without the text that was burnt in. Their UIDs follow from
the source instance and the bundle: judging the same image with the same bundle again makes the same objects, not more.

Source: IHE AI Results (AIR); DICOM PS3.3 C.7.1.1, C.7.2.1 (types 1 and 2); PS3.16 TID 1500, 1501, 300, 4019; PS3.5 B.2
(UUID-derived UIDs).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from components.dataset.store import atomic_path
from components.errors import UnreadableImage
from components.radiograph.image import Radiograph
from components.radiograph.labels import FRACTURE, NO_FRACTURE
from components.serving import overlay
from components.serving.bundle import Manifest, Prediction
from components.serving.caution import WHY, Reason

MANUFACTURER = "Osteoflow"
MODEL_NAME = "osteoflow-fracture"
SCHEME = "99OSTEOFLOW"
MARK = "AI OVERLAY - NOT FOR PRIMARY DIAGNOSIS"
# Renamed with every change of its content, which makes it another instance.
REPORT, OVERLAY = "report of the few attributes", "overlay of the masked picture"
REPORT_SERIES, OVERLAY_SERIES = 9801, 9802
SETS: dict[tuple[str, ...], tuple[str, str]] = {
    (FRACTURE,): ("only-fracture", "Fits fractures only"),
    (NO_FRACTURE,): ("only-no-fracture", "Fits images without a fracture only"),
    (FRACTURE, NO_FRACTURE): ("either", "Cannot rule out either"),
    (): ("neither", "Fits neither"),
}
CALLS = {"fracture": "Fracture likely", "review": "Not certain", "no_fracture": "No fracture seen"}
# What must exist in every result, if empty (type 2); what it is filed by beside that; what it refers to; how it lies.
REQUIRED = (
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
)  # fmt: skip
IDENTITY = ("StudyInstanceUID", "IssuerOfPatientID", "SpecificCharacterSet", "TimezoneOffsetFromUTC", *REQUIRED)
REFERRED = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
ORIENTATION = re.compile(r"[A-Z]{1,3}")


def write_results(
    source: bytes,
    image: Radiograph,
    prediction: Prediction,
    manifest: Manifest,
    folder: Path,
    *,
    why: Reason | None = None,
    time: datetime | None = None,
) -> list[Path]:
    """Write the report and the overlay for one radiograph into `folder`.

    Args:
        source: the DICOM file that was judged.
        image: its picture as the model saw it, burned-in text masked: it is the one the overlay shows.
        prediction: what the bundle said; its heat map in the image's own pixels.
        manifest: the bundle's.
        folder: made when missing; the files are named by their UIDs and readable by their owner.
        why: the reason for which the call leaves the case to a person; None: it does not.
        time: when the prediction was made; now when absent. Files that stand are left as they are.

    Returns:
        [report, overlay]; the report alone where the bundle hides its heat map.

    Raises:
        UnreadableImage: `source` is not a DICOM file with the identifiers that a result must refer to.
    """
    original = _open(source)
    identity = {name: original.get(name) for name in IDENTITY if name in original}
    # A library that dislikes a name would print it: results are built without, and `_belong` puts the names in.
    original.PatientName = original.ReferringPhysicianName = None
    original.SpecificCharacterSet = "ISO_IR 192"  # nor does it know sets that begin with the default one (Japanese)
    at = _local(time or datetime.now(UTC), original)
    bundle_hash = hashlib.sha256(manifest.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    kinds: tuple[tuple[str, Callable[..., Any]], ...] = ((REPORT, partial(_report, why=why)), (OVERLAY, _overlay))
    for kind, make in kinds if manifest.heat_map.shown else kinds[:1]:
        path = folder / f"{_uid(original, bundle_hash, kind)}.dcm"
        if not path.exists():
            made = make(original, image, prediction, manifest, bundle_hash, at)
            _belong(made, identity, at)
            with atomic_path(path) as part:
                made.save_as(part, enforce_file_format=True)
        paths.append(path)
    return paths


def _open(source: bytes) -> Any:
    """What a result takes from its source, and nothing else: a library would copy whole modules."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        stated = pydicom.dcmread(io.BytesIO(source), stop_before_pixels=True)
    except InvalidDicomError:
        raise UnreadableImage("results: the source is not a DICOM file", reason="not_dicom") from None
    if missing := [name for name in REFERRED if not stated.get(name)]:
        raise UnreadableImage(f"results: the source lacks {', '.join(missing)}", reason="incomplete")
    taken = pydicom.Dataset()
    for name in (*IDENTITY, *REFERRED):
        if name in stated:
            setattr(taken, name, stated.get(name))
        elif name in REQUIRED:
            setattr(taken, name, None)
    sides = stated.get("PatientOrientation") or ()
    if len(sides) == 2 and all(ORIENTATION.fullmatch(str(side)) for side in sides):
        taken.PatientOrientation = sides
    return taken


def _local(time: datetime, original: Any) -> datetime:
    """`time` on the source's clock: all times of one object share one offset, and the study's are already given."""
    offset = str(original.get("TimezoneOffsetFromUTC") or "")
    try:
        return time.astimezone(datetime.strptime(offset, "%z").tzinfo)
    except ValueError:
        return time.astimezone()


def _uid(original: Any, bundle_hash: str, kind: str) -> str:
    """2.25.<128 bits> from the source instance, the bundle and the kind of object."""
    digest = hashlib.sha256(f"{original.SOPInstanceUID}/{bundle_hash}/{kind}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _report(
    original: Any,
    _image: Radiograph,
    said: Prediction,
    manifest: Manifest,
    bundle_hash: str,
    at: datetime,
    *,
    why: Reason | None,
) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    fracture = sr.CodedConcept("125605004", "SCT", "Fracture of bone")
    version = bundle_hash[:16]
    answers: list[tuple[str, str, str, str]] = [
        ("call", "Call at the frozen operating points", said.call, CALLS[said.call])
    ]
    if why:
        answers.append(("reason", "Why a person has to decide", why, WHY[why]))
    parameters = [
        f"bundle_sha256={bundle_hash}",
        f"high_sensitivity_threshold={manifest.thresholds.high_sensitivity.threshold:.6f}",
        f"high_specificity_threshold={manifest.thresholds.high_specificity.threshold:.6f}",
    ]
    if left := said.prediction_set:
        answers.append(("prediction-set", "Labels that are not ruled out", *SETS[left.labels]))
        parameters.append(f"prediction_set_coverage={left.coverage:g} of fractures, and of the others")
    algorithm = sr.AlgorithmIdentification(
        name=MODEL_NAME,
        version=version,
        parameters=parameters,
        family=sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        manufacturer=MANUFACTURER,
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=_uid(original, bundle_hash, "finding"), identifier="fracture"),
        finding_type=fracture,
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(
                name=sr.CodedConcept("111012", "DCM", "Certainty of Finding"),
                value=round(100 * said.probability, 3),
                unit=codes.UCUM.Percent,
            )
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                name=sr.CodedConcept(name, SCHEME, about), value=sr.CodedConcept(value, SCHEME, meaning)
            )
            for name, about, value, meaning in answers
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=original.SOPClassUID, referenced_sop_instance_uid=original.SOPInstanceUID
            )
        ],
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=_uid(original, bundle_hash, "device"), name=MODEL_NAME, manufacturer_name=MANUFACTURER
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept("168537006", "SCT", "Plain radiography"),
        imaging_measurements=[group],
    )
    return sr.ComprehensiveSR(
        evidence=[original],
        content=content[0],
        series_instance_uid=_uid(original, bundle_hash, "report series"),
        series_number=REPORT_SERIES,
        series_description="Osteoflow: fracture probability (research)",
        sop_instance_uid=_uid(original, bundle_hash, REPORT),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=version,
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_date=at.date(),
        content_time=at.time(),
    )


def _overlay(
    original: Any, image: Radiograph, said: Prediction, _manifest: Manifest, bundle_hash: str, at: datetime
) -> Any:
    from highdicom.sc import SCImage
    from pydicom.dataset import Dataset

    grey = overlay.display(image.pixels, image.window)
    made = SCImage(
        pixel_array=_marked(overlay.paint(grey, said.heat_map), said),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below by what the source says
        study_instance_uid=original.StudyInstanceUID,
        series_instance_uid=_uid(original, bundle_hash, "overlay series"),
        series_number=OVERLAY_SERIES,
        series_description="Osteoflow overlay - not for primary diagnosis",
        sop_instance_uid=_uid(original, bundle_hash, OVERLAY),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=bundle_hash[:16],
        content_date=at.date(),
        content_time=at.time(),
    )
    made.PatientOrientation = original.get("PatientOrientation", "")
    made.BurnedInAnnotation = "YES"
    made.ImageComments = MARK
    made.DerivationDescription = f"Heat map of bundle {bundle_hash} over the source image"
    reference = Dataset()
    reference.ReferencedSOPClassUID = original.SOPClassUID
    reference.ReferencedSOPInstanceUID = original.SOPInstanceUID
    made.SourceImageSequence = [reference]
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = f"{at:%Y%m%d}", f"{at:%H%M%S}"
    return made


def _marked(picture: np.ndarray, said: Prediction) -> np.ndarray:
    """Add a band on top, outside the image, that says what this is: it covers no anatomy."""
    columns = picture.shape[1]
    lines = (MARK, f"{CALLS[said.call]} - probability {100 * said.probability:.0f}% - research use")
    scale, thickness = 1.0, max(1, columns // 700)
    widest = max(cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1.0, thickness)[0][0] for line in lines)
    scale = min(1.2, 0.94 * columns / widest)
    step = max(12, round(38 * scale))
    band = np.zeros((step * len(lines) + step // 2, columns, 3), dtype=np.uint8)
    for number, line in enumerate(lines, start=1):
        place = (round(0.02 * columns), step * number - step // 6)
        cv2.putText(band, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 200, 90), thickness, cv2.LINE_AA)
    return np.concatenate([band, picture])


def _belong(made: Any, identity: dict[str, Any], at: datetime) -> None:
    """Give a result its patient and study, and the time it was made instead of the time it was written."""
    for name, value in identity.items():
        setattr(made, name, value)
    made.InstanceCreationDate, made.InstanceCreationTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
    made.SeriesDate, made.SeriesTime = made.InstanceCreationDate, made.InstanceCreationTime
    for tool in made.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in tool:
            tool.ContributionDateTime = f"{at:%Y%m%d%H%M%S}"
