"""What goes to the PACS: re-read from disk, as a viewer would."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread

from components.errors import UnreadableImage
from components.radiograph import dicom
from components.radiograph.deidentify import Pseudonyms
from components.serving.bundle import Bundle, PredictionSet
from components.serving.results import write_results

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def results(data, said, *arguments, **more):
    """`write_results` of the picture as it is read."""
    return write_results(data, dicom.read(data, Pseudonyms(bytes(32))), said, *arguments, **more)


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture
def written(bundle, xray, tmp_path):
    """(source bytes, prediction, [report, overlay])."""
    data = xray()
    said = bundle.predict(dicom.read(data, Pseudonyms(bytes(32))).pixels)
    return data, said, results(data, said, bundle.manifest, tmp_path / "out", time=NOON)


def text_of(item) -> list[str]:
    """Every value in a content tree."""
    own = [str(item.get("TextValue", ""))]
    own += [
        str(code.CodeValue)
        for name in ("ConceptCodeSequence", "ConceptNameCodeSequence")
        for code in item.get(name, [])
    ]
    own += [str(value.NumericValue) for value in item.get("MeasuredValueSequence", [])]
    return own + [text for child in item.get("ContentSequence", []) for text in text_of(child)]


def test_the_report_carries_the_numbers(written, bundle):
    """TID 1500 with the probability in percent, the call, and the algorithm by its bundle's hash."""
    _, said, (report, _) = written
    read = srread(report)
    values = text_of(pydicom.dcmread(report))

    assert pydicom.dcmread(report).ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert read.Modality == "SR"
    assert f"bundle_sha256={bundle.hash}" in values
    assert said.call in values
    (group,) = read.content.get_image_measurement_groups()
    (measured,) = group.get_measurements()
    assert measured.unit.value == "%"
    assert float(measured.value) == pytest.approx(100 * said.probability, abs=0.001)


@pytest.mark.parametrize(
    ("labels", "code"),
    [(("fracture",), "only-fracture"), (("no_fracture",), "only-no-fracture"),
     (("fracture", "no_fracture"), "either"), ((), "neither")],
)  # fmt: skip
def test_the_report_says_what_is_not_ruled_out(bundle, xray, tmp_path, labels, code):
    """A code for the prediction set, and the coverage it promises beside the thresholds."""
    said = bundle.predict(dicom.read(xray(), Pseudonyms(bytes(32))).pixels)
    left = PredictionSet(labels=labels, coverage=0.9)
    report = results(xray(), replace(said, prediction_set=left), bundle.manifest, tmp_path)[0]
    (group,) = srread(report).content.get_image_measurement_groups()

    assert [item.value.value for item in group.get_qualitative_evaluations()][-2:] == [said.call, code]
    assert "prediction_set_coverage=0.9 of fractures, and of the others" in text_of(pydicom.dcmread(report))


def test_the_report_says_why_a_person_decides(bundle, xray, tmp_path):
    """A code for the reason; none where the call stands."""
    said = replace(bundle.predict(dicom.read(xray(), Pseudonyms(bytes(32))).pixels), call="review")
    why = results(xray(), said, bundle.manifest, tmp_path / "why", why="other_region")[0]
    none = results(xray(), said, bundle.manifest, tmp_path / "none")[0]
    told = [
        [
            (item.name.value, item.value.value, item.value.meaning)
            for group in srread(report).content.get_image_measurement_groups()
            for item in group.get_qualitative_evaluations()
            if item.name.value == "reason"
        ]
        for report in (why, none)
    ]

    assert told == [[("reason", "other_region", "It shows another body region than its file states")], []]


def test_a_report_without_a_set_is_silent_about_it(bundle, xray, tmp_path):
    said = bundle.predict(dicom.read(xray(), Pseudonyms(bytes(32))).pixels)
    report = results(xray(), replace(said, prediction_set=None), bundle.manifest, tmp_path)[0]

    assert "prediction-set" not in text_of(pydicom.dcmread(report))


