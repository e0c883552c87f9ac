"""A de-identified DICOM file of a radiograph, for whoever may have the picture and must not know whose it is."""

from __future__ import annotations

import io

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from components.radiograph import burned_in, dicom
from components.radiograph.deidentify import Pseudonyms, with_pixels


def release(
    data: bytes, pseudonyms: Pseudonyms, policy: burned_in.Policy, *, max_megapixels: int = 100
) -> tuple[str, bytes]:
    """The SOP instance UID and the bytes of the de-identified object, uncompressed little endian.

    Header and pixels are made anew; nothing of the file around them (preamble, file meta, what follows) is copied.

    Args:
        data: a DICOM file of a radiograph.
        policy: what happens to text in the pixels.

    Raises:
        UnreadableImage, MissingPatient: as `dicom.read` and `burned_in.clean`.
    """
    image = burned_in.clean(dicom.read(data, pseudonyms, max_megapixels=max_megapixels), policy)
    header = dicom.clean_header(data, pseudonyms, max_megapixels=max_megapixels)
    return encoded(with_pixels(header, image.pixels, image.meta.bits_stored))


def encoded(clean: Dataset) -> tuple[str, bytes]:
    """The SOP instance UID of `clean`, and it as a file."""
    clean.file_meta = FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    buffer = io.BytesIO()
    dcmwrite(buffer, clean, enforce_file_format=True)
    return str(clean.SOPInstanceUID), buffer.getvalue()
