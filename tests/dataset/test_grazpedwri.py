"""GRAZPEDWRI-DX in its own layout: real patients, flags, 16-bit pictures and YOLO boxes."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from components.dataset.sources import open_source
from components.errors import DataError, UnknownLabel

HEADER = (
    "filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,ao_classification,cast,"
    "diagnosis_uncertain,osteopenia,fracture_visible,metal,pixel_spacing,device_manufacturer"
)
CLASSES = (
    "names: [boneanomaly, bonelesion, foreignbody, fracture, metal, periostealreaction, pronatorsign, softtissue, text]"
    "\nnc: 9\n"
)
# filestem, patient, study, sex, age, side, projection, AO, uncertain, visible, metal
ROWS = (
    ("0001_1297860395_01_WRI-L1_M014", 1, 1, "M", "14.5", "L", 1, "23r-M/2.1", "", "1.0", ""),
    ("0001_1297860435_01_WRI-L2_M014", 1, 1, "M", "14.5", "L", 2, "", "", "", ""),
    ("0001_1298000000_02_WRI-L1_M014", 1, 2, "M", "14.6", "L", 1, "", "1.0", "", ""),
    ("0002_0354485735_01_WRI-R3_F006", 2, 1, "F", "6.1", "R", 3, "", "", "", "1.0"),
)


def png(seed: int, *, rows: int = 100, columns: int = 80, bits: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16 if bits == 16 else np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Write the archive as its zips unpack; rows: of dataset.csv; boxes: lines of YOLO by filestem."""

    def write(rows=ROWS, boxes=None):
        folder = tmp_path / "source"
        lines = []
        for number, (stem, patient, study, sex, age, side, view, ao, unsure, seen, metal) in enumerate(rows):
            part = folder / f"images_part{number % 4 + 1}"
            part.mkdir(parents=True, exist_ok=True)
            (part / f"{stem}.png").write_bytes(png(number))
            known = f"{stem},{patient},{study},{stem.split('_')[1]},{sex},{age},{side},{view},1.0"
            lines.append(f"{known},{ao},,{unsure},,{seen},{metal},0.144,SIEMENS\n")
        (folder / "dataset.csv").write_text(f"{HEADER}\n{''.join(lines)}")
        labels = folder / "folder_structure" / "yolov5" / "labels"
        labels.mkdir(parents=True)
        (labels.parent / "meta.yaml").write_text(CLASSES)
        for stem, text in (boxes or {}).items():
            (labels / f"{stem}.txt").write_text(text)
        return folder

    return write


def test_patients_studies_and_metadata_are_the_archive_s(home, archive):
    home.take_in(archive())
    table = home.catalog().sort_values(["age_years", "view"], ascending=[False, True]).reset_index(drop=True)

    assert list(table["view"]) == ["frontal", "frontal", "lateral", "oblique"]
    assert list(table["laterality"]) == ["L", "L", "L", "R"]
    assert list(table["sex"]) == ["M", "M", "M", "F"]
    assert list(table["age_years"]) == [14, 14, 14, 6]
    assert list(table["hardware"]) == [False, False, False, True]
    assert (table["patient_id"].nunique(), table["study_id"].nunique()) == (2, 3)
    assert set(table["grouping"]) == {"patient"}
    assert set(table["bits_stored"]) == {16}
    assert (set(table["body_region"]), set(table["pixel_spacing_mm"])) == ({"wrist"}, {0.144})


def test_pictures_of_one_name_in_two_folders_are_one_and_the_other_is_counted(home, archive):
    """Unpacked twice, or unpacked beside its zips."""
    folder = archive()
    copy = folder / "again" / f"{ROWS[0][0]}.png"
    copy.parent.mkdir()
    copy.write_bytes(png(9))

    batch = home.take_in(folder)

    assert (batch.added, batch.passed_over) == (4, {"second of one name": 1})


def test_a_visible_fracture_is_one_and_an_uncertain_diagnosis_is_unknown(home, archive):
    assert home.take_in(archive()).labels == {"fracture": 1, "no_fracture": 2, "unknown": 1}


