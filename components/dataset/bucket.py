"""Objects of an S3-compatible store below a prefix: listed page by page, fetched resumably, verified by their ETags."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.dataset.spool import Offer, Unobtainable
from components.errors import ConfigError, DataError, OsteoflowError, Unavailable

CHUNK = 1 << 20
ATTEMPTS = 3
MIB, MB = 1 << 20, 1_000_000
WRONG = {
    "NoSuchBucket": "there is no such bucket",
    "AllAccessDisabled": "access to the bucket is disabled",
    "AccessDenied": "access denied; the credentials may not list or read it",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": "the credentials have expired",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
    "InvalidBucketName": "that is no name of a bucket",
    "403": "access denied",
    "404": "there is no such bucket",
}
GONE = {"NoSuchKey": "vanished", "404": "vanished", "PreconditionFailed": "changed", "412": "changed",
        "InvalidObjectState": "archived", "AccessDenied": "forbidden", "403": "forbidden"}  # fmt: skip


@dataclass(frozen=True)
class Prefix:
    """What lies in `bucket` below the folder `prefix`, or the one object of that key.

    Attributes:
        client: boto3's S3 client.
        page: keys a request for the list asks for.
    """

    client: Any
    bucket: str
    prefix: str
    page: int = 1000
    parallel: int = 8

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def offers(self) -> Iterator[Offer]:
        """Every object below the prefix; markers of folders are left out.

        Raises:
            ConfigError: no bucket, no access, no credentials, or nothing that speaks S3.
            Unavailable: the store does not answer.
        """
        folder = f"{self.prefix.rstrip('/')}/" if self.prefix else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix.rstrip("/"), PaginationConfig={"PageSize": self.page}
        )
        try:
            for page in pages:
                for row in page.get("Contents", ()):
                    key, etag = row["Key"], row["ETag"].strip('"')
                    if key.endswith("/") or not (key.startswith(folder) or key == self.prefix):
                        continue
                    name = key[len(folder) :] if key.startswith(folder) else PurePosixPath(key).name
                    yield Offer(f"{key}\n{etag}", name, int(row["Size"]))
        except Exception as error:  # noqa: BLE001  (boto3 has no common base for what it raises)
            raise _explained(error) from None

    def fetch(self, offer: Offer, target: Path, part: Path) -> None:
        """Fetch one object, going on where `part` ends.

        Raises:
            Unobtainable: vanished, changed, forbidden, archived, or etag_mismatch twice.
            Unavailable: the store does not answer.
        """
        digests = []
        for _ in range(2):
            sealed = self._download(offer, part)
            if self._verified(offer, part):
                break
            digests.append((_sha256(part), sealed))
            if len(digests) == 2 and digests[0] == digests[1] and (sealed or _is_multipart(offer)):
                break  # an ETag that is no hash of the content, and twice the same bytes for it
            part.unlink()
        else:
            raise Unobtainable("the content does not match its ETag", reason="etag_mismatch")
        part.replace(target)

    def send(self, name: str, path: Path) -> None:
        """Store the file at `path` as the object `name` below the prefix.

        Raises:
            ConfigError: no bucket, or no right to write.
            Unavailable: the store does not answer.
        """
        try:
            with path.open("rb") as file:
                self.client.upload_fileobj(file, self.bucket, f"{self.prefix.rstrip('/')}/{name}".lstrip("/"))
        except Exception as error:  # noqa: BLE001
            raise _explained(error) from None

    def intact(self, offer: Offer, target: Path) -> bool:
        return target.stat().st_size == offer.size and self._verified(offer, target)

    def _download(self, offer: Offer, part: Path) -> bool:
        """Complete `part`; return whether the store encrypts it with keys that make its ETag no hash of the content."""
        key, etag = offer.key.rsplit("\n", 1)
        size, sealed = offer.size or 0, False
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        part.touch(mode=0o600)
        for attempt in range(ATTEMPTS):
            have = part.stat().st_size
            if have == size and (size or attempt):
                return sealed
            wanted = {"Range": f"bytes={have}-"} if have else {}
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=key, IfMatch=f'"{etag}"', **wanted)
                sealed = "kms" in answer.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in answer
                with part.open("ab" if have and answer["ResponseMetadata"]["HTTPStatusCode"] == 206 else "wb") as file:
                    for chunk in answer["Body"].iter_chunks(CHUNK):
                        file.write(chunk)
            except Exception as error:  # noqa: BLE001
                explained = _explained(error, one=True)
                if not isinstance(explained, Unavailable) or attempt == ATTEMPTS - 1:
                    raise explained from None
        return sealed

    def _verified(self, offer: Offer, path: Path) -> bool:
        etag = offer.key.rsplit("\n", 1)[1]
        if path.stat().st_size != offer.size:
            return False
        if not _is_multipart(offer):
            return _md5(path) == etag
        count = int(etag.rpartition("-")[2])
        return any(_multipart_etag(path, size) == etag for size in part_sizes(offer.size or 0, count))


def part_sizes(size: int, count: int) -> list[int]:
    """The sizes a part may have had, in bytes, where an object of `size` bytes was uploaded in `count` parts.

    Uploaders cut in whole MiB or MB, or into equal parts; the most usual first.
    """
    if count <= 1:
        return [max(size, 1)]
    low, high = math.ceil(size / count), math.ceil(size / (count - 1)) - 1
    steps = {unit * n for unit in (MIB, MB) for n in range(math.ceil(low / unit), high // unit + 1)}
    usual = [n * MIB for n in (8, 5, 16, 15, 10, 64, 50, 32, 100, 128)]
    ordered = [n for n in usual if n in steps] + sorted(steps - set(usual))
    return [*ordered[:64], low]


def _is_multipart(offer: Offer) -> bool:
    return "-" in offer.key.rsplit("\n", 1)[1]


def _multipart_etag(path: Path, part: int) -> str:
    digests = []
    with path.open("rb") as file:
        while True:
            digest, left = hashlib.md5(usedforsecurity=False), part
            while left and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            if left == part:
                break
            digests.append(digest.digest())
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _explained(error: Exception, *, one: bool = False) -> OsteoflowError:
    """What `error` of boto3 means to the reader; `one`: about a single object rather than the whole list."""
    from botocore import exceptions as s3

    if isinstance(error, s3.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if one and code in GONE:
            return Unobtainable(f"S3: {code}", reason=GONE[code])
        if code in WRONG:
            return ConfigError(f"S3: {WRONG[code]} ({code})")
        if status >= 500 or code in ("SlowDown", "RequestTimeout", "Throttling"):
            return Unavailable(f"S3: the store answers {code or status}")
        return ConfigError(f"S3: the store refuses the request ({code or status})")
    if isinstance(error, OSError) and not isinstance(error, s3.BotoCoreError):
        return DataError(f"source: cannot write what was fetched: {error.strerror}")
    if isinstance(error, s3.FlexibleChecksumError):
        return Unobtainable("S3: a checksum does not match", reason="etag_mismatch")
    if isinstance(error, s3.NoCredentialsError | s3.PartialCredentialsError | s3.TokenRetrievalError):
        return ConfigError("S3: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
    if isinstance(error, s3.SSLError):
        return ConfigError(
            "S3: no TLS with the endpoint: its certificate is not trusted (name its authority in AWS_CA_BUNDLE), or "
            "it speaks plain http"
        )
    if isinstance(error, s3.ParamValidationError | s3.NoRegionError | s3.BotoCoreError) and not isinstance(
        error, s3.HTTPClientError | s3.ConnectionError | s3.IncompleteReadError
    ):
        return ConfigError(f"S3: {type(error).__name__}; is OSTEOFLOW_S3_ENDPOINT_URL an S3 endpoint?")
    return Unavailable(f"S3: the store does not answer ({type(error).__name__}); see OSTEOFLOW_S3_ENDPOINT_URL")
