"""What a killed run can leave half-done in the archive, how to tell, and the repairs that are always safe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.dataset.store import sweep
from components.errors import DataError
from components.params import load
from components.settings import Settings
from components.workspace import Workspace
from flows import clients

OLD_BUILD = re.compile(r"[0-9a-f]{12}(\.partial)?")  # builds once had a clone each, and kept it


@dataclass(frozen=True)
class Half:
    """A half state. what: seen, and what it means. mend: the safe repair; None where a person must decide."""

    what: str
    mend: Callable[[], object] | None = None


def halves(settings: Settings) -> list[Half]:
    """Every half state of this workspace's archive, in the order in which repairing helps.

    Raises:
        DataError: a pointer cannot be read.
    """
    home = clients.workspace(settings)
    paths = load(home.root / "params.yaml").paths
    found: list[Half] = []
    for folder in (paths.studies, paths.labels):
        found += _of(home, folder)
    if builds := [path for path in (home.state / "builds").glob("*") if OLD_BUILD.fullmatch(path.name)]:
        found.append(
            Half(
                f"{len(builds)} build clone(s) of an earlier layout take up room in {home.state / 'builds'}",
                lambda: _remove(builds),
            )
        )
    return found


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _of(home: Workspace, folder: Path) -> list[Half]:
    place, name = home.root / folder, f"{folder}.dvc"
    found: list[Half] = []
    if drafts := list(place.glob(".*.part")):
        found.append(Half(f"{folder}: {len(drafts)} half-written file(s) of a killed run", lambda: sweep(place)))
    here = {path.name for path in place.glob("*.parquet")}
    named, unread = _named(home, name)
    if unread:
        return [*found, Half(unread)]
    lost = [md5 for md5 in named.values() if not _anywhere(home, md5)]
    if lost:
        said = f"{folder}: the bytes of {len(lost)} named file(s) are neither in the cache nor in the remote"
        found.append(Half(f"{said}; another clone may have them: `dvc push` there, or return to an earlier commit"))
    elif absent := named.keys() - here:
        found.append(
            Half(
                f"{folder}: {len(absent)} named file(s) are not in this clone; the remote has them",
                lambda: home.complete([folder]),
            )
        )
    unpushed = [md5 for md5 in named.values() if _remote_lacks(home, md5) and md5 not in lost]
    if unpushed:
        found.append(
            Half(
                f"{folder}: {len(unpushed)} named file(s) are not in the remote yet",
                lambda: home.push(name),
            )
        )
    new, moved = here - named.keys(), home.dirty(name)
    if (new or moved) and not lost:
        said = f"{len(new)} shard(s) are in no version" if new else "the pointer moved and was not committed"
        found.append(
            Half(
                f"{folder}: {said}; a killed run left this: repeat it, or let this be versioned as it is",
                lambda: home.commit_data([folder], f"Version what an interrupted run left in {folder}"),
            )
        )
    return found


def _named(home: Workspace, name: str) -> tuple[dict[str, str], str | None]:
    """The files that the pointer in the working tree names, and why they cannot be told."""
    if not (home.root / name).is_file():
        return {}, None
    try:
        return home.listing(home.standing(name)), None
    except (yaml.YAMLError, KeyError, TypeError, IndexError):
        return {}, f"{name}: not a DVC pointer; `git checkout -- {name}` brings the last one back"
    except DataError:
        return (
            {},
            f"{name}: the list of its files is not on this machine; `dvc pull {name}` brings it, or nobody has it",
        )


def _anywhere(home: Workspace, md5: str) -> bool:
    if "://" in home.remote:
        return True  # a store is asked by `dvc pull`, not here
    try:
        home.stored(md5)
    except DataError:
        return False
    return True


def _remote_lacks(home: Workspace, md5: str) -> bool:
    if "://" in home.remote:
        return False
    return not (Path(home.remote) / "files" / "md5" / md5[:2] / md5[2:]).is_file()
