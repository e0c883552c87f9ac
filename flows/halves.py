"""What a killed run can leave half-done in the archive, how to tell, and the repairs that are always safe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from components.dataset.store import leftovers, shards, sweep, write_catalog
from components.errors import DataError
from components.params import Paths, load
from components.settings import Settings
from components.workspace import Workspace
from components.writer_lock import git_locks
from flows import clients
from flows.patients import exclude, unexcluded
from flows.remotes import Remote, data_remote, send_again
from flows.testset import enter, unentered

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
    for folder in (paths.studies, paths.labels, paths.catalog):
        found += _of(home, folder, remote, sent)
    if home.dirty(str(paths.batches)):
        found.append(
            Half(
                f"{paths.batches}: a batch's record was not committed; a killed run left this: repeat it, or let it be",
                lambda: home.commit_file(paths.batches, "Keep the record of a batch whose intake was interrupted"),
            )
        )
    if missing := {path.name for path in shards(home.root / paths.studies)} - {
        path.name for path in shards(home.root / paths.catalog)
    }:
        found.append(
            Half(
                f"{paths.catalog}: {len(missing)} shard(s) have no entry, so that no build sees them",
                lambda: _catalogued(home, paths),
            )
        )
    if behind := unexcluded(settings):
        found.append(
            Half(
                f"{paths.withdrawals}: {len(behind)} withdrawal(s) on record are not committed there, and no build is "
                "made until they are; for a patient nobody here knows, `osteoflow trace patient --withdraw` does it",
                lambda: exclude(settings),
            )
        )
    if unentered(settings):
        found.append(
            Half(
                f"{paths.retirements}: not the test patients that refreshes on record have retired, and no build is "
                "made until it is",
                lambda: enter(settings),
            )
        )
    if locks := git_locks(home.root):
        names = ", ".join(sorted(lock.name for lock in locks))
        found.append(Half(f"git is locked ({names}): one is at work, or was killed; if none is, remove the file"))
    for folder in (clients.quarantine(settings), settings.state / "reports"):
        found += _drafts(folder, folder.name)
    found += _spools(settings.state / "spool")
    if builds := [path for path in (home.state / "builds").glob("*") if OLD_BUILD.fullmatch(path.name)]:
        found.append(
            Half(
                f"{len(builds)} build clone(s) of an earlier layout take up room in {home.state / 'builds'}",
                lambda: _remove(builds),
            )
        )
    return found


def _catalogued(home: Workspace, paths: Paths) -> None:
    write_catalog(home.root / paths.studies, home.root / paths.catalog)
    home.commit_data([paths.catalog], f"Enter in {paths.catalog} what an interrupted run left out")


def _drafts(folder: Path, name: str) -> list[Half]:
    drafts = leftovers(folder)
    return (
        [Half(f"{name}: {len(drafts)} half-written file(s) of a killed run", lambda: sweep(folder))] if drafts else []
    )


def _spools(folder: Path) -> list[Half]:
    """What killed intakes brought and did not let go: identified files; copies, but for those of the inbox."""
    found = []
    for spool in sorted(folder.glob("*")):
        files = [path for part in ("files", "parts") for path in (spool / part).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        if files and spool.name == "inbox":
            found.append(
                Half(
                    f"spool: a killed intake claimed {len(files)} file(s) from the inbox ({size:.1f} MB), the only "
                    "ones there are; `osteoflow intake` goes on with them"
                )
            )
        elif files:
            found.append(
                Half(
                    f"spool: a killed intake fetched {len(files)} file(s) ({size:.1f} MB), identities included; "
                    "repeat it, and it goes on with them, or let these copies be removed",
                    partial(_remove, [spool]),
                )
            )
    return found


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _of(home: Workspace, folder: Path, remote: Remote | None, sent: frozenset[str]) -> list[Half]:
    place, name = home.root / folder, f"{folder}.dvc"
    found: list[Half] = []
    found += _drafts(place, str(folder))
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
                f"{said}; another clone may have them: `osteoflow doctor --repair` there, or go back to a commit before"
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
