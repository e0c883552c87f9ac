"""Noun: the model registry people look at, MLflow, as the few things promotion needs of it.

The registry shows; the ledger decides. Everything here can be rebuilt from builds and ledger entries. A SQLite or
PostgreSQL address is used directly, an http(s) one through the guarded server (`registry_guard`).
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from components.errors import ConfigError, DataError, PromotionRefused, Unavailable

CHAMPION = "champion"
CHALLENGER = "challenger"
# Our tags carry this prefix; the guard lets nobody but the flows' own account touch them.
PREFIX = "osteoflow."
RATIONALE = "rationale"
BUNDLE_FOLDER = "bundle"
DELETED = "Deleted_Internal"  # the stage of what was deleted, whose rows MLflow keeps
# MLflow's own retries take minutes; the flows retry Unavailable themselves.
_ENVIRONMENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_AWAY = ("API request to", "OperationalError", "Connection", "timed out", "Max retries", "TEMPORARILY_UNAVAILABLE")


class Version(BaseModel):
    """One version of a registered model, as `models` and the gate read it. `created` is ISO 8601 UTC.

    `ledger_head` is how far the ledger had come when the version was judged: number and hash of its last entry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    run_id: str
    bundle_hash: str | None
    verdict: str | None
    proposer: str | None
    git_commit: str | None
    data_sha256: str | None
    evidence: str | None
    build_key: str | None
    rationale: str | None
    ledger_head: str | None
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    description: str
    created: str


class Registry:
    """An MLflow registry.

    Args:
        tracking_uri: sqlite:///..., postgresql://... or http(s)://...
        artifact_root: where a store used directly keeps artifacts; a server decides for itself.
        username: basic-auth user of a server.
        password: and its password.
    """

    def __init__(
        self, tracking_uri: str, *, artifact_root: Path, username: str | None = None, password: str | None = None
    ) -> None:
        self.tracking_uri = tracking_uri
        self._artifact_root = artifact_root
        self._login = {"MLFLOW_TRACKING_USERNAME": username or "", "MLFLOW_TRACKING_PASSWORD": password or ""}
        self._client: Any = None

    def __repr__(self) -> str:
        return f"Registry({self.tracking_uri.rsplit('@', 1)[-1]!r})"

    @contextmanager
    def client(self) -> Iterator[Any]:
        """An `MlflowClient`, quiet, logged in, its failures in this project's error tree.

        Raises:
            Unavailable: the store does not answer.
            ConfigError: it does not know what was asked for, or not this user.
            PromotionRefused: the guard or a permission said no.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        login = self._login if self._login["MLFLOW_TRACKING_PASSWORD"] else {}
        with _environment(_ENVIRONMENT | login), quiet():
            try:
                if self._client is None:
                    self._make_folders()
                    self._client = MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
                yield self._client
            except MlflowException as error:
                raise self._translated(error) from None
            except (ConnectionError, TimeoutError) as error:
                raise Unavailable(f"{self!r}: {error}") from None

    def experiment(self, name: str) -> str:
        """The id of the experiment `name`, made when missing."""
        with self.client() as client:
            found = client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            place = None if self._is_server else (self._artifact_root / name).resolve().as_uri()
            return str(client.create_experiment(name, artifact_location=place))

    def versions(self, name: str) -> list[Version]:
        """Every version of `name`, newest first; none when the model is not registered yet."""
        if "'" in name:
            raise ConfigError(f"{name}: no model's name has a quote in it")
        with self.client() as client:
            found = client.search_model_versions(f"name = '{name}'", max_results=1000)
            if not found:
                return []
            # A search leaves aliases out; the model carries them all. One request for all runs, not one each.
            aliases = client.get_registered_model(name).aliases
            metrics = self._metrics(client, name, [v.run_id for v in found if v.run_id])
            return sorted((_read(v, aliases, metrics.get(v.run_id, {})) for v in found), key=lambda v: -v.version)

    def bundles(self, name: str) -> dict[int, str]:
        """Version -> bundle hash, of every version that is one of ours.

        A store is asked in its own tables: to import MLflow for it takes longer than all the rest of a trace.
        """
        if not self._is_server:
            with suppress(sql.exc.SQLAlchemyError):  # no store yet, or it does not answer: MLflow makes it, or says
                return _bundles_in(self.tracking_uri, name)
        return {v.version: v.bundle_hash for v in self.versions(name) if v.bundle_hash}

    def version(self, name: str, version: int) -> Version:
        """One version.

        Raises:
            ConfigError: there is none of this number; the message lists those that exist.
        """
        from mlflow.exceptions import MlflowException

        with self.client() as client:
            try:
                found = client.get_model_version(name, str(version))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                aliases = dict.fromkeys(found.aliases, found.version)
                return _read(found, aliases, dict(client.get_run(found.run_id).data.metrics) if found.run_id else {})
        known = ", ".join(str(v.version) for v in reversed(self.versions(name))) or "none"
        raise ConfigError(f"{name}: there is no version {version}; registered: {known}")

    def at(self, name: str, alias: str) -> Version | None:
        """The version that carries `alias`, or None."""
        return next((v for v in self.versions(name) if alias in v.aliases), None)

    def describe(self, name: str, version: int, markdown: str) -> None:
        """Set the text a reviewer reads on the version's page."""
        self._on(name, version, lambda c: c.update_model_version(name, str(version), description=markdown))

    def tag(self, name: str, version: int, key: str, value: str) -> None:
        """Set one tag of a version."""
        self._on(name, version, lambda c: c.set_model_version_tag(name, str(version), key, value))

    def keep(self, name: str, version: int, file: str, text: str) -> None:
        """Keep a text among the artifacts of the version's run."""
        run_id = self.version(name, version).run_id
        with self.client() as client:
            client.log_text(run_id, text, file)

    def text(self, name: str, version: int, file: str) -> str:
        """A text among the artifacts of the version's run.

        Raises:
            DataError: there is none.
        """
        run_id = self.version(name, version).run_id
        with self.client() as client, tempfile.TemporaryDirectory() as folder:
            if file not in {artifact.path for artifact in client.list_artifacts(run_id)}:
                raise DataError(f"{name} version {version}: its run {run_id} holds no {file}")
            return Path(client.download_artifacts(run_id, file, folder)).read_text(encoding="utf-8")

    def set_alias(self, name: str, version: int, alias: str) -> None:
        """Move `alias` to `version`."""
        self._on(name, version, lambda c: c.set_registered_model_alias(name, alias, str(version)))

    def delete_alias(self, name: str, alias: str) -> None:
        """Take `alias` off whichever version carries it."""
        with self.client() as client:
            client.delete_registered_model_alias(name, alias)

    def download_bundle(self, name: str, version: int, folder: Path) -> Path:
        """Fetch the version's bundle as `folder`, which appears complete or not at all.

        Returns:
            `folder`, untouched when it is already there.

        Raises:
            DataError: the registry has no bundle for this version.
        """
        if folder.exists():
            return folder
        run_id = self.version(name, version).run_id
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self.client() as client, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as draft:
            if not client.list_artifacts(run_id, BUNDLE_FOLDER):
                raise DataError(f"{name} version {version}: its run {run_id} holds no bundle; register the build again")
            fetched = Path(client.download_artifacts(run_id, BUNDLE_FOLDER, draft))
            for path in fetched.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            try:
                fetched.rename(folder)
            except OSError:  # another process was faster: its bundle stands, whole
                if not folder.exists():
                    raise
        return folder

    @property
    def _is_server(self) -> bool:
        return self.tracking_uri.startswith(("http://", "https://"))

    def _make_folders(self) -> None:
        if self.tracking_uri.startswith("sqlite:///"):
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)

    def _on(self, name: str, version: int, act: Callable[[Any], object]) -> None:
        self.version(name, version)
        with self.client() as client:
            act(client)

    def _metrics(self, client: Any, name: str, run_ids: list[str]) -> dict[str, dict[str, float]]:
        experiment = client.get_experiment_by_name(name)
        if experiment is None or not run_ids:
            return {}
        wanted = ", ".join(f"'{run_id}'" for run_id in run_ids)
        runs = client.search_runs([experiment.experiment_id], f"attributes.run_id IN ({wanted})", max_results=1000)
        return {run.info.run_id: dict(run.data.metrics) for run in runs}

    def _translated(self, error: Any) -> Exception:
        code, said = str(error.error_code), " ".join(str(error.message).split())
        status = getattr(error, "get_http_status_code", lambda: 500)()
        where = f"{self!r}: {said}"
        if "status code 401" in said or "not authenticated" in said or code == "UNAUTHENTICATED":
            return ConfigError(f"{where}; set OSTEOFLOW_USER and OSTEOFLOW_MLFLOW_PASSWORD")
        if code == "PERMISSION_DENIED" or status == 403 or "error code 403" in said:
            return PromotionRefused(said)
        if code in ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED") or any(word in said for word in _AWAY):
            return Unavailable(f"{self!r} does not answer: {said.split(' (Caused by')[0][:200]}")
        return ConfigError(where)


