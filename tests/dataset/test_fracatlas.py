"""The real archive: its traps are real, and each is met."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest

from components.dataset.curate import curate
from components.dataset.fracatlas import pseudonym
from components.dataset.inspect import inspect
from components.dataset.match import match
from components.dataset.split import split
from components.params import Curate, Match, Shares, Split

# Truncated; table against folder; turned by EXIF, with boxes annotated on the turned image.
TRUNCATED = [f"IMG000{n}.jpg" for n in ("4028", "4036", "4073")]
CONTRADICTED, TURNED = "IMG0003298.jpg", "IMG0002628.jpg"


@pytest.fixture(scope="module")
def some(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 files of FracAtlas in its own layout: the traps, and every 45th of the others."""
    source, folder = real_data / "fracatlas", tmp_path_factory.mktemp("fracatlas")
    with (source / "dataset.csv").open(newline="") as text:
        table = csv.DictReader(text)
        rows, columns = list(table), list(table.fieldnames or ())
    traps = [*TRUNCATED, CONTRADICTED, TURNED]
    chosen = [row for row in rows if row["image_id"] in traps]
    chosen += [row for row in rows if row["image_id"] not in traps][::47][: 60 - len(chosen)]
    for row in chosen:
        [path] = (source / "images").glob(f"*/{row['image_id']}")
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    with (folder / "dataset.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(chosen)
    shutil.copytree(source / "Annotations", folder / "Annotations")
    return folder


@pytest.mark.real_data
def test_real_images_come_in_and_the_broken_ones_do_not(some, home):
    batch = home.take_in(some, max_megapixels=100)

    assert (batch.added + batch.duplicates, batch.refused) == (56, {"burned_in_text": 1, "truncated": 3})
    assert (batch.refused_by_label, batch.disagreements) == ({"no_fracture": 4}, 1)


@pytest.mark.real_data
def test_real_labels_are_settled_and_a_contradiction_stays_unknown(some, home):
    home.take_in(some)
    path = home.folder / "cases"
    curate(catalog=home.studies, labels=home.labels, cases=path, params=Curate(min_readers=2))
    label = pd.read_parquet(path).set_index("image_id")["label"]

    assert label.isna().sum() == 1
    assert pd.isna(label[pseudonym(CONTRADICTED, home.pseudonyms)])


@pytest.mark.real_data
def test_a_real_turned_image_stands_upright_with_its_box(some, home):
    home.take_in(some)
    image_id = pseudonym(TURNED, home.pseudonyms)
    row = home.catalog().set_index("image_id").loc[image_id]
    boxes = home.events().set_index("image_id").loc[image_id, "boxes"]

    assert (row["rows"], row["columns"]) == (373, 454)
    assert boxes == '[{"height": 24.23, "width": 36.81, "x": 177.31, "y": 74.85}]'


@pytest.mark.real_data
def test_real_images_find_their_roles(some, home):
    home.take_in(some)
    paths = {name: home.folder / name for name in ("cases", "matches", "merges", "withdrawals", "splits")}
    paths["merges"].write_text("after_images,patient_id,same_as\n")
    paths["withdrawals"].write_text("patient_id\n")
    inspect(catalog=home.entries(), studies=home.studies, features=home.folder / "features")
    match(features=home.folder / "features", matches=paths["matches"], params=Match(bits=12, likeness=0.97))
    curate(catalog=home.studies, labels=home.labels, cases=paths["cases"], params=Curate(min_readers=2))
    shares = Shares(train=55, tune=12, calibrate=13, test=20)
    split(**paths, params=Split(salt="osteoflow", shares=shares))
    table = pd.read_parquet(paths["splits"])

    assert set(table["role"]) <= {"train", "tune", "calibrate", "test", "excluded"}
    assert table[table["role"] != "excluded"].groupby("patient_id")["role"].nunique().max() == 1
