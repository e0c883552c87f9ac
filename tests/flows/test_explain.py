"""Explanations on request: a panel and a line of JSON an image, from files and from the archive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from components.dataset.store import write_catalog, write_images
from components.errors import DataError
from components.model import network, runtime
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.phantom import DETECTOR_A, draw
from components.serving.bundle import Bundle
from components.settings import Settings
from flows.explain import explain_images

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT = draw(40, patient=40, detector=DETECTOR_A, fracture=True).dicom


@pytest.fixture(scope="module")
def settings(tiny_bundle, tmp_path_factory) -> Settings:
    """A workspace with a built model and one image in its archive."""
    root = tmp_path_factory.mktemp("workspace")
    shutil.copy(REPOSITORY / "params.yaml", root)
    shutil.copytree(tiny_bundle, root / "models/bundle")
    shutil.copytree(tiny_bundle.parent / "trained", root / "models/trained")
    image = read(KEPT, Pseudonyms(b"k" * 32))
    write_images(root / "data/studies", [image], batch="a", shard_bytes=10**7)
    write_catalog(root / "data/studies", root / "data/catalog")
    return Settings(workspace=root, key_dir=root / "keys")


def archived() -> str:
    return read(KEPT, Pseudonyms(b"k" * 32)).meta.image_id


def test_files_and_archive_images_get_a_panel_each(settings, tmp_path):
    """Four pictures in a row; the numbers are the bundle's own."""
    pixels = read(KEPT, Pseudonyms(bytes(32))).pixels
    (tmp_path / "a.dcm").write_bytes(KEPT)
    cv2.imwrite(str(tmp_path / "b.png"), pixels)
    found = explain_images(settings, [str(tmp_path / "a.dcm"), str(tmp_path / "b.png"), archived()], tmp_path / "out")
    served = Bundle.open(settings.workspace / "models/bundle").predict(pixels)
    panels = [cv2.imread(str(tmp_path / "out" / result.panel)) for result in found]
    width = 4 * round(480 * pixels.shape[1] / pixels.shape[0])

    assert [result.probability for result in found] == [served.probability] * 3
    assert len({result.image_id for result in found}) == 3
    assert {panel.shape for panel in panels} == {(508, width, 3)}


def test_the_line_of_json_says_what_was_answered(settings, tmp_path):
    """One line, with the peak where the heat map is highest."""
    (found,) = explain_images(settings, [archived()], tmp_path)
    (line,) = (tmp_path / f"{archived()}.json").read_text().splitlines()
    heat = Bundle.open(settings.workspace / "models/bundle").predict(read(KEPT, Pseudonyms(bytes(32))).pixels).heat_map
    x, y = found.peak

    assert json.loads(line)["peak"] == [x, y]
    assert heat[int(y), int(x)] == heat.max()


def test_what_is_no_image_is_refused_without_its_name(settings, tmp_path):
    """The rest is explained all the same."""
    (tmp_path / "DOE_JANE.dcm").write_text("Dear colleague")
    results = explain_images(settings, [str(tmp_path / "DOE_JANE.dcm"), "DOE_JOHN", archived()], tmp_path / "out")

    assert [result.refused for result in results] == [
        "not a DICOM object",
        "neither a file here nor an image id of the archive",
        None,
    ]
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".png"]


def test_a_model_that_is_not_the_bundles_is_refused(settings, tmp_path):
    """Else the panel would explain one model with another's maps."""
    shutil.copytree(settings.workspace, tmp_path / "other")
    runtime.start(2)
    network.save(network.build("residual", 64, None, 0.0), tmp_path / "other/models/trained/model.keras")
    other = settings.model_copy(update={"workspace": tmp_path / "other"})

    with pytest.raises(DataError, match="of two trainings; run `dvc checkout`"):
        explain_images(other, [archived()], tmp_path / "out")


def test_side_by_side_keeps_the_order():
    """Grey and colour mix; the words stand above."""
    from components.serving.overlay import side_by_side

    row = side_by_side([("dark", np.zeros((480, 240), np.uint8)), ("light", np.full((480, 240, 3), 200, np.uint8))])

    assert row.shape == (508, 480, 3)
    assert (row[40:, :240].max(), row[40:, 240:].min()) == (0, 200)