def _read(found: Any, aliases: dict[str, Any], metrics: dict[str, float]) -> Version:
    tags = found.tags
    return Version(
        name=found.name,
        version=int(found.version),
        run_id=found.run_id or "",
        bundle_hash=tags.get(f"{PREFIX}bundle_hash"),
        verdict=tags.get(f"{PREFIX}verdict"),
        proposer=tags.get(f"{PREFIX}proposer"),
        git_commit=tags.get(f"{PREFIX}git_commit"),
        data_sha256=tags.get(f"{PREFIX}data_sha256"),
        evidence=tags.get(f"{PREFIX}evidence"),
        build_key=tags.get(f"{PREFIX}build_key"),
        rationale=tags.get(RATIONALE),
        ledger_head=tags.get(f"{PREFIX}ledger_head"),
        aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(found.version))),
        metrics=metrics,
        description=found.description or "",
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
    )


def _bundles_in(store: str, name: str) -> dict[int, str]:
    """As `Registry.bundles`, from the two of MLflow's tables that say it; what was deleted there is left out."""
    versions = sql.table("model_versions", *map(sql.column, ("name", "version", "current_stage")))
    tags = sql.table("model_version_tags", *map(sql.column, ("name", "version", "key", "value")))
    query = (
        sql.select(tags.c.version, tags.c.value)
        .join(versions, sql.and_(versions.c.name == tags.c.name, versions.c.version == tags.c.version))
        .where(tags.c.name == name, tags.c.key == f"{PREFIX}bundle_hash", versions.c.current_stage != DELETED)
        .order_by(tags.c.version)
    )
    engine = sql.create_engine(store, poolclass=sql.NullPool)
    with engine.connect() as connection:
        return {int(number): str(value) for number, value in connection.execute(query)}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """MLflow's client takes its login and its patience from the environment alone: set, then restore."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def quiet() -> Iterator[None]:
    """No migration log, no deprecation of MLflow's own making, reaches the reader of a command's output."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