def test_a_classified_fracture_that_is_not_visible_is_no_negative(home, archive):
    row = list(ROWS[1])
    row[7] = "23r-M/2.1"

    assert home.take_in(archive([row])).labels == {"unknown": 1}


def test_sixteen_bits_arrive_unchanged(home, archive):
    source = open_source(archive(), home.pseudonyms, weak_block=10)
    item = source.items[0]
    image = item.read(item.file.data(), home.pseudonyms, max_megapixels=1)

    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, np.array(Image.open(io.BytesIO(png(0)))))


def test_fracture_boxes_become_pixels(home, archive):
    """Class 3 of a 100 x 80 image; text and metal are no fracture, and metal is hardware."""
    stem = ROWS[0][0]
    text = "8 0.1 0.1 0.1 0.1\n3 0.5 0.25 0.5 0.1\n4 0.9 0.9 0.1 0.1\n"
    source = open_source(archive(boxes={stem: text}), home.pseudonyms, weak_block=10)
    said = [statement for statement in source.statements.values() if statement.label == "fracture"]
    meta = source.items[0].read(source.items[0].file.data(), home.pseudonyms, max_megapixels=1).meta

    assert [box.model_dump() for box in said[0].boxes] == [{"x": 20.0, "y": 20.0, "width": 40.0, "height": 10.0}]
    assert meta.hardware is True


def test_table_and_boxes_that_contradict_each_other_are_unknown_and_counted(home, archive):
    batch = home.take_in(archive([ROWS[1]], boxes={ROWS[1][0]: "3 0.5 0.5 0.2 0.2\n"}))

    assert (batch.labels, batch.disagreements) == ({"unknown": 1}, 1)


def test_an_image_without_a_row_has_no_patient(home, archive):
    source = archive(ROWS[:1])
    (source / "images_part1" / "0009_0000000001_01_WRI-L1_M009.png").write_bytes(png(9))

    batch = home.take_in(source)

    assert (batch.added, batch.refused) == (1, {"missing_patient_id": 1})


def test_a_zip_of_the_archive_is_the_archive(home, archive, tmp_path):
    source = archive()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for path in sorted(source.rglob("*")):
            packed.write(path, f"GRAZPEDWRI-DX/{path.relative_to(source)}")

    assert home.take_in(tmp_path / "a.zip").labels == {"fracture": 1, "no_fracture": 2, "unknown": 1}


def test_the_zips_of_the_archive_may_lie_as_they_came(home, archive, tmp_path):
    """images_part1.zip to images_part4.zip beside dataset.csv, as they are downloaded."""
    source = archive()
    for part in sorted(source.glob("images_part*")):
        with zipfile.ZipFile(part.with_suffix(".zip"), "w") as packed:
            for path in part.iterdir():
                packed.write(path, path.name)
                path.unlink()
        part.rmdir()

    assert home.take_in(source).added == 4


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("9 0.5 0.5 0.1 0.1", UnknownLabel, "class from 0 to 8"),
        ("3 0.5 0.5 0.1", UnknownLabel, "four numbers"),
        ("3 nan 0.5 0.1 0.1", UnknownLabel, "four numbers"),
    ],
)
def test_broken_boxes_stop_the_intake(home, archive, line, error, said):
    with pytest.raises(error, match=said):
        home.take_in(archive(boxes={ROWS[0][0]: f"{line}\n"}))
    assert home.files() == []


def test_a_flag_outside_the_vocabulary_is_named_with_its_row(home, archive):
    row = list(ROWS[0])
    row[9] = "maybe"

    with pytest.raises(UnknownLabel, match="row 2: fracture_visible is neither 1, 0 nor empty"):
        home.take_in(archive([row]))


def test_a_second_row_about_one_image_is_named(home, archive):
    with pytest.raises(DataError, match="row 3: a second row about one image"):
        home.take_in(archive([ROWS[0], ROWS[0]]))


def test_a_table_without_patients_is_refused(home, archive):
    source = archive()
    table = source / "dataset.csv"
    table.write_text(table.read_text().replace("patient_id", "patient"))

    with pytest.raises(DataError, match=r"dataset.csv: column\(s\) patient_id missing"):
        home.take_in(source)
