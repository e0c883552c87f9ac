"""Invented DICOM objects and images, in every shape the room must take or refuse."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import ImageMeta, Radiograph


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(bytes(range(32)))


@pytest.fixture
def dicom_dataset() -> Callable[..., Dataset]:
    """Makes a CR data set of given pixels and attributes; an attribute of None is left out."""

    def make(pixels: np.ndarray | None = None, *, bits: int = 16, **attributes: Any) -> Dataset:
        pixels = np.arange(16, dtype=np.uint16).reshape(4, 4) if pixels is None else pixels
        values: dict[str, Any] = {
            "SOPClassUID": ComputedRadiographyImageStorage,
            "SOPInstanceUID": "1.2.3.4",
            "StudyInstanceUID": "1.2.3",
            "PatientID": "P-1",
            "Modality": "CR",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": pixels.dtype.itemsize * 8,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
            "PixelData": pixels.tobytes(),
            **attributes,
        }
        dataset = Dataset()
        for name, value in values.items():
            if value is not None:
                setattr(dataset, name, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OW"
        return dataset

    return make


@pytest.fixture
def dicom_bytes(dicom_dataset: Callable[..., Dataset]) -> Callable[..., bytes]:
    def make(*args: Any, **attributes: Any) -> bytes:
        return to_bytes(dicom_dataset(*args, **attributes))

    return make


def to_bytes(dataset: Dataset) -> bytes:
    """The data set as an explicit little endian file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", ComputedRadiographyImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3.4")
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def radiograph() -> Callable[..., Radiograph]:
    """Makes a radiograph of given pixels."""

    def make(pixels: np.ndarray, *, bits: int = 8, **meta: Any) -> Radiograph:
        known = ImageMeta(
            image_id="image",
            patient_id="patient",
            study_id="study",
            source="dicom",
            grouping="patient",
            site="site",
            device="device",
            view="frontal",
            body_region="hand",
            photometric="MONOCHROME2",
            bits_stored=bits,
            rows=pixels.shape[0],
            columns=pixels.shape[1],
            **meta,
        )
        return Radiograph(known, pixels)

    return make
