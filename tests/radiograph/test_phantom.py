"""Drawn radiographs: valid, reproducible, broken where the box says, and different from site to site."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from components.radiograph import dicom
from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, KINDS, draw, write_archive
from components.radiograph.phantom.anatomy import Pose, grow, project
from components.radiograph.phantom.detector import expose
from components.radiograph.phantom.fracture import break_bone, outline

TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "PresentationIntentType",
    "ImageType", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelData", "PixelIntensityRelationship", "PixelIntensityRelationshipSign",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "PresentationLUTShape", "LossyImageCompression",
    "BurnedInAnnotation", "ImageLaterality", "ImagerPixelSpacing", "WindowCenter", "WindowWidth", "InstanceNumber",
)  # fmt: skip
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "SeriesNumber", "Manufacturer", "AnatomicRegionSequence", "DetectorType",
    "AcquisitionContextSequence", "PatientOrientation",
)  # fmt: skip


@pytest.mark.parametrize("detector", [DETECTOR_A, DETECTOR_B])
def test_a_phantom_is_a_valid_dx_object(detector, monkeypatch):
    """pydicom reads it strictly, and the attributes the standard asks for are there."""
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    dataset = pydicom.dcmread(io.BytesIO(draw(1, patient=1, detector=detector, fracture=True).dicom))
    elements = [element.value for element in dataset.iterall()]  # values are checked when they are read

    assert len(elements) > 60
    assert [name for name in TYPE_1 if dataset.get(name) in (None, "", [])] == []
    assert [name for name in TYPE_2 if name not in dataset] == []
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


def test_equal_seeds_give_equal_bytes():
    first, again, other = (draw(seed, patient=4, detector=DETECTOR_A, fracture=True) for seed in (1, 1, 2))

    assert first == again
    assert first.dicom != other.dicom
    assert first.sop_instance_uid != other.sop_instance_uid


@pytest.mark.parametrize("kind", KINDS)
def test_the_fracture_is_where_its_outline_is(kind):
    """Where nothing is displaced, a broken bone differs from the whole one inside the outline and nowhere else."""
    pose = Pose(tilt=0.1, shift=(0.0, 0.0), turn=0.0)
    for seed in range(5):
        limb = grow(np.random.default_rng(seed))
        broken = break_bone(np.random.default_rng(seed), kind, len(limb.bones), 20)
        broken = replace(broken, displacement=0.0, angle=0.0)
        whole, split = (
            project(limb, pose, fracture, np.random.default_rng(seed), rows=256, columns=256, pitch=0.4)
            for fracture in (None, broken)
        )
        y, x = np.nonzero(np.abs(whole - split) > 0.05)
        u, v = outline(broken, limb.bones[broken.bone], pose.turn)
        px, py = pose.pixel(u, v, 256, 256, 0.4)

        assert len(y) > 10
        assert py.min() - 6 <= y.min() <= y.max() <= py.max() + 6
        assert px.min() - 6 <= x.min() <= x.max() <= px.max() + 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_can_be_asked_for(kind):
    phantom = draw(3, patient=1, detector=DETECTOR_A, fracture=kind)

    assert (phantom.kind, phantom.label, len(phantom.boxes)) == (kind, "fracture", 1)


def test_boxes_lie_in_the_picture():
    for patient in range(1, 21):
        phantom = draw(9, patient=patient, detector=DETECTOR_B, fracture=True, image=patient % 2)
        box = phantom.boxes[0]

        assert phantom.label == "fracture"
        assert box.x + box.width <= DETECTOR_B.columns
        assert box.y + box.height <= DETECTOR_B.rows


def test_a_whole_bone_has_no_box():
    phantom = draw(9, patient=1, detector=DETECTOR_A, fracture=False)

    assert (phantom.label, phantom.boxes, phantom.kind) == ("no_fracture", (), None)


def test_two_views_show_one_person(pseudonyms):
    front, side = (
        dicom.read(draw(2, patient=6, detector=DETECTOR_A, fracture=True, image=n).dicom, pseudonyms).meta
        for n in (0, 1)
    )

    assert (front.patient_id, front.study_id, front.age_years) == (side.patient_id, side.study_id, side.age_years)
    assert (front.view, side.view) == ("frontal", "lateral")
    assert front.image_id != side.image_id


def test_the_beam_obeys_beer_and_lambert():
    """Twice the attenuation takes the logarithm of the signal down twice as far; more matter is brighter."""
    plain = replace(
        DETECTOR_A, photons=1e9, scatter=0.0, blur_px=0.3, gamma=1.0, bits=16, open_field=1.0, shutter=False
    )
    steps = np.repeat(np.array([0.0, 0.5, 1.0, 2.0], np.float32), 32)[:, None] * np.ones((1, 128), np.float32)
    pixels = expose(steps, plain, np.random.default_rng(4)).pixels.astype(float)
    level = [np.median(pixels[n * 32 + 12 : n * 32 + 20, 60:68]) for n in range(4)]

    assert (level[2] - level[0]) / (level[1] - level[0]) == pytest.approx(2, abs=0.25)
    assert level == sorted(level)


def test_fewer_photons_are_noisier():
    even = np.full((128, 128), 1.0, np.float32)

    def noise(photons: float) -> float:
        shot = expose(even, replace(DETECTOR_A, photons=photons, open_field=1.0), np.random.default_rng(1)).pixels
        return float(np.diff(shot[40:80, 40:80].astype(float)).std())

    assert noise(500) > 2 * noise(5000)


def test_an_archive_is_written_with_its_truth(tmp_path):
    archive = write_archive(tmp_path / "a", patients=10, prevalence=0.4, detector=DETECTOR_A, seed=1)
    with (tmp_path / "a" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    assert len(archive.files) == len(rows) == 20
    assert sum(row["label"] == "fracture" for row in rows) == 8
    assert {row["sop_instance_uid"]: row["label"] for row in rows} == {
        dicom.sop_instance_uid(path.read_bytes()): phantom.label
        for path, phantom in zip(archive.files, archive.phantoms, strict=True)
    }
    assert all(bool(json.loads(row["boxes"])) == (row["label"] == "fracture") for row in rows)


def test_an_archive_without_labels_has_none(tmp_path):
    write_archive(tmp_path, patients=2, images_per_patient=1, detector=DETECTOR_B, seed=1, labels=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["phantom-B-0001-0.dcm", "phantom-B-0002-0.dcm"]
