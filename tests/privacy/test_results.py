"""What goes back to the PACS holds what it is filed by and what it refers to, and nothing else of the source.

Every attribute of the source, and its picture, holds an identifier; those that a result may carry are listed here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement

from components.radiograph import burned_in, dicom
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph
from components.serving.bundle import Bundle
from components.serving.results import write_results
from tests.privacy import planted

# PS3.3 C.7.1.1 and C.7.2.1: types 1 and 2; the issuer, without whom a patient's number says little; what was judged.
FILED_BY = {
    "PatientName, family", "PatientName, given", planted.JAPANESE, planted.GREEK, "PatientID", "IssuerOfPatientID",
    "StudyInstanceUID", "StudyID", "AccessionNumber", "ReferringPhysicianName, family", "ReferringPhysicianName, given",
}  # fmt: skip
REPORT = FILED_BY | {"SOPInstanceUID", "SeriesInstanceUID"}
OVERLAY = FILED_BY | {"SOPInstanceUID"}
# What both get their values from the source for, or are empty in; all else is of this software.
TAKEN = {
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "SpecificCharacterSet",
}  # fmt: skip
MADE = {
    "SOPClassUID", "SOPInstanceUID", "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime",
    "ContentDate", "ContentTime", "Modality", "Manufacturer", "ManufacturerModelName", "SeriesDescription",
    "SoftwareVersions", "ContributingEquipmentSequence", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber",
}  # fmt: skip
OF_REPORT = {
    "ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence", "ValueType",
    "ConceptNameCodeSequence", "ContinuityOfContent", "CurrentRequestedProcedureEvidenceSequence", "CompletionFlag",
    "VerificationFlag", "PreliminaryFlag", "ContentTemplateSequence", "ContentSequence",
}  # fmt: skip
OF_OVERLAY = {
    "ImageType", "ConversionType", "DerivationDescription", "SourceImageSequence", "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture", "PatientOrientation", "ImageComments", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "BurnedInAnnotation", "PixelData",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory) -> tuple[dict[str, str], list[Path]]:
    """(the place of each planted token, [report, overlay])."""
    plants = planted.Plants()
    data = planted.dicom(plants, 11)
    image = seen(data)
    places = {token: kind for kind, token in plants.kinds.items()}
    return places, write_results(
        data, image, bundle.predict(image.pixels), bundle.manifest, tmp_path_factory.mktemp("r")
    )


def seen(data: bytes) -> Radiograph:
    """The picture, as it is judged."""
    return burned_in.clean(dicom.read(data, Pseudonyms(bytes(32))), "mask")


def elements(dataset: Dataset) -> Iterator[DataElement]:
    """Every element, those of items too."""
    for element in dataset:
        yield element
        for item in element.value if element.VR == "SQ" else ():
            yield from elements(item)


@pytest.mark.parametrize(("number", "allowed"), [(0, REPORT), (1, OVERLAY)], ids=["report", "overlay"])
def test_a_result_holds_the_identifiers_it_is_filed_by_alone(written, number, allowed):
    places, paths = written

    assert {places.get(token, token) for token in planted.found(paths[number].read_bytes())} == allowed


@pytest.mark.parametrize(("number", "own"), [(0, OF_REPORT), (1, OF_OVERLAY)], ids=["report", "overlay"])
def test_a_result_has_no_other_attributes(written, number, own):
    """Those that come with the source's modules, and private ones, are not among them."""
    made = dcmread(written[1][number])

    assert {element.keyword or str(element.tag) for element in made} == TAKEN | MADE | own
    assert [element.tag for element in elements(made) if element.tag.is_private] == []


def test_the_overlay_shows_no_text_that_was_burnt_in(bundle, tmp_path):
    """What was masked before the model saw it is masked for whoever sees the result; its own band lies above."""
    plain = dcmread(io.BytesIO(planted.draw(3, patient=3, detector=planted.DETECTOR_A, fracture=True).dicom))
    pixels = np.ascontiguousarray(plain.pixel_array).astype(np.float32)
    top = float(pixels.max())
    letters = planted.lettered(np.zeros(pixels.shape, np.uint8), "MUELLER 1956")
    plain.PixelData = np.where(letters > 127, top, pixels).astype(plain.pixel_array.dtype).tobytes()
    plain.save_as(buffer := io.BytesIO())
    data = buffer.getvalue()
    whole, masked = dicom.read(data, Pseudonyms(bytes(32))), seen(data)
    said = bundle.predict(masked.pixels)
    words = [
        shown(write_results(data, image, said, bundle.manifest, tmp_path / name)[1], plain.Rows)
        for name, image in (("whole", whole), ("masked", masked))
    ]

    assert any("1956" in word for word in words[0])
    assert words[1] == []


def shown(path: Path, rows: int) -> list[str]:
    """The words in an overlay's picture that are no marker's."""
    grey = dcmread(path).pixel_array[-rows:].min(axis=2)
    return [line.words for line in burned_in.read(grey, []) if not burned_in.is_marker(line.words)]
