"""The planted-identifier scan: a hundred kinds of identifiers go in by every door, and nothing that is written has one.

Quarantined files are the exception by design: they wait for a person, as they came, under the state folder.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.radiograph import burned_in, pixels
from components.radiograph.glyphs import rows
from tests.privacy import planted
from tests.privacy.hospital import INTAKES, Hospital, publish, start

pytestmark = pytest.mark.timeout(600)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Hospital:
    """Every source taken in, one of its images judged on the command line and one by the service."""
    folder = tmp_path_factory.mktemp("hospital")
    workspace, home, sources = folder / "clone", folder / "home", folder / "sources"
    for path in (workspace, home, sources):
        path.mkdir()
    plants = planted.Plants()
    inside = sources / plants.word("source folder") / plants.word("folder")
    inside.mkdir(parents=True)
    file = planted.dicom(plants, 1)
    (inside / f"{plants.word('file name')}.dcm").write_bytes(file)
    for number, data in enumerate(planted.broken(file, plants)):
        (inside / f"{number}.dcm").write_bytes(data)
    table = f"sop_instance_uid,label,boxes,{plants.word('column of labels.csv')}\n"
    uid = f"1.2.{plants.kinds['SOPInstanceUID']}.3.1"
    (inside.parent / "labels.csv").write_text(f"{table}{uid},fracture,,{plants.word('cell of labels.csv')}\n")
    wrong = sources / "wrong"
    wrong.mkdir()
    (wrong / "a.dcm").write_bytes(file)
    (wrong / "labels.csv").write_text(f"{table}{uid},{plants.word('label that is none')},\n")
    others = [
        planted.zipped(sources / f"{plants.word('zip name')}.zip", planted.dicom(plants, 2), plants),
        planted.fracatlas(sources / "fracatlas", plants),
        planted.grazpedwri(sources / "grazpedwri", plants),
        wrong,
    ]
    start(workspace)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "OSTEOFLOW_WORKSPACE": str(workspace),
        "PYTHONPATH": str(REPOSITORY),
    }
    publish(workspace / ".osteoflow", home, tiny_bundle)
    calls = (
        ["-m", "flows.cli", "intake", str(inside.parent)],
        ["-c", INTAKES, *map(str, others)],
        ["-m", "flows.cli", "predict", *map(str, sorted(inside.iterdir()))],
        ["-c", SERVICE, str(workspace / ".osteoflow"), str(home), *map(str, sorted(inside.iterdir()))],
    )
    said = ""
    for call in calls:
        done = subprocess.run(
            [sys.executable, *call], cwd=workspace, env=environment, capture_output=True, text=True, check=False
        )
        said += done.stdout + done.stderr
    return Hospital(plants.kinds, sources, workspace, home, said)


SERVICE = """
import sys
from pathlib import Path
from components.errors import OsteoflowError
from components.serving.champion import Serving
from components.serving.service import Service, ServiceConfig
state, home = Path(sys.argv[1]), Path(sys.argv[2])
service = Service(ServiceConfig(
    log_url=f"sqlite:///{state / 'serving.db'}", ledger=state / "ledger.jsonl", bundles=state / "bundles",
    images=state / "serving" / "images", key_dir=home / ".config" / "osteoflow", model="osteoflow-fracture",
    audit_share=0.0, readers=2))
for path in sys.argv[3:]:
    try:
        print(service.predict(Path(path).read_bytes(), service.champion.current()))
    except OsteoflowError as error:
        print(type(error).__name__, error)
"""


def test_the_plants_are_there(hospital):
    """The scan finds every one of them in the sources: it is not blind, and more than fifty kinds were planted."""
    seen: set[str] = set()
    for path in hospital.sources.rglob("*"):
        seen |= planted.found(str(path).encode())
        for text in planted.texts(path.name, path.read_bytes()) if path.is_file() else ():
            seen |= planted.found(text)
    missing = {kind for kind, token in hospital.kinds.items() if token not in seen}

    assert len(hospital.kinds) > 100
    assert {kind for kind in missing if "burned" not in kind and kind != "PNG iTXt"} == set()
    assert {planted.JAPANESE, planted.GREEK} <= seen


def test_the_images_came_in(hospital):
    """Six images are in the archive and one has been judged twice: what is scanned is not an empty house."""
    shards = sorted((hospital.workspace / "data" / "studies").glob("*.parquet"))

    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == 7
    assert hospital.said.count("Data version") == 4
    assert "file 6: no fracture" in hospital.said or "probability" in hospital.said
    assert len(list((hospital.state / "serving" / "images").glob("*.png"))) == 2


def test_no_identifier_is_written_anywhere(hospital):
    """Data, git, DVC, Prefect, the ledger, the service's log and pictures, the terminal: in any form."""
    assert hospital.hits() == []


def test_no_letters_are_left_in_a_picture(hospital):
    """Neither in the archive nor where the clinic page looks."""
    stored = [
        row["pixels"]
        for shard in (hospital.workspace / "data" / "studies").glob("*.parquet")
        for row in pq.read_table(shard, columns=["pixels"]).to_pylist()
    ]
    pictures = [pixels.decode(data) for data in stored]
    lines = [line for picture in pictures for line in burned_in.read(picture, rows(picture) or [])]

    assert [line for line in lines if not burned_in.is_marker(line.words)] == []


def test_quarantine_is_for_its_owner(hospital):
    """Refused files stay as they came: outside the data folder, 0600 in a folder of 0700, listed without a name."""
    folder = hospital.state / "quarantine"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}

    assert len(list(folder.glob("*.bin"))) >= 4
    assert (stat.S_IMODE(folder.stat().st_mode), modes) == (0o700, {0o600})
