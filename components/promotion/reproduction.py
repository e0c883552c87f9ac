"""Noun: a version that was built again, beside what stands on record: what is the same, and what differs first.

A build goes from record to figures: data and parameters, arrays, weights, calibration, bundle, figures on the sealed
test images. Where an early part differs, a later one has nothing to say, so the first difference is the finding.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import ConfigError, DataError
from components.promotion.ledger import Ledger
from components.promotion.standing import record_of

PROJECT = "osteoflow"
FIGURES = ("auroc", "auprc", "sensitivity", "specificity")
Verdict = Literal["identical", "within tolerance", "differs"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recorded(BaseModel):
    """What a reproduction reads of a decision record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int
    bundle_hash: str
    git_commit: str
    lock_sha256: str
    data_sha256: str


class Part(_Part):
    """One part of a build: what the record has, and what was found or made now."""

    what: str
    recorded: str
    found: str

    @property
    def same(self) -> bool:
        return self.recorded == self.found


class Figure(_Part):
    """One figure on the sealed test images."""

    name: str
    recorded: float
    found: float

    @property
    def difference(self) -> float:
        return abs(self.recorded - self.found)


class Reproduction(_Part):
    """A version built again. tolerance: the largest difference of a figure that counts as the same model.

    entry: of the ledger, once it is on record.
    """

    name: str
    version: int
    commit: str
    machine: str
    tolerance: float
    parts: tuple[Part, ...]
    figures: tuple[Figure, ...] = ()
    wall_seconds: float
    entry: int | None = None

    @property
    def first(self) -> str | None:
        """The first part that differs."""
        return next((part.what for part in self.parts if not part.same), None)

    @property
    def largest(self) -> Figure | None:
        """The figure that differs most."""
        return max(self.figures, key=lambda figure: figure.difference, default=None)

    @property
    def verdict(self) -> Verdict:
        """Without figures nothing was trained: what it would have been trained from is not what is on record."""
        if self.largest is None:
            return "differs"
        if self.first is None:
            return "identical"
        return "within tolerance" if self.largest.difference <= self.tolerance else "differs"

    def text(self) -> str:
        """The verdict, and a line a part."""
        said = f"Version {self.version} of {self.name}, built again from {self.commit[:12]}: {self.verdict}."
        if self.first:
            said += f" What differs first: {self.first}."
        lines = [said]
        for part in self.parts:
            seen = part.found if part.same else f"{part.found}, on record {part.recorded}"
            lines.append(f"{'same   ' if part.same else 'DIFFERS'} {part.what:<22} {seen}")
        for figure in self.figures:
            lines.append(f"        {figure.name:<22} {figure.found:.4f}, on record {figure.recorded:.4f}")
        if self.largest is None:
            lines.append("Nothing was trained: it would have been another model.")
        elif self.first:
            lines.append(
                f"Largest difference {self.largest.difference:.4f} ({self.largest.name}), tolerance {self.tolerance:g}."
            )
        lines.append(f"{self.machine}, {self.wall_seconds:.0f} s; nothing was registered or committed.")
        return "\n".join([*lines, *([f"On record as ledger entry {self.entry}."] if self.entry is not None else [])])

    def body(self, record: Recorded, user: str) -> dict[str, Any]:
        """What the ledger keeps of it; unsigned, as what the gate found is.

        Args:
            record: what the version was compared with.
            user: who asked for it.
        """
        again = {part.what: part.found for part in self.parts}
        return {
            "name": self.name,
            "version": self.version,
            "bundle_hash": record.bundle_hash,
            "verdict": self.verdict,
            "found_hash": again.get("bundle"),
            "first_difference": self.first,
            "largest_difference": self.largest and {"figure": self.largest.name, "is": self.largest.difference},
            "tolerance": self.tolerance,
            "git_commit": self.commit,
            "lock_sha256": record.lock_sha256,
            "machine": self.machine,
            "user": user,
        }


