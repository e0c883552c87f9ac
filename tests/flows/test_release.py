"""Copies to hand on: pseudonyms inside and in the name, and what is no radiograph says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pydicom import dcmread

from components.radiograph.phantom import DETECTOR_A, draw

REPOSITORY = Path(__file__).resolve().parents[2]


def osteoflow(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OSTEOFLOW_KEY_DIR": str(folder / "keys"), "OSTEOFLOW_STATE_DIR": str(folder / "state")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_copy_says_nothing_of_whose_it_is(tmp_path):
    drawn = draw(3, patient=3, detector=DETECTOR_A, fracture=True)
    (tmp_path / "DOE_JANE.dcm").write_bytes(drawn.dicom)
    (tmp_path / "letter.txt").write_text("Dear colleague")
    files = [str(tmp_path / "DOE_JANE.dcm"), str(tmp_path / "letter.txt")]

    done = osteoflow(tmp_path, "deidentify", *files, "--out", str(tmp_path / "copies"), "--json")

    first, second = json.loads(done.stdout)["results"]
    original, copy = dcmread(files[0]), dcmread(first["written"])
    assert (done.returncode, second["written"], second["refused"]) == (0, None, "not a DICOM object")
    assert Path(first["written"]).stem == str(copy.SOPInstanceUID) != str(original.SOPInstanceUID)
    assert copy.PatientID != original.PatientID
    assert (copy.PatientIdentityRemoved, copy.BurnedInAnnotation) == ("YES", "NO")
    assert [item.CodeValue for item in copy.DeidentificationMethodCodeSequence] == [
        "113100",
        "113101",
        "113107",
        "113108",
    ]
    assert Path(first["written"]).stat().st_mode & 0o777 == 0o600


def test_no_radiograph_at_all_is_a_failure(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear colleague")

    done = osteoflow(tmp_path, "deidentify", str(tmp_path / "letter.txt"), "--out", str(tmp_path / "copies"))

    assert (done.returncode, done.stdout.strip()) == (1, "file 1: refused: not a DICOM object")
