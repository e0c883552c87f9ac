"""A version made again from what is on record alone: its commit, its data in the remote, its lock; then compared.

The clone and DVC's cache are new and thrown away afterwards, so that neither an earlier output nor DVC's memory of
runs can stand in for a training. What was made of the data is fetched, and every byte of it read; the model stages run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from components.commands import run
from components.dataset.store import atomic_path
from components.errors import ConfigError, DataError, PromotionRefused, Unavailable
from components.promotion import evidence, reproduction
from components.promotion.registry import PREFIX
from components.promotion.reproduction import Figure, Part, Recorded, Reproduction
from components.settings import Settings
from components.workspace import Pointer, Workspace
from flows import clients
from flows.builds import wanted
from flows.remotes import data_remote

log = logging.getLogger("osteoflow.reproduce")
MODEL_STAGES = ("train", "calibrate", "export", "evaluate")


def reproduce(settings: Settings, version: int, *, tolerance: float) -> Reproduction:
    """Build `version` again and compare it, part by part, with what its decision record names.

    Nothing is registered, pushed or committed. The ledger keeps what was found (kind `reproduction`), the version's
    page a tag with it, and `<state>/reports/reproduction-<name>-v<N>.json` every part.
    Withdrawals since then do not stop it: what it trains is compared and thrown away (docs/decisions.md).

    Args:
        tolerance: the largest difference of a figure on the sealed test images that counts as the same model.

    Raises:
        ConfigError: no record of this version, no such commit here, or another environment than its lock's.
        DataError: its data are not in the remote.
        Unavailable: another reproduction is at work.
    """
    started, home = time.monotonic(), clients.workspace(settings)
    name = clients.params(settings).gate.model
    record = reproduction.recorded(clients.ledger(settings), name, version)
    what = f"{name} version {version}"
    _require_environment(home, record, what)
    with _apart(home) as apart, apart.building(record.git_commit) as build:
        lock = yaml.safe_load((build.root / "dvc.lock").read_text(encoding="utf-8"))
        parts, figures = _inputs(settings, build, record, lock, what), list[Figure]()
        if all(part.same for part in parts):
            more, figures = _model(build, record)
            parts += more
    found = Reproduction(
        name=name,
        version=version,
        commit=record.git_commit,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        tolerance=tolerance,
        parts=tuple(parts),
        figures=tuple(figures),
        wall_seconds=time.monotonic() - started,
    )
    entry = clients.ledger(settings).append("reproduction", found.body(record, settings.user))
    found = found.model_copy(update={"entry": entry.seq})
    with atomic_path(settings.state / "reports" / f"reproduction-{name}-v{version}.json") as draft:
        draft.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _show(settings, found, entry.time)
    return found


def _show(settings: Settings, found: Reproduction, time: str) -> None:
    """Put the outcome on the version's page; it is shown there, and stands in the ledger whether it is or not."""
    said = f"{found.verdict}, {time[:10]}, ledger entry {found.entry}"
    try:
        clients.registry(settings).tag(found.name, found.version, f"{PREFIX}reproduction", said)
    except (ConfigError, PromotionRefused, Unavailable) as error:  # on a team's server the pipeline alone may
        log.warning("%s version %d: its page does not show the reproduction: %s", found.name, found.version, error)


def _require_environment(home: Workspace, record: Recorded, what: str) -> None:
    """Raises: ConfigError when the commit is gone, or its lock is not what is installed."""
    commit = record.git_commit
    try:
        home.head(commit)
    except ConfigError:
        raise ConfigError(
            f"{what}: its commit {commit[:12]} is not in {home.root}; fetch it from the clone or the server that has it"
        ) from None
    if others := reproduction.strangers(home.text(commit, "uv.lock")):
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        raise ConfigError(
            f"{what}: this environment is not the one of its lock: {', '.join(others[:8])}{more}; check {commit[:12]} "
            "out in another clone, run `uv sync --frozen` there, and repeat with that environment"
        )


