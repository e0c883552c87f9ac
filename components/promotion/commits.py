"""Noun: git's own arithmetic, so that files can be tied to a commit's hash where there is no repository.

A commit object names a tree, a tree names the blobs and trees below it, each by the hash of its content: from the
commit's hash down to a file nothing can be changed unseen.

Source: git-hash-object(1), git-ls-tree(1); gitformat-pack(5), object types.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from components.errors import DataError


def git_hash(kind: str, content: bytes, like: str) -> str:
    """The hash git gives an object; SHA-1, or SHA-256 where `like`, a hash of the same repository, is longer."""
    digest = hashlib.new("sha1" if len(like) == 40 else "sha256", usedforsecurity=False)
    digest.update(f"{kind} {len(content)}\0".encode() + content)
    return digest.hexdigest()


def tied(folder: Path, commit: str) -> dict[str, bytes]:
    """The files of an exported commit, each proved to be what `commit` has.

    Args:
        folder: commit, tree and trees/ as `Workspace.proof` gives them, and files/ with the files at their paths.

    Returns:
        Path in the repository -> content.

    Raises:
        DataError: something is missing or is not what the hash above it says; the message names it.
    """
    head = _read(folder / "commit")
    _match(folder / "commit", git_hash("commit", head, commit), commit)
    trees = {".": _tree(folder / "tree", head.split(b"\n", 1)[0].removeprefix(b"tree ").decode(), commit)}
    found = {}
    for path in sorted(p for p in (folder / "files").rglob("*") if p.is_file()):
        name = PurePosixPath(path.relative_to(folder / "files").as_posix())
        for parent in reversed([p for p in name.parents if str(p) not in trees]):
            listed = folder / "trees" / f"{parent}.tree"
            trees[str(parent)] = _tree(listed, trees[str(parent.parent)].get(parent.name, "nothing"), commit)
        content = _read(path)
        _match(path, git_hash("blob", content, commit), trees[str(name.parent)].get(name.name, "nothing"))
        found[str(name)] = content
    return found


def _tree(path: Path, expected: str, commit: str) -> dict[str, str]:
    """The names in a listed tree with their hashes, once the listing is proved to be the tree `expected`."""
    names, content = {}, b""
    for line in _read(path).split(b"\0")[:-1]:
        try:
            facts, name = line.split(b"\t", 1)
            mode, _, digest = facts.split(b" ")
            content += mode.lstrip(b"0") + b" " + name + b"\0" + bytes.fromhex(digest.decode())
        except ValueError:
            raise DataError(f"{path}: not a listing of `git ls-tree -z`") from None
        names[name.decode(errors="replace")] = digest.decode()
    _match(path, git_hash("tree", content, commit), expected)
    return names


def _match(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(f"{path}: git hash {found[:12]}, expected {expected[:12]}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise DataError(f"{path}: missing") from None
