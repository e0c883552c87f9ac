"""Radiographs of a PACS over DICOMweb: found by QIDO-RS, page by page, and fetched by WADO-RS, one instance at a time.

Source: DICOM PS3.18, 10.6 (search), 10.4 (retrieve).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from components.dataset.spool import Offer, Unobtainable, write_whole
from components.errors import ConfigError, OsteoflowError, Unavailable

T = TypeVar("T")

ATTEMPTS = 3
MODALITIES = ("CR", "DX")  # computed and digital radiography; everything else a PACS holds is not asked for
STUDY, SERIES, INSTANCE, MODALITY = "0020000D", "0020000E", "00080018", "00080060"
# What may stand in a command line, a shell's history and the store of flow runs: nothing that names a person.
FILTERS = ("StudyDate", "StudyTime", "ModalitiesInStudy", "StudyDescription", "InstitutionName")


@dataclass(frozen=True)
class Archive:
    """The radiographs of the studies that match `filters`.

    Attributes:
        client: dicomweb_client's DICOMwebClient; without retries of its own.
        filters: QIDO study attributes by keyword, of FILTERS.
        page: matches a query asks for at once.
    """

    client: Any
    filters: Mapping[str, str] = field(default_factory=dict)
    page: int = 100
    parallel: int = 1  # a PACS has patients to serve

    def __post_init__(self) -> None:
        for name in self.filters:
            if name not in FILTERS:
                raise ConfigError(
                    f"DICOMweb: {name[:40]!r} is no filter; expected {', '.join(FILTERS)}. To take in one patient, "
                    "send from the PACS to the DICOM node"
                )

    @property
    def name(self) -> str:
        return f"dicomweb+{self.client.base_url}"  # without the filters: an instance is the same under all of them

    def offers(self) -> Iterator[Offer]:
        """Every instance of a radiographic series of the matching studies.

        Raises:
            ConfigError: no DICOMweb service there, no access, or a filter it does not know.
            Unavailable: the PACS does not answer.
        """
        for study in self._pages(STUDY, self.client.search_for_studies, search_filters=dict(self.filters)):
            for series in self._pages(SERIES, self.client.search_for_series, study, fields=[MODALITY]):
                found = self._pages(INSTANCE, self.client.search_for_instances, study, series)
                for instance in found:
                    yield Offer(f"{study}\n{series}\n{instance}", f"{instance}.dcm")

    def fetch(self, offer: Offer, target: Path, part: Path) -> None:
        """Fetch one instance as the PACS stores it, without a change of its transfer syntax.

        Raises:
            Unobtainable: vanished, forbidden, server_error, broken_transfer or wrong_object.
            Unavailable: the PACS does not answer.
        """
        uids = offer.key.split("\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break their VR: intake judges the file, not its transfer
            dataset = _asked(lambda: self.client.retrieve_instance(*uids), one=True)
            if str(dataset.get("SOPInstanceUID", "")) != uids[2]:
                raise Unobtainable("DICOMweb: another instance than asked for", reason="wrong_object")
            try:
                write_whole(target, lambda draft: dataset.save_as(draft, enforce_file_format=True))
            except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
                raise Unobtainable(f"DICOMweb: {type(error).__name__}", reason="broken_transfer") from None

    def intact(self, offer: Offer, target: Path) -> bool:
        return True  # written whole or not at all, and DICOMweb states nothing to compare it with

    def _pages(self, tag: str, search: Callable[..., list[dict[str, Any]]], *uids: str, **more: Any) -> Iterator[str]:
        """The UIDs under `tag` of every match, each once: servers differ in how they page, and some ignore it."""
        seen: set[str] = set()
        offset = 0
        while True:
            rows = _asked(partial(search, *uids, limit=self.page, offset=offset, **more))
            fresh = [row for row in rows if _value(row, tag) and _value(row, tag) not in seen]
            for row in fresh:
                seen.add(_value(row, tag))
                if tag != SERIES or _value(row, MODALITY) in MODALITIES:
                    yield _value(row, tag)
            if not fresh:
                return
            offset += len(rows)


def _value(row: Mapping[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _asked(call: Callable[[], T], *, one: bool = False) -> T:
    """What `call` returns; a few more attempts where the PACS stumbles."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:  # noqa: BLE001  (dicomweb_client raises what requests, json and pydicom raise)
            explained = _explained(error, one=one)
            retry = isinstance(explained, Unavailable) or getattr(explained, "reason", "") == "server_error"
            if not retry or attempt == ATTEMPTS - 1:
                raise explained from None
    raise AssertionError("unreachable")


def _explained(error: Exception, *, one: bool) -> OsteoflowError:
    """What `error` means to the reader; `one`: about a single instance rather than a search."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        if one and status in (404, 410):
            return Unobtainable(f"DICOMweb: {status}", reason="vanished")
        if one and status in (401, 403):
            return Unobtainable(f"DICOMweb: {status}", reason="forbidden")
        if one:
            return Unobtainable(f"DICOMweb: {status}", reason="server_error")
        if status in (401, 403):
            return ConfigError(
                f"DICOMweb: access denied ({status}); set OSTEOFLOW_DICOMWEB_USER and OSTEOFLOW_DICOMWEB_PASSWORD, "
                "or OSTEOFLOW_DICOMWEB_TOKEN"
            )
        if status >= 500:
            return Unavailable(f"DICOMweb: the PACS answers {status}")
        return ConfigError(f"DICOMweb: the PACS answers {status}; is the path that of its DICOMweb service?")
    if isinstance(error, requests.exceptions.SSLError):
        return ConfigError(
            "DICOMweb: no TLS with the PACS: its certificate is not trusted (name its authority in "
            "REQUESTS_CA_BUNDLE), or it speaks plain http"
        )
    broken = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    if one and (not isinstance(error, requests.RequestException) or isinstance(error, broken)):
        return Unobtainable(f"DICOMweb: {type(error).__name__}", reason="broken_transfer")
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return Unavailable(f"DICOMweb: the PACS does not answer ({type(error).__name__})")
    return ConfigError(f"DICOMweb: no answer in DICOM JSON ({type(error).__name__}); is this its DICOMweb service?")