@contextmanager
def _apart(home: Workspace) -> Iterator[Workspace]:
    """`home` with an empty state, so with a clone and a cache of its own; gone afterwards, also what a kill left."""
    folder = home.state / "reproduction"
    with folder.with_suffix(".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"{folder}: another reproduction is at work; repeat when it has ended") from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield replace(home, state=folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _inputs(settings: Settings, build: Workspace, record: Recorded, lock: dict[str, Any], what: str) -> list[Part]:
    """Fetch what the model is made from, and what it was; compare the first with record, lock and pointers."""
    paths = _paths(build)
    names = [f"{paths[data]}.dvc" for data in ("studies", "labels")]
    stated = evidence.pointers({name: build.text("HEAD", name) for name in names if (build.root / name).is_file()})
    parts = [
        Part(what="environment lock", recorded=record.lock_sha256, found=build.sha256("uv.lock")),
        Part(what="data pointers", recorded=record.data_sha256, found=hashlib.sha256(stated).hexdigest()),
    ]
    pointers = {paths[data]: build.pointer("HEAD", f"{paths[data]}.dvc").md5 for data in ("labels", "catalog")}
    outs = reproduction.outputs(lock) | {path: md5 for path, md5 in pointers.items() if md5}
    _require_data(settings, outs, what)
    try:
        build.bring([Path(path) for path in outs])
        sealed = wanted(build, "sealed")
        build.fetch(Path(paths["studies"]), sealed)
    except DataError as error:
        raise DataError(f"{what}: its data cannot be had from {settings.remote_url}: {error}") from None
    made = build.sha256(f"{paths['bundle']}/manifest.json")
    parts.append(Part(what="bundle in the remote", recorded=record.bundle_hash, found=made))
    for path in sorted(outs.keys() - reproduction.outputs(lock, frozenset(MODEL_STAGES)).keys()):
        parts.append(_read(build, path, outs[path]))
    named = build.listing(build.pointer("HEAD", f"{paths['studies']}.dvc"))
    images = reproduction.intact(build.root / paths["studies"], "", {shard: named[shard] for shard in sealed})
    return [*parts, images.model_copy(update={"what": "sealed test images"}), *_stages(build)]


def _require_data(settings: Settings, outs: dict[str, str], what: str) -> None:
    """Raises: DataError when a list or a file that dvc.lock or a pointer names is not in the remote."""
    remote = data_remote(settings)
    if remote is None:
        return  # a kind that DVC alone can ask
    there = remote.holds()
    if gone := sorted(path for path, md5 in outs.items() if md5 not in there):
        raise DataError(
            f"{what}: {len(gone)} of the {len(outs)} outputs and data it was made from are not in "
            f"{settings.remote_url}: {', '.join(gone)}; run `osteoflow doctor --repair` in a clone that has them"
        )


def _read(build: Workspace, path: str, md5: str) -> Part:
    listed = build.listing(Pointer(md5, 0, 0)) if md5.endswith(".dir") else None
    return reproduction.intact(build.root / path, md5, listed).model_copy(update={"what": path})


def _stages(build: Workspace) -> Iterator[Part]:
    """Whether dvc.lock is about this commit: its parameters, code and small files are what it says they were."""
    said = _dvc(build, "status", "--json", "dvc.yaml")
    parameters, code = [], []
    for stage, findings in json.loads(said[said.index("{") :]).items():
        for finding in findings:
            if isinstance(finding, str):
                code.append(f"{stage}: {finding}")
                continue
            for path, how in (change for changes in finding.values() for change in changes.items()):
                if isinstance(how, dict):
                    parameters += [f"{stage}: {key}" for key in how]
                else:
                    code.append(f"{stage}: {path}")
    for what, changed in (("parameters", parameters), ("code and files in git", code)):
        yield Part(what=what, recorded="as locked", found=f"changed ({', '.join(changed)})" if changed else "as locked")


def _model(build: Workspace, record: Recorded) -> tuple[list[Part], list[Figure]]:
    """Set what was made aside, make it again, compare."""
    paths = _paths(build)
    names = ("trained", "calibration", "bundle")
    before = build.state / "recorded"
    for name in (*names, "evaluation"):
        (before / paths[name]).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(build.root / paths[name], before / paths[name])
    for stage in MODEL_STAGES:
        _dvc(build, "repro", "--force", "--single-item", "--no-run-cache", "--no-commit", stage)
    then = dict(reproduction.made(*(before / paths[name] for name in names))) | {"bundle": record.bundle_hash}
    now = dict(reproduction.made(*(build.root / paths[name] for name in names)))
    was, is_ = (reproduction.figures(root / paths["evaluation"]) for root in (before, build.root))
    parts = [Part(what=what, recorded=then[what], found=now[what]) for what in now]
    parts.append(Part(what="figures", recorded=json.dumps(was), found=json.dumps(is_)))
    return parts, [Figure(name=name, recorded=was[name], found=is_[name]) for name in was]


def _paths(build: Workspace) -> dict[str, str]:
    """As the revision has them; the rest of its parameters is for its own code to read."""
    return dict(yaml.safe_load((build.root / "params.yaml").read_text(encoding="utf-8"))["paths"])


def _dvc(build: Workspace, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return run(command, name="dvc", root=build.root, level=logging.INFO, environment={})
