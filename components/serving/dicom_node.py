"""A DICOM node: takes radiographs by C-STORE into an inbox folder, answers C-ECHO, and does nothing else.

It does not look inside what it is sent; intake reads the inbox, de-identifies and judges. A file is named by its
content's hash, so the same object sent twice is one file. The inbox holds identified data: owner-only, and emptied
by intake.

Source: DICOM PS3.4 Annex B (storage service class), PS3.7 C (status codes).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.dataset.store import atomic_path
from components.errors import ConfigError, DataError

log = logging.getLogger("osteoflow.dicom_node")

CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage, for presentation
)
# What intake decodes (docs/data.md). JPEG baseline and extended lose something; older CR systems store in them.
SYNTAXES = (
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # explicit VR big endian
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first order
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
NOT_UNDERSTOOD = 0xC000


@contextmanager
def serve(
    inbox: Path,
    host: str = "127.0.0.1",
    port: int = 11112,
    ae_title: str = "OSTEOFLOW",
    *,
    callers: tuple[str, ...] = (),
    max_object_mb: int = 128,
    max_inbox_mb: int = 20_000,
) -> Iterator[int]:
    """Listen while the context is open.

    Args:
        inbox: folder for what arrives; made owner-only.
        host: address to bind; anything but loopback is for a network that is closed by other means (TLS, firewall).
        port: 0 picks a free one.
        ae_title: what callers must call us.
        callers: AE titles that may call; empty means any.
        max_object_mb: a larger object is refused.
        max_inbox_mb: nothing is taken while the inbox holds more.

    Yields:
        The port.

    Raises:
        ConfigError: the address cannot be bound.
    """
    from pynetdicom import AE, evt

    inbox.mkdir(parents=True, exist_ok=True)
    inbox.chmod(0o700)
    node = AE(ae_title=ae_title)
    node.require_called_aet = True
    node.require_calling_aet = list(callers)
    node.maximum_associations = 8
    node.acse_timeout = node.dimse_timeout = node.network_timeout = 30
    node.add_supported_context("1.2.840.10008.1.1")  # verification
    for sop_class in CLASSES:
        node.add_supported_context(sop_class, list(SYNTAXES))

    def store(event: Any) -> int:
        return _store(event, inbox, max_object_mb << 20, max_inbox_mb << 20)

    try:
        server = node.start_server((host, port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    except OSError as error:
        raise ConfigError(f"DICOM node: cannot listen on {host}:{port}: {error.strerror}") from None
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        node.shutdown()


def _store(event: Any, inbox: Path, max_object: int, max_inbox: int) -> int:
    """Put one object into the inbox; return its status. Names of neither patient nor study reach the log."""
    try:
        content: bytes = event.encoded_dataset()
    except (ValueError, AttributeError, KeyError):
        return NOT_UNDERSTOOD
    held = sum(path.stat().st_size for path in inbox.glob("*.dcm"))
    if len(content) > max_object or held + len(content) > max_inbox:
        log.warning("refused an object of %d bytes; the inbox holds %d", len(content), held)
        return OUT_OF_RESOURCES
    target = inbox / f"{hashlib.sha256(content).hexdigest()[:40]}.dcm"
    try:
        if not target.exists():
            with atomic_path(target) as part:
                part.write_bytes(content)
    except DataError as error:
        log.error("%s", error)
        return OUT_OF_RESOURCES
    return SUCCESS
