"""A radiograph's pixels as a DICOM object of either polarity: to show that polarity changes nothing that is read."""

from __future__ import annotations

import io

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian


def twin(pixels: np.ndarray, bits_stored: int, *, inverted: bool) -> bytes:
    """A Computed Radiography file of nobody.

    Args:
        pixels: (rows, columns) uint8 or uint16, MONOCHROME2.
        bits_stored: depth of their full range.
        inverted: MONOCHROME1, every value mirrored in the range: the same picture, told the other way round.

    Source: DICOM PS3.3 C.7.6.3.1.2.
    """
    top, allocated = 2**bits_stored - 1, 8 * pixels.dtype.itemsize
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, "2.25.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.2", "2.25.3"
    dataset.PatientID, dataset.Modality = "TWIN", "CR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits_stored, bits_stored - 1
    values = top - pixels if inverted else pixels
    dataset.PixelData = values.astype(f"<u{pixels.dtype.itemsize}").tobytes() + b"\0" * (values.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
