"""Which door a source is: a path of this machine, the inbox, or a URL of a store or a PACS, with its client built."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from components.dataset.bucket import Prefix
from components.dataset.inbox import Inbox
from components.dataset.pacs import Archive
from components.dataset.spool import Fetched, Remote
from components.errors import ConfigError
from components.settings import Settings
from flows import clients

DICOMWEB = ("dicomweb+https", "dicomweb+http")
FORMS = "a path, s3://BUCKET/PREFIX, or dicomweb+https://HOST/PATH?StudyDate=20260101-20260131"
SECONDS = (10, 120)  # to connect, and between two packets


class Door(Protocol):
    """What every source is to intake: files at `path`, brought before and let go after they have landed."""

    @property
    def path(self) -> Path: ...

    @property
    def may_be_empty(self) -> bool: ...

    def bring(self) -> str: ...

    def landed(self) -> None: ...


@dataclass(frozen=True)
class Here:
    """A folder or zip of this machine: read where it lies, and left as it is."""

    path: Path
    may_be_empty: bool = False

    def bring(self) -> str:
        """Nothing to fetch."""
        return ""

    def landed(self) -> None:
        """Nothing to remove."""


def door(settings: Settings, source: str | None, labels: Path | None = None) -> Door:
    """The door that `source` names; None is the inbox.

    Raises:
        ConfigError: no such form of URL, credentials in it, or `labels` for a source that brings its own.
    """
    scheme = urlsplit(source).scheme if source and "://" in source else ""
    if labels and scheme not in DICOMWEB:
        raise ConfigError("--labels goes with a DICOMweb source; any other source has its labels.csv among its files")
    if source is None:
        largest = clients.params(settings).intake.max_megapixels * 4_000_000  # as intake refuses unread
        claimed, kept = settings.state / "spool" / "inbox", clients.quarantine(settings) / "unread"
        return Inbox(clients.inbox(settings), claimed, kept, largest)
    if not scheme:
        return Here(Path(source))
    if scheme == "s3":
        return _fetched(settings, Prefix(object_store(settings), *_bucket(source)))
    if scheme in DICOMWEB:
        filters = dict(parse_qsl(urlsplit(source).query, keep_blank_values=True))
        return _fetched(settings, Archive(dicomweb(settings, source), filters), labels)
    raise ConfigError(f"source: {scheme[:20]}:// is no door; expected {FORMS}")


def object_store(settings: Settings) -> Any:
    """boto3's client; credentials come from its own chain (environment, profile, instance role)."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=SECONDS[0],
        read_timeout=SECONDS[1],
        retries={"mode": "standard", "max_attempts": 4},
        request_checksum_calculation=settings.s3_checksums,
        response_checksum_validation=settings.s3_checksums,
        s3={"addressing_style": "path"} if settings.s3_endpoint_url else {},  # a bucket's own host name is AWS's
    )
    try:
        return boto3.client("s3", endpoint_url=settings.s3_endpoint_url or None, config=config)
    except Exception as error:  # noqa: BLE001  (boto3 raises many things about one setting)
        raise ConfigError(f"S3: {type(error).__name__}; see OSTEOFLOW_S3_ENDPOINT_URL and the AWS_ variables") from None


def dicomweb(settings: Settings, source: str) -> Any:
    """A DICOMweb client for the service at `source`, with this site's credentials and no retries of its own.

    Raises:
        ConfigError: the URL holds credentials, or is none.
    """
    import requests
    from dicomweb_client import DICOMwebClient

    url = urlsplit(source)
    if url.username or url.password:
        raise ConfigError("DICOMweb: no credentials in the URL, where everyone can read them; set OSTEOFLOW_DICOMWEB_*")
    session = requests.Session()
    if settings.dicomweb_token and settings.dicomweb_token.get_secret_value():
        session.headers["Authorization"] = f"Bearer {settings.dicomweb_token.get_secret_value()}"
    elif settings.dicomweb_user and settings.dicomweb_password:
        session.auth = (settings.dicomweb_user, settings.dicomweb_password.get_secret_value())
    logging.getLogger("dicomweb_client").setLevel(logging.ERROR)  # it writes the UIDs of what it asks for
    try:
        address = url._replace(scheme=url.scheme.partition("+")[2], query="", fragment="").geturl().rstrip("/")
        client = DICOMwebClient(address, session=session, timeout=SECONDS)
    except ValueError:
        raise ConfigError(f"DICOMweb: no address in the source; expected {FORMS}") from None
    client.set_http_retry_params(retry=False)
    return client


def _bucket(source: str) -> tuple[str, str]:
    url = urlsplit(source)
    if not url.hostname or url.query or "@" in url.netloc:
        raise ConfigError("source: expected s3://BUCKET/PREFIX, without query or credentials")
    return url.netloc, url.path.lstrip("/")


def _fetched(settings: Settings, remote: Remote, labels: Path | None = None) -> Fetched:
    pseudonyms = clients.pseudonyms(settings)
    mark = pseudonyms.of("remote", remote.name)
    spool, taken = settings.state / "spool" / mark, settings.state / "fetched" / f"{mark}.txt"
    return Fetched(remote, spool, taken, pseudonyms, labels)