def test_results_belong_to_the_source(written):
    """Patient, study and the instance they refer to are the source's own."""
    data, _, paths = written
    source = pydicom.dcmread(io.BytesIO(data))
    for path in paths:
        made = pydicom.dcmread(path)
        for name in (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "StudyInstanceUID",
            "AccessionNumber",
            "StudyDate",
        ):
            assert made.get(name) == source.get(name), name
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
    report, overlay = (pydicom.dcmread(path) for path in paths)
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert evidence.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert overlay.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_a_hidden_heat_map_is_not_sent(bundle, xray, tmp_path):
    """The report goes alone where the map did not pass its checks."""
    hidden = bundle.manifest.heat_map.model_copy(update={"shown": False, "reasons": ("it failed",)})
    said = bundle.predict(dicom.read(xray(), Pseudonyms(bytes(32))).pixels)
    paths = results(xray(), said, bundle.manifest.model_copy(update={"heat_map": hidden}), tmp_path)

    assert [pydicom.dcmread(path).Modality for path in paths] == ["SR"]
    assert list(tmp_path.iterdir()) == paths


def test_the_overlay_is_marked(written):
    """A colour Secondary Capture whose band says what it is; the image below it is as tall as the source."""
    data, _, (_, path) = written
    made, source = pydicom.dcmread(path), pydicom.dcmread(io.BytesIO(data))

    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (made.PhotometricInterpretation, made.BurnedInAnnotation) == ("RGB", "YES")
    assert "not for primary diagnosis" in made.SeriesDescription
    assert "DERIVED" in made.ImageType
    pixels = made.pixel_array
    band = pixels.shape[0] - source.Rows
    assert pixels.shape[1] == source.Columns
    assert band > 10
    assert np.ptp(pixels[:band]) > 100


def test_results_are_made_once(written, bundle, tmp_path):
    """The same image and bundle give the same files, byte for byte, here and elsewhere."""
    data, said, paths = written
    again = results(data, said, bundle.manifest, tmp_path / "out")
    elsewhere = results(data, said, bundle.manifest, tmp_path / "other", time=NOON)

    assert again == paths
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert [p.name for p in elsewhere] == [p.name for p in paths]
    assert [p.read_bytes() for p in elsewhere] == [p.read_bytes() for p in paths]


def test_another_bundle_makes_other_objects(written, bundle, tmp_path):
    data, said, paths = written
    seed = bundle.manifest.model.model_copy(update={"seed": 999})
    other = results(data, said, bundle.manifest.model_copy(update={"model": seed}), tmp_path / "out")

    assert not set(other) & set(paths)


def test_the_source_is_left_alone(written, xray):
    data, _, _ = written

    assert hashlib.sha256(data).digest() == hashlib.sha256(xray()).digest()


def test_a_source_with_gaps_still_gets_results(bundle, xray, tmp_path):
    """Optional attributes that are absent stay empty; a name with one part is kept as it is."""
    source = pydicom.dcmread(io.BytesIO(xray()))
    for name in ("AccessionNumber", "StudyID", "PatientBirthDate", "PatientOrientation", "ReferringPhysicianName"):
        if name in source:
            delattr(source, name)
    source.PatientName = "Phantom"
    buffer = io.BytesIO()
    source.save_as(buffer)
    said = bundle.predict(dicom.read(buffer.getvalue(), Pseudonyms(bytes(32))).pixels)
    paths = results(buffer.getvalue(), said, bundle.manifest, tmp_path)

    assert [str(pydicom.dcmread(path).PatientName) for path in paths] == ["Phantom", "Phantom"]


def test_what_is_no_dicom_gets_none(written, bundle, tmp_path):
    data, said, _ = written
    image = dicom.read(data, Pseudonyms(bytes(32)))
    with pytest.raises(UnreadableImage):
        write_results(b"nothing", image, said, bundle.manifest, tmp_path / "none")

    assert not (tmp_path / "none").exists()


def test_a_name_in_its_own_alphabet_comes_back(bundle, xray, tmp_path):
    """A set that begins with the default one, as Japanese names are sent, is one that a library refuses."""
    source = pydicom.dcmread(io.BytesIO(xray()))
    source.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    source.PatientName = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"
    source.save_as(buffer := io.BytesIO())
    said = bundle.predict(dicom.read(buffer.getvalue(), Pseudonyms(bytes(32))).pixels)

    for path in results(buffer.getvalue(), said, bundle.manifest, tmp_path, time=NOON):
        assert str(pydicom.dcmread(path).PatientName) == "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"
