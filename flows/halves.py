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
from flows.remotes import Remote, data_remote, send_again

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
        ConfigError, Unavailable: the remote does not let itself be asked.
    """
    home = clients.workspace(settings)
    paths = load(home.root / "params.yaml").paths
    remote = data_remote(settings)
    sent = remote.holds() if remote else frozenset()
    found: list[Half] = []
    for folder in (paths.studies, paths.labels):
        found += _of(home, folder, remote, sent)
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


def _of(home: Workspace, folder: Path, remote: Remote | None, sent: frozenset[str]) -> list[Half]:
    place, name = home.root / folder, f"{folder}.dvc"
    found: list[Half] = []
    if drafts := list(place.glob(".*.part")):
        found.append(Half(f"{folder}: {len(drafts)} half-written file(s) of a killed run", lambda: sweep(place)))
    here = {path.name for path in place.glob("*.parquet")}
    listed, named, unread = _named(home, name)
    if unread:
        return [*found, Half(unread)]
    wanted = {*named.values(), *([listed] if listed else [])}
    cached = {md5: path for md5 in wanted if (path := home.cached(md5)).is_file()}
    unsent = wanted - sent if remote else set()
    lost = unsent - cached.keys()
    if lost:
        said = f"{folder}: the bytes of {len(lost)} named file(s) are neither in the cache nor in the remote"
        found.append(
            Half(
                f"{said}; another clone may have them: `osteoflow doctor --repair` there, or go back to an earlier commit"
            )
        )
    elif absent := named.keys() - here:
        found.append(
            Half(
                f"{folder}: {len(absent)} named file(s) are not in this clone; the cache or the remote has them",
                lambda: home.complete([folder]),
            )
        )
    # Not the list while files of it are lost: DVC takes the list for a promise that they are there.
    if remote and (again := {md5: cached[md5] for md5 in unsent - lost if not (lost and md5 == listed)}):
        found.append(
            Half(f"{folder}: {len(again)} named file(s) are not in the remote", lambda: send_again(remote, again))
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


def _named(home: Workspace, name: str) -> tuple[str | None, dict[str, str], str | None]:
    """The list that the pointer in the working tree names, the files in it, and why they cannot be told."""
    if not (home.root / name).is_file():
        return None, {}, None
    try:
        pointer = home.standing(name)
        return pointer.md5, home.listing(pointer), None
    except (yaml.YAMLError, KeyError, TypeError, IndexError):
        return None, {}, f"{name}: not a DVC pointer; `git checkout -- {name}` brings the last one back"
    except DataError:
        return (
            None,
            {},
            f"{name}: the list of its files is not on this machine; `dvc pull {name}` brings it, or nobody has it",
        )
