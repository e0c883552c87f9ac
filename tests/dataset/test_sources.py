"""Where radiographs come from, and what may lie in wait there."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from components.dataset.sources import open_source
from components.errors import DataError, UnknownLabel

ORIENTATIONS = [1, 2, 3, 4, 5, 6, 7, 8]


def marked(orientation: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A stored picture that, turned by EXIF, is 60 x 100 and bright in rows 10-29, columns 40-79; and that box."""
    turned = np.zeros((60, 100), np.uint8)
    turned[10:30, 40:80] = 255
    image = Image.fromarray(turned)
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    return np.array(image.transpose(undo[orientation]) if orientation > 1 else image), (40, 10, 40, 20)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_of_the_turned_image_lie_where_the_pixels_lie(home, make, tmp_path, orientation):
    stored, box = marked(orientation)
    shot = make.shot(1, make.jpeg(stored, orientation=orientation), "1", boxes=(box,), size=(100, 60))

    assert bright_share(home, make, tmp_path, shot) > 0.95


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_stored_image_are_turned_with_it(home, make, tmp_path, orientation):
    stored, _ = marked(orientation)
    ys, xs = np.nonzero(stored > 128)
    box = (int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1)
    shot = make.shot(1, make.jpeg(stored, orientation=orientation), "1", boxes=(box,), size=(60, 100))

    assert bright_share(home, make, tmp_path, shot) > 0.95


def bright_share(home, make, tmp_path, shot) -> float:
    """Share of bright pixels inside the box, as archive and label log give both back."""
    source = open_source(make.fracatlas(tmp_path / "source", [shot]), home.pseudonyms, weak_block=10)
    [item] = source.items
    image = item.read(item.file.data(), home.pseudonyms, max_megapixels=1)
    [box] = source.statements[image.meta.image_id].boxes
    x, y, width, height = (round(v) for v in (box.x, box.y, box.width, box.height))
    inside = image.pixels[y : y + height, x : x + width] > 128
    return float(inside.mean()) if inside.shape == (20, 40) else 0.0


def test_boxes_of_another_image_size_are_left_out(home, make, tmp_path):
    shot = make.shot(1, make.jpeg(make.picture(1)), "1", boxes=((1, 2, 3, 4),), size=(900, 1200))
    source = open_source(make.fracatlas(tmp_path / "source", [shot]), home.pseudonyms, weak_block=10)

    [said] = source.statements.values()
    assert (said.label, said.boxes) == ("fracture", ())


@pytest.mark.parametrize(
    ("flags", "region", "view", "hardware"),
    [
        (("hand", "frontal"), "hand", "frontal", False),
        (("leg", "hip", "lateral", "frontal", "hardware"), "mixed", "unknown", True),
        ((), "unknown", "unknown", False),
    ],
)
def test_flags_become_region_view_and_hardware(home, make, tmp_path, flags, region, view, hardware):
    home.take_in(make.fracatlas(tmp_path / "source", [make.shot(1, make.jpeg(make.picture(1)), flags=flags)]))
    row = home.catalog().iloc[0]

    assert (row["body_region"], row["view"], row["hardware"]) == (region, view, hardware)


def test_a_missing_column_is_named(home, make, tmp_path):
    source = make.fracatlas(tmp_path / "source", [])
    (source / "dataset.csv").write_text("image_id,fractured\n")

    with pytest.raises(DataError, match=r"dataset.csv: column\(s\) hardware, hand"):
        home.take_in(source)


def test_files_count_by_content_at_any_depth(home, make, tmp_path):
    make.dicoms(tmp_path / "source" / "deep" / "deeper", [1])

    assert home.take_in(tmp_path / "source").added == 1


def test_links_are_not_followed(home, make, tmp_path):
    make.dicoms(tmp_path / "outside", [1])
    source = make.dicoms(tmp_path / "source", [2])
    (source / "file").symlink_to(tmp_path / "outside" / "1-0")
    (source / "folder").symlink_to(tmp_path / "outside")

    assert home.take_in(source).added == 1


def test_a_zip_is_read_where_it_lies(home, make, tmp_path):
    """A member named ../../evil leads nowhere, because nothing is extracted."""
    folder = make.dicoms(tmp_path / "source", [1, 2], labels={1: "fracture", 2: "no_fracture"})
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "1-0", "../../evil")
        archive.write(folder / "2-0", "/etc/evil")
        archive.write(folder / "labels.csv", "x/labels.csv")
    before = sorted(tmp_path.rglob("*"))

    batch = home.take_in(tmp_path / "a.zip")

    assert (batch.added, batch.labels) == (2, {"fracture": 1, "no_fracture": 1})
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and home.folder not in path.parents] == [
        home.folder
    ]


def test_a_member_that_unpacks_beyond_bounds_is_refused_unread(home, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(5_000_000))

    assert home.take_in(tmp_path / "bomb.zip", max_megapixels=1).refused == {"too_large": 1}


def test_a_damaged_zip_is_one_error(home, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"x" * 1000)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[40:60] = bytes(20)  # contents that no longer match their checksum
    (tmp_path / "a.zip").write_bytes(bytes(data))

    assert home.take_in(tmp_path / "a.zip").refused == {"unreadable": 1}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("uid,label\n1.2,fracture\n", DataError, r"column\(s\) sop_instance_uid missing"),
        ("sop_instance_uid,label\n1.2,Fracture\n", UnknownLabel, "row 2: the label is not one of"),
        ('sop_instance_uid,label,boxes\n1.2,fracture,"[{""x"": 1}]"\n', DataError, "row 2: boxes are no JSON list"),
        ("sop_instance_uid,label\n1.2,fracture\n1.2,unknown\n", DataError, "row 3: a second, different row"),
    ],
)
def test_a_label_table_is_checked_whole_before_anything_is_read(home, make, tmp_path, text, error, said):
    source = make.dicoms(tmp_path / "source", [1])
    (source / "labels.csv").write_text(text)

    with pytest.raises(error, match=said):
        home.take_in(source)
    assert home.files() == []
