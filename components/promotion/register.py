"""Effect: put a finished build into the registry, once: parameters, figures, curves, report, bundle, a new version.

Nothing is decided here: the new version becomes `challenger`, and the gate judges it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from components.errors import BundleCorrupt, ConfigError, DataError
from components.params import load
from components.promotion.registry import BUNDLE_FOLDER, CHALLENGER, CHAMPION, PREFIX, Registry, Version

__all__ = ["Build", "Registry", "Version", "register"]

MANIFEST = "manifest.json"
# MLflow keeps at most 36 characters of a data set's digest; the whole one is a tag beside it.
DIGEST_CHARACTERS = 32
MAX_PARAM_CHARACTERS = 6000
BATCH = 900


class Build(BaseModel):
    """What a build is: the same code, parameters and data make the same `key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(min_length=1, description="idempotency key: hash of what went in")
    git_commit: str
    folder: Path = Field(description="the clone the build was made in: params.yaml, models/, reports/")
    lock_sha256: str = Field(description="hash of the environment's lock file")
    data_sha256: str = Field(description="hash of the data pointers")
    wall_seconds: float = Field(ge=0)


def register(*, registry: Registry, name: str, bundle: Path, evaluation: Path, build: Build, proposer: str) -> int:
    """Register `build` as a new version of `name` with the alias `challenger`; the same build again changes nothing.

    A run that was killed half-way is closed and a new one made; a version is made only after everything is logged.

    Args:
        bundle: the release bundle's folder.
        evaluation: folder with evaluation.json, report.html and, of builds that have one, model_card.xml.
        proposer: who asked for the build; nobody approves their own.

    Returns:
        The version's number.

    Raises:
        DataError: bundle or evaluation is incomplete.
        Unavailable: the registry does not answer.
    """
    bundle_hash = verified_hash(bundle)
    judged = _json(evaluation / "evaluation.json")
    metrics = dict(_metrics(judged))
    tags = _tags(build, proposer, bundle_hash) | {f"{PREFIX}evidence": str(judged.get("evidence", "not stated"))}
    existing = next((v for v in registry.versions(name) if v.build_key == build.key), None)
    if existing is None:
        run_id = _run(registry, name, bundle, evaluation, build, tags, metrics)
        number = _version(registry, name, run_id, tags)
    else:
        number = existing.version
    newest = registry.versions(name)[0]
    if newest.version == number and CHAMPION not in newest.aliases:
        registry.set_alias(name, number, CHALLENGER)
    return number


def verified_hash(bundle: Path) -> str:
    """The bundle's identity, SHA-256 of its manifest's bytes, once every part matches that manifest.

    Raises:
        BundleCorrupt: no manifest, or a part is missing or another one.
    """
    try:
        raw = (bundle / MANIFEST).read_bytes()
        parts = dict(json.loads(raw)["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleCorrupt(f"{bundle}: no {MANIFEST} that names its parts; run `export`") from None
    for name, expected in parts.items():
        try:
            found = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
        except OSError:
            raise BundleCorrupt(f"{bundle}: {name} is missing; run `export`") from None
        if found != expected:
            raise BundleCorrupt(f"{bundle}: {name} is {found[:12]}, the manifest says {expected[:12]}")
    return hashlib.sha256(raw).hexdigest()


def _tags(build: Build, proposer: str, bundle_hash: str) -> dict[str, str]:
    facts = {
        "build_key": build.key,
        "bundle_hash": bundle_hash,
        "proposer": proposer,
        "git_commit": build.git_commit,
        "lock_sha256": build.lock_sha256,
        "data_sha256": build.data_sha256,
    }
    return {f"{PREFIX}{key}": value for key, value in facts.items()}


def _run(
    registry: Registry,
    name: str,
    bundle: Path,
    evaluation: Path,
    build: Build,
    tags: dict[str, str],
    metrics: dict[str, float],
) -> str:
    """A finished run of this build: the one that is there, or a new one."""
    experiment = registry.experiment(name)
    with registry.client() as client:
        for run in client.search_runs([experiment], f"tags.`{PREFIX}build_key` = '{build.key}'"):
            if run.info.status == "FINISHED":
                return str(run.info.run_id)
            client.set_terminated(run.info.run_id, status="KILLED")
        named, code = f"build-{build.git_commit[:12]}", {"mlflow.source.git.commit": build.git_commit}
        run_id = str(client.create_run(experiment, run_name=named, tags=tags | code).info.run_id)
        _log_figures(client, run_id, build, metrics)
        _log_data(client, run_id, build)
        for file in ("evaluation.json", "report.html", "model_card.xml"):
            if (evaluation / file).is_file():
                client.log_artifact(run_id, str(evaluation / file), "evaluation")
        client.log_artifacts(run_id, str(bundle), BUNDLE_FOLDER)
        client.set_terminated(run_id, status="FINISHED")
    return run_id


def _log_figures(client: Any, run_id: str, build: Build, metrics: dict[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    params = [Param(key, value[:MAX_PARAM_CHARACTERS]) for key, value in _params(build.folder)]
    points = [Metric(key, value, now, 0) for key, value in metrics.items()]
    points += [Metric(key, value, now, step) for key, value, step in _curves(build.folder)]
    points.append(Metric("build_wall_seconds", build.wall_seconds, now, 0))
    client.log_batch(run_id, params=params)
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])


def _log_data(client: Any, run_id: str, build: Build) -> None:
    """The data set's lineage. MLflow's own digest hashes 10,000 rows to 32 bits; ours is the pointers' SHA-256."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name="studies and labels",
        digest=build.data_sha256[:DIGEST_CHARACTERS],
        source_type="dvc",
        source=json.dumps({"git_commit": build.git_commit, "pointers": ["data/studies.dvc", "data/labels.dvc"]}),
    )
    tags = [InputTag("mlflow.data.context", "training"), InputTag(f"{PREFIX}sha256", build.data_sha256)]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset=dataset, tags=tags)])


def _version(registry: Registry, name: str, run_id: str, tags: dict[str, str]) -> int:
    from mlflow.exceptions import MlflowException

    with registry.client() as client:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run_id).info.artifact_uri}/{BUNDLE_FOLDER}"
        return int(client.create_model_version(name, source=source, run_id=run_id, tags=tags).version)


def _params(folder: Path) -> Iterator[tuple[str, str]]:
    """Every choice in the build's params.yaml as (dotted key, value); paths are no choices."""
    raw = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for section, values in raw.items():
        if section != "paths":
            yield from _flat(values, section)


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}")
    else:
        yield key, json.dumps(value) if isinstance(value, list) else str(value)


def _metrics(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of evaluation.json as (dotted key, value); an estimate's own value goes by the estimate's name.

    Lists (curves, slices) stay in the artifact.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            plain = re.sub(r"[^A-Za-z0-9_. /-]", "_", str(name))
            yield from _metrics(inner, key if key and name == "value" else f"{key}.{plain}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield key, float(value)


def _curves(folder: Path) -> Iterator[tuple[str, float, int]]:
    """Learning curves of history.json as (key, value, epoch from 1)."""
    try:
        path = folder / load(folder / "params.yaml").paths.trained / "history.json"
    except ConfigError as error:
        raise DataError(f"the build's own parameters cannot be read: {error}") from None
    if not path.is_file():
        return
    for epoch in _json(path):
        group = "_".join(f"{which}_{epoch[which]}" for which in ("fold", "network") if which in epoch) or "epoch"
        for key, value in _metrics(epoch):
            if key not in ("epoch", "fold", "network"):
                yield f"{group}.{key}", value, epoch["epoch"]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{path}: missing or not JSON; run `evaluate`") from None