def recorded(ledger: Ledger, name: str, version: int) -> Recorded:
    """What the record that counts of a version (`standing.record_of`) says it was made from.

    Raises:
        ConfigError: no record; the message lists the versions that have one.
        DataError: the record is none.
    """
    entries = ledger.entries()
    if (record := record_of(entries, name, version)) is None:
        bodies = [entry.body for entry in entries if entry.kind == "decision" and entry.body.get("name") == name]
        known = ", ".join(map(str, sorted({int(body["version"]) for body in bodies if "version" in body}))) or "none"
        raise ConfigError(f"{name}: no record of a version {version}; on record: {known}")
    try:
        return Recorded.model_validate(record.body)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise DataError(f"{name} version {version}: its record does not say what it was made from ({where})") from None


def strangers(lock: bytes) -> list[str]:
    """Packages that a lock file (uv.lock) gives the product and this environment has otherwise, sorted.

    What only developers need is not compared, nor what the lock gives other systems alone.

    Returns:
        `numpy 2.1.0 (lock: 2.2.0)`, a package each.

    Raises:
        DataError: not a lock file.
    """
    versions: dict[str, set[str]] = {}
    needs: dict[str, set[str]] = {}
    always: set[str] = set()
    try:
        for package in tomllib.loads(lock.decode())["package"]:
            name, wanted = package["name"], list(package.get("dependencies", ()))
            if name == PROJECT:
                always = {one["name"] for one in wanted if "marker" not in one}
            wanted += [one for extra in package.get("optional-dependencies", {}).values() for one in extra]
            versions.setdefault(name, set()).add(package.get("version", ""))
            needs.setdefault(name, set()).update(one["name"] for one in wanted)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"uv.lock: not a lock file ({type(error).__name__})") from None
    reached, todo = {PROJECT}, [PROJECT]
    while todo:
        new = needs.get(todo.pop(), set()) - reached
        reached |= new
        todo += new
    found = []
    for name in sorted(reached - {PROJECT}):
        here, there = _installed(name), versions.get(name, set())
        if there and here not in there and (here or name in always):
            found.append(f"{name} {here or 'missing'} (lock: {' or '.join(sorted(there))})")
    return found


def outputs(lock: Mapping[str, Any], stages: frozenset[str] | None = None) -> dict[str, str]:
    """Path -> MD5 of what the `stages` of a dvc.lock made (None: all of them); a folder's MD5 ends in `.dir`."""
    return {
        out["path"]: out["md5"]
        for stage, facts in lock["stages"].items()
        for out in facts.get("outs", ())
        if stages is None or stage in stages
    }


def intact(path: Path, md5: str, listed: Mapping[str, str] | None) -> Part:
    """Read every byte of an output, and compare with its MD5 or, of a folder, with those of its files.

    Args:
        listed: name in the folder -> MD5; None for a file.
    """
    expected = {path.name: md5} if listed is None else listed
    folder = path.parent if listed is None else path
    bad = sorted(name for name, wanted in expected.items() if _md5(folder / name) != wanted)
    good = f"{len(expected)} file(s)"
    return Part(what=path.name, recorded=good, found=f"{good}, {len(bad)} altered: {bad[0]}" if bad else good)


def made(trained: Path, calibration: Path, bundle: Path) -> Iterator[tuple[str, str]]:
    """What the model stages of a build left: part -> hash, in the order they were made."""
    yield "weights", str(_json(trained / "training.json").get("weights_sha256"))
    yield "calibration", hashlib.sha256(_bytes(calibration)).hexdigest()
    yield "bundle", hashlib.sha256(_bytes(bundle / "manifest.json")).hexdigest()


def figures(evaluation: Path) -> dict[str, float]:
    """The figures on the sealed test images that two builds are compared by."""
    judged = _json(evaluation / "evaluation.json")
    try:
        return {name: float(judged[name]["value"]) for name in FIGURES}
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{evaluation}: evaluation.json states no {', '.join(FIGURES)}") from None


def _installed(name: str) -> str:
    try:
        return metadata.version(re.sub(r"[-_.]+", "-", name))
    except metadata.PackageNotFoundError:
        return ""


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return "missing"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise DataError(f"{path}: missing; the stage that makes it left nothing") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except ValueError:
        raise DataError(f"{path}: not JSON") from None
