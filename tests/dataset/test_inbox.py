"""The inbox: what a real sender sent is taken in and removed, and nothing is lost between the two."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from components.dataset.inbox import Inbox
from components.serving.dicom_node import serve


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "inbox"
    made.mkdir()
    return made


@pytest.fixture
def door(folder, tmp_path):
    return lambda largest=40_000_000: Inbox(folder, tmp_path / "claimed", tmp_path / "kept", largest)


def through(door, home, **options):
    door.bring()
    batch = home.take_in(door.path, may_be_empty=door.may_be_empty, **options)
    door.landed()
    return batch


def files(*folders):
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".osteoflow-spool.json"
    ]


def test_what_a_modality_sends_is_taken_in_and_removed(folder, door, home, make, tmp_path, servers_required):
    """DCMTK's storescu to the node, the node's inbox to the archive: files are gone, and a second run adds nothing."""
    servers_required(["storescu"])
    sent = make.dicoms(tmp_path / "sent", [1, 2, 3])
    with serve(folder, port=0) as port:
        command = [shutil.which("storescu"), "-aec", "OSTEOFLOW", "127.0.0.1", str(port), "+sd", str(sent)]
        subprocess.run(command, check=True, capture_output=True)

    first, second = through(door(), home), through(door(), home)

    assert (first.added, second.added, second.duplicates) == (3, 0, 0)
    assert files(folder, tmp_path / "claimed") == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")  # one of the senders made its own UIDs
def test_real_radiographs_in_every_syntax_arrive_as_they_lie(
    folder, door, home, new_home, real_data, tmp_path, servers_required
):
    """Sent by DCMTK or read from the folder: the same pixels under the same pseudonyms, and the same refusals."""
    servers_required(["dcmsend"])
    with serve(folder, port=0) as port:
        where = ["-aec", "OSTEOFLOW", "127.0.0.1", str(port), "+sd", str(real_data / "dicom" / "radiographs")]
        subprocess.run([shutil.which("dcmsend"), *where], check=True, capture_output=True)
    beside = new_home("beside")

    sent = through(door(), home)
    read = beside.take_in(real_data / "dicom" / "radiographs")

    assert (sent.added, sent.duplicates) == (6, 5)  # two of the pictures come in several syntaxes
    assert (sent.added, sent.duplicates, sent.refused) == (read.added, read.duplicates, read.refused)
    columns = ["pixel_sha256", "patient_id", "rows", "bits_stored"]  # which of two twins came first is chance
    ours, theirs = (h.catalog()[columns].sort_values(columns).reset_index(drop=True) for h in (home, beside))
    assert ours.equals(theirs)


def test_killed_before_it_landed_nothing_is_lost(folder, door, home, make, tmp_path):
    """What was claimed and never landed is taken in by the next run, with what arrived since."""
    make.dicoms(folder, [1])
    door().bring()
    make.dicoms(folder, [2])

    assert through(door(), home).added == 2
    assert files(folder, tmp_path / "claimed") == []


def test_killed_after_it_was_taken_in_nothing_is_twice(folder, door, home, make, tmp_path):
    make.dicoms(folder, [1])
    entrance = door()
    entrance.bring()
    home.take_in(entrance.path)

    batch = through(door(), home)

    assert (batch.added, batch.duplicates) == (0, 1)
    assert files(folder, tmp_path / "claimed") == []


def test_what_arrives_meanwhile_waits(folder, door, home, make):
    make.dicoms(folder, [1])
    entrance = door()
    entrance.bring()
    make.dicoms(folder, [2])
    batch = home.take_in(entrance.path)
    entrance.landed()

    assert batch.added == 1
    assert [path.name for path in files(folder)] == ["2-0"]


def test_a_file_that_is_still_written_is_left_alone(folder, door, home, make):
    make.dicoms(folder, [1])
    for name in ("x.dcm.part", "x.filepart", ".x.dcm.Ab12"):
        (folder / name).write_bytes(b"half")

    batch = through(door(), home)

    assert (batch.added, batch.refused) == (1, {})
    assert len(files(folder)) == 3


def test_a_refused_file_lies_in_quarantine(folder, door, home):
    (folder / "letter.txt").write_bytes(b"no radiograph")

    assert sum(through(door(), home).refused.values()) == 1
    assert files(folder) == []
    assert any(path.read_bytes() == b"no radiograph" for path in home.quarantine.glob("*.bin"))


def test_what_was_too_large_to_read_is_kept(folder, door, home, tmp_path):
    """The quarantine copies what was read; what was not would be lost with the inbox."""
    (folder / "huge").write_bytes(bytes(5_000_000))

    assert through(door(4_000_000), home, max_megapixels=1).refused == {"too_large": 1}
    assert [path.stat().st_size for path in files(tmp_path / "kept")] == [5_000_000]


def test_a_quiet_night_is_no_failure(door, home):
    assert through(door(), home).added == 0


def test_labels_beside_the_files_are_heard(folder, door, home, make):
    make.dicoms(folder, [1, 2], labels={1: "fracture", 2: "no_fracture"})

    assert through(door(), home).labels == {"fracture": 1, "no_fracture": 1}


def test_two_files_of_one_name_both_land(folder, door, home, make, tmp_path):
    """A file of the same name, claimed by a run that was killed, is not overwritten."""
    make.dicoms(tmp_path / "a", [1])
    make.dicoms(tmp_path / "b", [2])
    (tmp_path / "a" / "1-0").rename(folder / "IM0001")
    door().bring()
    (tmp_path / "b" / "2-0").rename(folder / "IM0001")

    assert through(door(), home).added == 2
