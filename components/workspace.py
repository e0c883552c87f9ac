"""The repository as a place: git and DVC through their own command lines, one writer at a time.

A workspace is a clone of the Osteoflow repository: it owns params.yaml, the data pointers and dvc.lock. Data bytes
live in a DVC remote; every clone made on this machine shares one DVC cache, so a build copies nothing it has.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import yaml

from components import writer_lock
from components.commands import run
from components.errors import ConfigError, DataError

log = logging.getLogger("osteoflow.workspace")


@dataclass(frozen=True)
class Change:
    """A commit. time: ISO 8601, as committed."""

    commit: str
    time: str
    subject: str
    body: str


@dataclass(frozen=True)
class Pointer:
    """What a DVC pointer says: the MD5 of its listing (None: there is no pointer), how many files, how many bytes."""

    md5: str | None
    files: int
    bytes: int


@dataclass(frozen=True)
class Workspace:
    """A git repository with DVC pointers.

    Attributes:
        root: the repository's top folder.
        state: folder of this workspace's own state (cache, builds, lock); git-ignored.
        remote: DVC remote, a folder or an s3:// URL.
        endpoint: S3 endpoint URL, None for AWS's own.
        checksums: botocore's `request_checksum_calculation`; `when_required` for older S3-compatible stores.
        author: who commits.
    """

    root: Path
    state: Path
    remote: str
    author: str
    endpoint: str | None = None
    checksums: str = "when_supported"

    def open(self) -> Workspace:
        """Check that this is an Osteoflow repository and point its DVC at the cache and the remote.

        Raises:
            ConfigError: `root` is not the top of a git repository with a dvc.yaml.
        """
        if not (self.root / ".git").exists() or not (self.root / "dvc.yaml").is_file():
            raise ConfigError(f"{self.root}: not an Osteoflow repository (no .git or dvc.yaml); run inside your clone")
        self.state.mkdir(parents=True, exist_ok=True)
        local = [
            "[cache]",
            f"    dir = {self.state / 'cache'}",
            "[core]",
            "    remote = storage",
            "    analytics = false",
            "    check_update = false",
            "['remote \"storage\"']",
            f"    url = {self.remote}",
        ]
        if self.endpoint and self.remote.startswith("s3:"):  # a folder takes no endpoint, and DVC says so by failing
            local.append(f"    endpointurl = {self.endpoint}")
        # config.local is git-ignored: where the bytes live belongs to the machine, not to the history.
        (self.root / ".dvc" / "config.local").write_text("\n".join(local) + "\n", encoding="utf-8")
        return self

    def head(self, rev: str = "HEAD") -> str:
        """The full commit hash of `rev`.

        Raises:
            ConfigError: there is no such revision.
        """
        try:
            return self._git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}").strip()
        except DataError:
            raise ConfigError(f"{rev}: no such revision in {self.root}; see `git log`") from None

    def commit_data(self, folders: list[Path], message: str, files: Sequence[Path] = ()) -> str | None:
        """Version `folders` with DVC, push their bytes, and commit the moved pointers.

        Safe to repeat after a kill at any point: bytes reach the remote before the commit that names them.

        Args:
            files: small files that git itself keeps, and that belong to the same version.

        Returns:
            The commit, or None when nothing had changed.

        Raises:
            Unavailable: another process holds DVC's lock, or the remote does not answer.
        """
        present = [str(folder) for folder in folders if (self.root / folder).is_dir()]
        kept = [str(file) for file in files]
        if not present:
            return None
        with self.writing():
            self.complete([folder for folder in folders if str(folder) in present])
            self._dvc("add", "--quiet", *present)
            pointers = [f"{folder}.dvc" for folder in present]
            if not self._git("status", "--porcelain", "--", *pointers, *kept).strip():
                return None
            self._dvc("push", "--quiet", *pointers)
            self._git("add", "--", *pointers, *kept)
            self._commit(message, [*pointers, *kept])
            return self.head()

    def complete(self, folders: list[Path]) -> None:
        """Bring what the pointers of `folders` name and these folders lack: else the next pointer would forget it.

        Raises:
            Unavailable: the remote does not answer.
            DataError: bytes are nowhere, or a folder is half here and cannot be completed.
        """
        for folder in folders:
            name = f"{folder}.dvc"
            present = {
                str(path.relative_to(self.root / folder)) for path in (self.root / folder).rglob("*") if path.is_file()
            }
            if not (self.root / name).is_file():
                continue
            pointer = self.standing(name)
            try:
                missing = sorted(self.listing(pointer).keys() - present)
            except DataError:  # the list itself is not on this machine
                missing = [] if len(present) >= pointer.files else ["."]
            if missing:
                log.info("%s: fetching %d file(s) that the pointer names and this clone lacks", folder, len(missing))
                whole = not present or missing == ["."]
                self._dvc("pull", "--quiet", *([name] if whole else [str(folder / one) for one in missing]))

    def dirty(self, name: str) -> bool:
        """Whether `name` differs from its last commit, or has none."""
        return bool(self._git("status", "--porcelain", "--", name).strip())

    def standing(self, name: str) -> Pointer:
        """The pointer `name` as it lies in the working tree."""
        return self._pointer((self.root / name).read_text(encoding="utf-8"))

    def commit_file(self, path: Path, message: str) -> str | None:
        """Commit one file (or a folder) that git itself keeps; return the commit, or None when nothing had changed."""
        with self.writing():
            if not self._git("status", "--porcelain", "--", str(path)).strip():
                return None
            self._git("add", "--", str(path))
            self._commit(message, [str(path)])
            return self.head()

    def unversioned(self, folders: list[Path]) -> frozenset[Path]:
        """The files in `folders` that HEAD's pointers do not name; none where a pointer's list is not here to tell."""
        found: set[Path] = set()
        for folder in folders:
            try:
                named = self.listing(self.pointer("HEAD", f"{folder}.dvc"))
            except DataError:
                continue
            found |= {path for path in (self.root / folder).glob("*") if path.name not in named}
        return frozenset(found)

    def pointed(self, folder: Path) -> int:
        """How many files the DVC pointer of `folder` names; 0 without one."""
        pointer = (self.root / folder).with_name(f"{folder.name}.dvc")
        if not pointer.is_file():
            return 0
        return int(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0].get("nfiles", 0))

    def changes(self, paths: list[str], limit: int) -> list[Change]:
        """The newest `limit` commits that touched `paths`, newest first."""
        form = "%H%x1f%cI%x1f%s%x1f%b%x1e"
        said = self._git("log", f"--max-count={limit}", f"--format={form}", "--", *paths)
        parts = [entry.strip("\n").split("\x1f") for entry in said.split("\x1e") if entry.strip("\n")]
        return [Change(commit, time, subject, body.strip()) for commit, time, subject, body in parts]

    def text(self, rev: str, path: str) -> bytes:
        """A text file as `rev` has it. Raises: DataError when it has none."""
        return self._git("show", f"{rev}:{path}").encode()

    def intact(self, commits: Collection[str]) -> int:
        """Let git rehash every object of the repository; return how many of `commits` are in it.

        Raises:
            DataError: an object is damaged, or a commit is missing.
        """
        self._git("fsck", "--full", "--no-dangling", "--no-progress")
        for commit in commits:
            self._git("cat-file", "-e", f"{commit}^{{commit}}")
        return len(commits)

    def proof(self, commit: str, paths: Collection[str]) -> dict[str, bytes]:
        """What ties `paths` to the hash `commit` without a repository: the commit, and the trees down to each path.

        Returns:
            "commit" -> the commit object; "tree", "trees/data.tree", ... -> what `git ls-tree -z` lists there.
        """
        folders = sorted({parent for path in paths for parent in map(str, Path(path).parents)})
        trees = {
            "tree" if folder == "." else f"trees/{folder}.tree":
            self._git("ls-tree", "-z", f"{commit}:{'' if folder == '.' else folder}").encode()
            for folder in folders
        }  # fmt: skip
        return {"commit": self._git("cat-file", "commit", commit).encode()} | trees

    def pointer(self, rev: str, path: str) -> Pointer:
        """The DVC pointer `path` as `rev` has it; an empty one where it has none."""
        try:
            return self._pointer(self.text(rev, path))
        except DataError:
            return Pointer(None, 0, 0)

    @staticmethod
    def _pointer(text: str | bytes) -> Pointer:
        out = yaml.safe_load(text)["outs"][0]
        return Pointer(str(out["md5"]), int(out.get("nfiles", 0)), int(out.get("size", 0)))

    def listing(self, pointer: Pointer) -> dict[str, str]:
        """The files a pointer names: name -> MD5.

        Raises:
            DataError: the listing is neither in the cache nor in a remote folder.
        """
        if pointer.md5 is None:
            return {}
        entries = json.loads(self.stored(pointer.md5).read_text(encoding="utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in entries}

    def cached(self, md5: str) -> Path:
        """Where DVC's cache keeps the bytes of an MD5, if it has them."""
        return self.state / "cache" / "files" / "md5" / md5[:2] / md5[2:]

    def stored(self, md5: str) -> Path:
        """Where the bytes of an MD5 are on this machine: in DVC's cache, or in a remote that is a folder.

        Raises:
            DataError: nowhere.
        """
        places = [self.cached(md5), Path(self.remote) / "files" / "md5" / md5[:2] / md5[2:]]
        for found in places:
            if found.is_file():
                return found
        raise DataError(f"{md5[:12]}: these bytes are not on this machine; `dvc fetch --all-commits` brings them")

    @contextmanager
    def building(self, rev: str) -> Iterator[Workspace]:
        """A clone at `rev` under the state folder, this caller's alone until the block ends.

        The clone of an earlier build is taken up again where nobody is using it: what it holds need not be copied
        once more, so that a build costs what is new, and builds do not pile up.
        """
        commit = self.head(rev)
        for number in itertools.count(1):
            with (self.state / f"build-{number}.lock").open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # another build is at work there
                    continue
                yield self._clone(self.state / "builds" / f"{number}", commit).open()
                return

    def _clone(self, folder: Path, commit: str) -> Workspace:
        clone = Workspace(folder, self.state, self.remote, self.author, self.endpoint, self.checksums)
        if not (folder / ".git").exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            self._git("clone", "--quiet", "--no-checkout", str(self.root), str(partial))
            partial.rename(folder)
        (folder / ".git" / "index.lock").unlink(missing_ok=True)  # of a killed build: this one is alone here
        clone._git("fetch", "--quiet", "--no-tags", str(self.root), commit)
        clone._git("checkout", "--quiet", "--force", "-B", "build", commit)
        return clone

    def restore(self, folders: list[Path]) -> None:
        """Bring what the stages made before, and what the pointers of `folders` name, and nothing else.

        Incremental stages continue from what earlier builds made; what a killed one left half-made is replaced.
        """
        pointers = [f"{folder}.dvc" for folder in folders if (self.root / f"{folder}.dvc").is_file()]
        self._dvc("pull", "--quiet", "--force", "--allow-missing", "dvc.yaml", *pointers)

    def fetch(self, folder: Path, names: Collection[str]) -> None:
        """Bring the named files of `folder`, as its pointer has them; others are left where they are.

        Raises:
            DataError: their bytes are nowhere.
        """
        if not names:
            return
        whole = len(names) == self.pointed(folder)
        self._dvc("pull", "--quiet", "--force", *([f"{folder}.dvc"] if whole else [str(folder / n) for n in names]))

    def bring(self, outputs: Collection[Path]) -> None:
        """Check out what the stages of this revision made at `outputs`, from the cache or the remote.

        Raises:
            DataError: dvc.lock does not name them, or their bytes are nowhere.
        """
        self._dvc("pull", "--quiet", *map(str, outputs))

    def ask(self, module: str, *words: str) -> list[str]:
        """What `python -m module words` of this revision's own code prints, by line."""
        return self._run([sys.executable, "-m", module, *words], module, logging.DEBUG).split()

    def make(self, *stages: str) -> None:
        """Run the stages whose inputs changed, all or those that lead to `stages`; nothing is pushed or committed.

        A line of a stage's output is a log record of `osteoflow.workspace`. A stage's own error comes back as the
        class the stage raised.
        """
        self._dvc("repro", "--pull", *stages)

    def lock(self) -> str:
        """Push what the stages made, commit dvc.lock; return that commit."""
        self._dvc("push", "--quiet", "dvc.yaml")
        if self._git("status", "--porcelain", "--", "dvc.lock").strip():
            self._git("add", "--", "dvc.lock")
            self._commit("Lock the build: what these data and parameters made", ["dvc.lock"])
        return self.head()

    def adopt(self, build: Workspace) -> str:
        """Bring the build's commit home: always as branch `build/<commit>`, and as the tip if that fast-forwards."""
        commit = build.head()
        with self.writing():
            self._git("fetch", "--quiet", "--no-tags", str(build.root), f"+{commit}:refs/heads/build/{commit[:12]}")
            try:
                self._git("merge", "--quiet", "--ff-only", commit)
            except DataError:
                log.info("the branch has moved on; build %s is kept as build/%s", commit[:12], commit[:12])
        return commit

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold this workspace's writer lock; who holds it already goes on, so that a whole job can be one section.

        Raises:
            Unavailable: another writer kept it for longer than ten minutes.
        """
        with writer_lock.writing(self._lock, self.root):
            yield

    def busy(self) -> bool:
        """Whether a writer is at work."""
        return writer_lock.busy(self._lock)

    @property
    def _lock(self) -> Path:
        return self.state / "writer.lock"

    def _commit(self, message: str, paths: list[str]) -> None:
        unnamed = ["-c", f"user.name={self.author}", "-c", "user.email=osteoflow@localhost"]
        identity = [] if self._configured("user.email") else unnamed
        self._git(*identity, "commit", "--quiet", "-m", message, "--", *paths)

    def _configured(self, key: str) -> bool:
        try:
            return bool(self._git("config", "--get", key).strip())
        except DataError:
            return False

    def _git(self, *arguments: str) -> str:
        return self._run(["git", *arguments], "git", logging.DEBUG)

    def _dvc(self, *arguments: str) -> str:
        return self._run([sys.executable, "-m", "dvc", *arguments], "dvc", logging.INFO)

    def _run(self, command: list[str], name: str, level: int) -> str:
        environment = {"AWS_REQUEST_CHECKSUM_CALCULATION": self.checksums}
        with writer_lock.at_work(self._lock, name) as handles:
            return run(command, name=name, root=self.root, level=level, environment=environment, handles=handles)

    def sha256(self, path: str) -> str:
        """SHA-256 of one file of the workspace, as hex."""
        return sha256((self.root / path).read_bytes()).hexdigest()
