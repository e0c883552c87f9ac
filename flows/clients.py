"""What the environment says, as the objects that effects take: the only place clients are built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.params import Params, load
from components.promotion.accounts import CONFIG, Accounts
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.people import People
from components.promotion.register import Registry
from components.serving.store import PredictionLog
from components.settings import Settings, load_settings
from components.workspace import Workspace

if TYPE_CHECKING:
    from components.radiograph.deidentify import Pseudonyms


def workspace(settings: Settings) -> Workspace:
    """The clone this process works in, with its DVC pointed at cache and remote."""
    return Workspace(
        root=settings.workspace,
        state=settings.state,
        remote=settings.remote_url,
        author=settings.user,
        endpoint=settings.s3_endpoint_url,
        checksums=settings.s3_checksums,
    ).open()


def params(settings: Settings) -> Params:
    """This workspace's params.yaml."""
    return load(settings.workspace / "params.yaml")


def ledger(settings: Settings) -> Ledger:
    """The decision ledger of this workspace; its witness lies beside the keys."""
    return Ledger(settings.ledger_path, key_dir=settings.key_dir)


def signing_key(settings: Settings, name: str) -> SigningKey:
    """The key `name` signs with; made on first use, outside the repository."""
    return SigningKey.open(settings.key_dir, name)


def pseudonyms(settings: Settings) -> Pseudonyms:
    """The keyed pseudonyms of this site; the key is made on first use, outside the repository."""
    from components.radiograph.deidentify import Pseudonyms  # brings pydicom, which most commands do without

    return Pseudonyms.open(settings.key_dir)


def registry(settings: Settings) -> Registry:
    """The model registry: the embedded SQLite one, or the team's server."""
    password = settings.mlflow_password.get_secret_value() if settings.mlflow_password else None
    return Registry(
        settings.tracking_uri,
        artifact_root=settings.artifact_root,
        username=settings.user if password else None,
        password=password,
    )


def people(settings: Settings) -> People:
    """Who may do what on the registry's server of this machine, and their accounts in its store.

    Raises:
        ConfigError: no server was ever configured here, as where the registry is another machine's.
    """
    config = os.environ.get("MLFLOW_AUTH_CONFIG_PATH") or settings.state / CONFIG
    return People(
        ledger=ledger(settings),
        accounts=Accounts.of(Path(config)),
        state=settings.state,
        user=settings.user,
        key=signing_key(settings, settings.user),
    )


def prediction_log(settings: Settings) -> PredictionLog:
    """The prediction log, its tables made when missing."""
    log = PredictionLog(settings.log_url)
    log.create()
    return log


def champion_bundle(settings: Settings, name: str) -> Path | None:
    """The champion's bundle as the service loads it, or None before the first approval."""
    entry = ledger(settings).champion(name)
    return settings.state / "bundles" / str(entry.body["bundle_hash"]) if entry else None


def still_off(settings: Settings) -> str:
    """What whoever changed the champion should hear while AI output is switched off; else nothing."""
    off = " AI output is switched off and stays off until a reviewer runs `osteoflow resume`."
    return off if ledger(settings).stops() else ""


def inbox(settings: Settings) -> Path:
    """Where new studies arrive, made when missing."""
    settings.inbox_folder.mkdir(parents=True, exist_ok=True)
    return settings.inbox_folder


def quarantine(settings: Settings) -> Path:
    """Where refused files wait for a person: never under data/, never versioned."""
    return settings.state / "quarantine"


__all__ = [
    "champion_bundle",
    "inbox",
    "ledger",
    "load_settings",
    "params",
    "people",
    "prediction_log",
    "pseudonyms",
    "quarantine",
    "registry",
    "signing_key",
    "still_off",
    "workspace",
]
