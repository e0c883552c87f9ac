"""The DICOM node, called by a real sender over loopback."""

from __future__ import annotations

import io
import socket
from contextlib import contextmanager
from threading import Event

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    Verification,
)

from components.errors import ConfigError
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.switch import resume, stop
from components.serving.__main__ import _tell_of_stops
from components.serving.dicom_node import serve


@contextmanager
def calling(port: int, *, called: str = "OSTEOFLOW", calling: str = "SENDER", classes=None):
    """An association with the node; None where it was rejected."""
    sender = AE(ae_title=calling)
    for sop_class in classes or (Verification, ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation):
        sender.add_requested_context(sop_class)
    association = sender.associate("127.0.0.1", port, ae_title=called)
    try:
        yield association if association.is_established else None
    finally:
        if association.is_established:
            association.release()


def dataset(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def test_it_answers_an_echo(tmp_path):
    with serve(tmp_path / "inbox", port=0) as port, calling(port) as association:
        assert association.send_c_echo().Status == 0x0000


def test_a_radiograph_arrives_whole(tmp_path, xray):
    """What lies in the inbox decodes to what was sent; its name tells nothing, and only its owner can read it."""
    data = xray()
    with serve(tmp_path / "inbox", port=0) as port, calling(port) as association:
        assert association.send_c_store(dataset(data)).Status == 0x0000
    (path,) = (tmp_path / "inbox").iterdir()

    assert pydicom.dcmread(path).PixelData == dataset(data).PixelData
    assert dataset(data).PatientID not in path.name
    assert (path.suffix, oct(path.stat().st_mode & 0o777)) == (".dcm", "0o600")
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"


def test_what_arrives_can_be_read_by_intake(tmp_path, xray):
    from components.radiograph import dicom
    from components.radiograph.deidentify import Pseudonyms

    key = Pseudonyms(bytes(32))
    with serve(tmp_path / "inbox", port=0) as port, calling(port) as association:
        association.send_c_store(dataset(xray()))
    (path,) = (tmp_path / "inbox").iterdir()

    assert dicom.read(path.read_bytes(), key).meta == dicom.read(xray(), key).meta


def test_the_same_object_twice_is_one_file(tmp_path, xray):
    with serve(tmp_path / "inbox", port=0) as port:
        for _ in range(2):
            with calling(port) as association:
                association.send_c_store(dataset(xray()))

    assert len(list((tmp_path / "inbox").iterdir())) == 1


def test_only_radiographs_are_taken(tmp_path):
    with serve(tmp_path / "inbox", port=0) as port, calling(port, classes=[CTImageStorage]) as association:
        assert association is None or not association.accepted_contexts


def test_too_large_an_object_is_refused(tmp_path, xray):
    with serve(tmp_path / "inbox", port=0, max_object_mb=0) as port, calling(port) as association:
        assert association.send_c_store(dataset(xray())).Status == 0xA700

    assert list((tmp_path / "inbox").iterdir()) == []


def test_a_full_inbox_takes_no_more(tmp_path, xray):
    with serve(tmp_path / "inbox", port=0, max_inbox_mb=1) as port, calling(port) as association:
        (tmp_path / "inbox" / "waiting.dcm").write_bytes(bytes(1 << 20))
        assert association.send_c_store(dataset(xray())).Status == 0xA700


@pytest.mark.parametrize(("called", "caller"), [("SOMEBODY", "CT_ROOM"), ("OSTEOFLOW", "STRANGER")])
def test_wrong_names_are_turned_away(tmp_path, called, caller):
    with (
        serve(tmp_path / "inbox", port=0, callers=("CT_ROOM",)) as port,
        calling(port, called=called, calling=caller) as association,
    ):
        assert association is None


def test_a_taken_port_is_said(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="cannot listen"), serve(tmp_path, port=other.getsockname()[1]):
            pass


def test_it_listens_on_loopback_only_by_default(tmp_path):
    """Another address of this machine reaches nothing."""
    with serve(tmp_path / "inbox", port=0) as port, socket.socket() as probe:
        probe.settimeout(2)
        assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_its_log_says_when_ai_output_goes_off_and_comes_back(tmp_path, caplog):
    """Images are taken all the same; nothing is said while nothing changes."""
    ledger, key, ended = Ledger(tmp_path / "ledger.jsonl"), SigningKey.open(tmp_path / "keys", "reviewer"), Event()
    said = {"ledger": ledger, "user": "reviewer", "key": key}

    class Turns(Event):
        """Waits of the program's own loop, at each of which somebody does something."""

        acts = [lambda: None, lambda: stop(reason="hips", **said), lambda: resume(reason="fixed", **said), ended.set]

        def wait(self, timeout=None):
            self.acts.pop(0)()
            return ended.is_set()

    with caplog.at_level("WARNING", "osteoflow.dicom_node"):
        _tell_of_stops(ledger, Turns())

    assert caplog.messages == [
        "AI output is off (ledger entry 0, reviewer). Images are still taken in.", "AI output is on.",
    ]  # fmt: skip
