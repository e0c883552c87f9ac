"""The planted-identifier scan of the DICOM node and of what goes back to the PACS.

A real sender associates with the node under a name of its own; intake empties the inbox; results are written for one
of the images. Nothing that stays here holds an identifier. The results are exempt: they are for the PACS that sent the
image, which files them by patient and study; what they may carry is in test_results.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from pynetdicom import AE

from components.serving.dicom_node import SYNTAXES
from tests import servers
from tests.privacy import planted
from tests.privacy.hospital import REPOSITORY, Hospital, publish, start

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def hospital(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Two images and what is none sent to the node, taken in, and one of them judged."""
    folder = tmp_path_factory.mktemp("node")
    workspace, home, sources = folder / "clone", folder / "home", folder / "sources"
    for path in (workspace, home, sources):
        path.mkdir()
    plants = planted.Plants()
    start(workspace)
    publish(workspace / ".osteoflow", home, tiny_bundle)
    file = planted.dicom(plants, 11)
    for number, data in enumerate((file, planted.another(file, 12))):
        (sources / f"{number}.dcm").write_bytes(data)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "OSTEOFLOW_WORKSPACE": str(workspace),
        "PYTHONPATH": str(REPOSITORY),
    }
    said = sent(sources, workspace, environment, plants)
    for words in (["intake"], ["predict", str(sources / "0.dcm"), "--out", str(sources / "results")]):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=workspace, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said += done.stdout + done.stderr
    return Hospital(plants.kinds, sources, workspace, home, said)


def sent(sources: Path, workspace: Path, environment: dict[str, str], plants: planted.Plants) -> str:
    """C-STORE of every file by a sender named after the person, then of one to a node that has another name."""
    [port] = servers.free_ports(1)
    with subprocess.Popen(
        [sys.executable, "-m", "components.serving", "dicom"],
        cwd=workspace, env=environment | {"OSTEOFLOW_DICOM_PORT": str(port)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as node:  # fmt: skip
        said = node.stdout.readline()
        try:
            sender = AE(ae_title=plants.word("calling AE title"))
            sender.implementation_version_name = plants.word("implementation version name")
            files = sorted(sources.glob("*.dcm"))
            sender.add_requested_context(dcmread(files[0]).SOPClassUID, list(SYNTAXES[:2]))
            for called, expected in (("OSTEOFLOW", 0), (plants.word("called AE title"), None)):
                peer = sender.associate("127.0.0.1", port, ae_title=called)
                assert peer.is_established == (expected is not None)
                for path in files if peer.is_established else ():
                    assert peer.send_c_store(path).Status == expected
                peer.release()
        finally:
            node.send_signal(signal.SIGINT)
        return said + node.communicate(timeout=30)[0]


def test_what_was_sent_came_in_and_was_judged(hospital):
    shards = sorted((hospital.workspace / "data" / "studies").glob("*.parquet"))

    assert sum(pq.read_metadata(shard).num_rows for shard in shards) == 2
    assert list((hospital.state / "inbox").rglob("*.dcm")) == []
    assert "probability" in hospital.said


def test_no_identifier_stays_anywhere(hospital):
    """Data, git, DVC, Prefect's store, the emptied inbox, the node's log, and the terminal of every command."""
    assert hospital.hits() == []
