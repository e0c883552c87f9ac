"""Whatever a DICOM data set holds: what is dropped is gone, from the cleaned header and from the archive row."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement

from components.radiograph.deidentify import Pseudonyms, deidentify
from components.radiograph.grayscale import Picture
from components.radiograph.header import describe
from components.radiograph.profile import LISTS_OF_CODES, LUTS, RANGES, REFERENCES, TERMS, WHOLE

KEY = Pseudonyms(bytes(range(32)))
WORDS = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
NUMBERS = {"DS", "IS"}
ATTRIBUTES = [
    (tag, vr) for tag, (vr, _, _, _, _) in sorted(DicomDictionary.items()) if vr in WORDS | NUMBERS and tag >> 16 > 2
]
KEPT = sorted({*TERMS, *RANGES, *WHOLE, "Manufacturer", "ManufacturerModelName", "ImageType", "PatientOrientation",
               "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientAge", "StudyDate",
               "StudyTime", "ContentDate", "AcquisitionTime", "InstitutionName", "StationName"})  # fmt: skip
SEQUENCES = [*LISTS_OF_CODES, *LUTS, *REFERENCES, "RequestAttributesSequence", "ContentSequence"]
word = st.text("GHIJKLMNOPQUVWXYZ", min_size=6, max_size=12)
number = st.integers(1_000_000, 99_999_999).map(str)


def put(dataset: Dataset, tag: object, vr: str, value: str) -> None:
    """Set an attribute as a careless sender would: whatever the value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset[tag] = DataElement(tag, vr, value)  # type: ignore[index]
        except Exception:  # noqa: BLE001
            dataset.pop(tag, None)  # pydicom itself cannot hold this one


@st.composite
def planted(draw: st.DrawFn, depth: int = 0) -> tuple[Dataset, list[str]]:
    """A data set of random attributes, kept and unknown, with random values, and those values."""
    dataset, values = Dataset(), []
    for tag, vr in draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=8, unique=True)):
        value = draw(number if vr in NUMBERS else word)
        put(dataset, tag, vr, value)
        values.append(value)
    for name in draw(st.lists(st.sampled_from(KEPT), max_size=8, unique=True)):
        value = draw(word | number)
        tag = next(tag for tag, entry in DicomDictionary.items() if entry[4] == name)
        vr = DicomDictionary[tag][0]
        if vr in WORDS | NUMBERS:
            put(dataset, tag, vr, value)
            values.append(value)
    if depth < 3:
        for name in draw(st.lists(st.sampled_from(SEQUENCES), max_size=2, unique=True)):
            inner, more = draw(planted(depth=depth + 1))
            setattr(dataset, name, [inner])
            values += more
    if draw(st.booleans()):
        value = draw(word)
        block = dataset.private_block(0x0029, "MAKER", create=True)
        block.add_new(0x10, "LO", value)
        values.append(value)
    return dataset, values


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(planted())
def test_no_value_survives(made):
    """A word, a date, a UID or a number of seven digits put anywhere is in neither; pseudonyms are not it."""
    dataset, values = made
    dataset.SOPInstanceUID, dataset.PhotometricInterpretation = "1.2.3", "MONOCHROME2"
    row = describe(dataset, Picture(np.zeros((4, 4), np.uint8), 8, None), KEY).model_dump_json()
    header = json.dumps(deidentify(dataset, KEY).to_json_dict())
    # What is made of a UID or a name is digits too, and no part of it.
    said = re.sub(r"2\.25\.\d+|\b[0-9a-f]{20}\b|-[0-9a-f]{6}\b", "", header + row).upper()

    assert [value for value in values if value.upper() in said] == []
