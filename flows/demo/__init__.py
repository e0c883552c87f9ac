"""The whole mission in small: phantoms from one site, a champion, a new site with another detector, and round again.

Everything runs through the real flows, servers and files, in a workspace of its own under `.osteoflow/demo`: a clone
of this clone, with its own history, state and keys. The clone it started from is neither changed nor committed to.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from components.errors import ConfigError
from components.radiograph.deidentify import KEY_FILE
from components.settings import Settings, load_settings


def demo() -> None:
    """Start clean and run the loop once; ends with a table and a state that `osteoflow up` serves."""
    clone = load_settings().workspace
    root = clone / ".osteoflow" / "demo"
    _make_workspace(clone, root)
    _make_key(root.parent / "demo-keys")
    settings = settings_of(root)
    from flows.demo.loop import run

    run(settings)


def settings_of(root: Path) -> Settings:
    """Settings of a demo workspace, whatever the environment says: the demo never touches a team's servers.

    The process moves into the workspace and forgets every OSTEOFLOW_ variable but addresses to listen on.
    """
    for name in list(os.environ):
        listens = name.endswith("_PORT") or name == "OSTEOFLOW_HOST"
        if (name.startswith("OSTEOFLOW_") and not listens) or name.startswith("PREFECT_"):
            del os.environ[name]
    os.chdir(root)
    os.environ["OSTEOFLOW_WORKSPACE"] = str(root)
    os.environ["OSTEOFLOW_KEY_DIR"] = str(root.parent / "demo-keys")
    os.environ["OSTEOFLOW_USER"] = "engineer"
    return load_settings()


def _make_workspace(clone: Path, root: Path) -> None:
    """A fresh clone of the last commit of `clone`, tied to nothing, with the demo's parameters committed.

    Raises:
        ConfigError: `clone` is not an Osteoflow repository.
    """
    from flows.demo.parameters import write

    if not (clone / ".git").exists() or not (clone / "dvc.yaml").is_file():
        raise ConfigError(f"{clone}: not an Osteoflow repository; run `osteoflow demo` inside your clone")
    shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(root.parent / "demo-keys", ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    _git(root.parent, "clone", "--quiet", "--no-hardlinks", str(clone), str(root))
    _git(root, "remote", "remove", "origin")
    _git(root, "checkout", "--quiet", "-B", "main")
    for name, value in (("user.name", "engineer"), ("user.email", "engineer@localhost")):
        _git(root, "config", name, value)
    pointers = ("data/studies.dvc", "data/labels.dvc", "data/catalog.dvc", "data/batches/*.json", "dvc.lock")
    _git(root, "rm", "--quiet", "--ignore-unmatch", *pointers)  # the demo starts from an empty archive
    write(root / "params.yaml")
    _git(
        root,
        "commit",
        "--quiet",
        "--all",
        "-m",
        "Demo: an empty archive, and parameters that fit phantoms and a few minutes",
    )


def _make_key(folder: Path) -> None:
    """A pseudonym key that is the same every time, so that the demo deals the same patients to the same roles.

    A real site's key is random and secret; the phantoms have nothing to keep.
    """
    folder.mkdir(mode=0o700)
    key = folder / KEY_FILE
    key.write_bytes(hashlib.sha256(b"osteoflow demo").digest())
    key.chmod(0o600)


def _git(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"git {arguments[0]} failed in {folder}: {done.stderr.strip()}")
