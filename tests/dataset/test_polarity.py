"""A photometric tag is checked against the pixels: a picture that is a negative of itself does not reach a model."""

from __future__ import annotations

import io
import json

import numpy as np
import pydicom
import pytest

from components.dataset.inspect import inspect
from components.dataset.prepare import prepare
from components.dataset.rows import write_rows
from components.dataset.validate import validate
from components.errors import ExpectationsFailed
from components.params import DatasetExpectations, Prepare, Validate
from components.radiograph.phantom import DETECTOR_A, draw
from tests.dataset import tables

PARAMS = Validate(
    images=tables.PARAMS.images.model_copy(update={"max_saturation": 0.9, "min_grey_levels": 8, "min_sharpness": 0.0}),
    dataset=DatasetExpectations(
        min_positives=1,
        min_negatives=1,
        prevalence=(0.0, 1.0),
        max_quarantined=1.0,
        max_prevalence_effect=3.2,
        min_stratum=30,
        max_missing=1.0,
        max_ai_visible=1.0,
        max_shortcut_auc=1.0,
    ),
)


def limb(seed: int) -> np.ndarray:
    """Bone brighter than flesh brighter than dark, even air: 12 bits, as MONOCHROME2 means it."""
    across = np.abs(np.arange(400) - 200)[None, :] + np.zeros((512, 1))
    picture = np.where(across < 120, 1400.0, 100.0) + (across < 32) * 1200
    picture += np.random.default_rng(seed).normal(0, 60, picture.shape) * (across < 120)
    return np.clip(picture, 0, 4095).astype(np.uint16)


def file(number: int, photometric: str) -> bytes:
    """A DICOM file of that limb; as MONOCHROME1 its tag contradicts its pixels."""
    dataset = pydicom.dcmread(io.BytesIO(draw(7, patient=number, detector=DETECTOR_A, fracture=False).dicom))
    dataset.Rows, dataset.Columns = 512, 400
    dataset.PhotometricInterpretation = photometric
    dataset.PresentationLUTShape = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}[photometric]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = limb(number).tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_a_wrong_tag_ends_in_quarantine_with_its_reason(home, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number, photometric in enumerate(("MONOCHROME2", "MONOCHROME1")):
        (source / f"{number}.dcm").write_bytes(file(number, photometric))
    home.take_in(source)
    table = home.catalog().set_index("photometric", drop=False)
    inspect(catalog=home.entries(), studies=home.studies, features=home.folder / "features")
    prepare(catalog=home.entries(), studies=home.studies, prepared=home.folder / "prepared", params=Prepare(size=64))
    table = table.assign(
        label=0.0, role="train", group_id=table["patient_id"], near_duplicate_of=None, likeness=np.nan, withdrawn=False,
        picture_id=table["image_id"], label_provenance="archive", ai_visible=False,
    )  # fmt: skip
    write_rows(home.folder / "splits", table)
    (home.folder / "limits.yaml").write_text("sites: {}\n")
    with pytest.raises(ExpectationsFailed):  # two images are no data set
        validate(
            splits=home.folder / "splits",
            features=home.folder / "features",
            prepared=home.folder / "prepared",
            batches=home.folder / "batches",
            limits=home.folder / "limits.yaml",
            accepted=home.folder / "accepted",
            validation=home.folder / "validation",
            params=PARAMS,
        )
    said = json.loads((home.folder / "validation" / "results.json").read_text())

    assert said["quarantined"]["by_reason"] == {"polarity_ok": 1}
    assert table.loc["MONOCHROME1", "image_id"] in json.dumps(said)
