"""Noun: a person's or a service's signing key (Ed25519), kept in one file that only its owner can read."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from components.errors import ConfigError, PromotionRefused

log = logging.getLogger("osteoflow.ledger")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class SigningKey:
    """A person's or a service's Ed25519 key. Its private part never leaves the key file."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self._private = private

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r}, public_key={self.public_key[:12]}...)"

    @property
    def public_key(self) -> str:
        """32 bytes as 64 hex characters."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, digest: str) -> str:
        """Sign a 64-character hex digest; returns 128 hex characters."""
        return self._private.sign(bytes.fromhex(digest)).hex()

    @classmethod
    def open(cls, key_dir: Path, name: str) -> SigningKey:
        """Read `key_dir`/sign-<name>.pem (0600), making it, and its folder (0700), on first use.

        Raises:
            ConfigError: the name cannot be a file name, others may read the key, or it is no Ed25519 key.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"signing key: {name!r} is no user name (letters, digits, . _ @ -; at most 64)")
        path = key_dir / f"sign-{name}.pem"
        if not path.exists():
            _make_key(path)
        for place, loose in ((key_dir, 0o077), (path, 0o077)):
            if place.stat().st_mode & loose:
                raise ConfigError(f"{place}: others can read it; run chmod go-rwx on it")
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: not a readable private key: {error}") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(f"{path}: expected an Ed25519 key, found {type(private).__name__}")
        return cls(name, private)


def public_key_of(key_dir: Path, name: str) -> str | None:
    """The key that `name` signs with, as this place knows it: 64 hex characters; None: nobody of that name.

    It knows whoever has `sign-<name>.pem` in `key_dir`, and whoever keeps theirs elsewhere and left their public key
    there, as `sign-<name>.pub`.
    """
    if not _NAME.fullmatch(name):
        return None
    stated = key_dir / f"sign-{name}.pub"
    try:
        if stated.exists():
            return stated.read_text(encoding="ascii").strip().lower()
        return SigningKey.open(key_dir, name).public_key if (key_dir / f"sign-{name}.pem").exists() else None
    except (OSError, ValueError, ConfigError) as error:
        log.error("%s: the key of this signer cannot be read: %s", stated, error)
        return None


def word(where: str, what: str, reason: str, user: str, key: SigningKey, *, how: str = "") -> dict[str, str]:
    """What a person says who acts: the user and the reason, trimmed, as an entry's body has them.

    Args:
        where: begins what is said of a refusal.
        what: the act, in a word.
        how: what else the reason has to be, beside one's own words.

    Raises:
        PromotionRefused: no reason, or another's key.
    """
    reason = reason.strip()
    if not reason:
        raise PromotionRefused(f"{where}{what} needs a reason, in your own words{how}")
    if user != key.name:
        raise PromotionRefused(f"{where}the key of {key.name!r} cannot sign for {user!r}")
    return {"user": user, "reason": reason}


def is_signed(digest: str, *, public_key: str, signature: str) -> bool:
    """Whether `signature` (128 hex) over `digest` (64 hex) was made with the key of `public_key` (64 hex)."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(
            bytes.fromhex(signature), bytes.fromhex(digest)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Put a folder's own entries (new names in it) on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)  # unlike a rename, never replaces the key another process has just made
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    sync_folder(path.parent)
