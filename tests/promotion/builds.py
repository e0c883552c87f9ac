"""Finished builds, as small as `register` takes them; some have a real bundle, which can serve."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from components.promotion.register import Build, Registry, register
from components.serving.manifest import Manifest
from tests.promotion.guarded import NAME

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Made:
    """A finished build on disk: what `register` takes."""

    bundle: Path
    evaluation: Path
    build: Build

    @property
    def bundle_hash(self) -> str:
        return hashlib.sha256((self.bundle / "manifest.json").read_bytes()).hexdigest()

    def register(self, registry: Registry, *, proposer: str = "engineer") -> int:
        """Put it into the registry; the version it is there."""
        return register(
            registry=registry, name=NAME, bundle=self.bundle, evaluation=self.evaluation, build=self.build,
            proposer=proposer,
        )  # fmt: skip


def make(folder: Path, key: str, *, release: Path | None = None) -> Made:
    """A build whose bundle names its key, so that two keys have two hashes.

    Args:
        release: a real bundle; the build's is the same with another seed on record, and can serve.
    """
    root = folder / f"build-{key}"
    bundle, evaluation, trained = (
        root / "models" / "bundle",
        root / "reports" / "evaluation",
        root / "models" / "trained",
    )
    for place in (bundle, evaluation, trained):
        place.mkdir(parents=True)
    weights = b"weights " + key.encode()
    manifest = json.dumps({"parts": {"model.tflite": hashlib.sha256(weights).hexdigest()}}).encode()
    (bundle / "model.tflite").write_bytes(weights)
    if release:
        shutil.copytree(release, bundle, dirs_exist_ok=True)
        manifest = reseeded((release / "manifest.json").read_bytes(), int(hashlib.sha256(weights).hexdigest()[:6], 16))
    (bundle / "manifest.json").write_bytes(manifest)
    figures = {
        "evidence": "weak grouping",
        "auroc": {"value": 0.91, "low": 0.88, "high": 0.94, "n": 400},
        "slices": [{"site": "A"}],
        "ece": 0.02,
    }
    (evaluation / "evaluation.json").write_text(json.dumps(figures))
    (evaluation / "report.html").write_text("<p>report</p>")
    (evaluation / "model_card.xml").write_text("<AppliedModelCard/>")
    (trained / "history.json").write_text(json.dumps([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.5}]))
    shutil.copy(REPOSITORY / "params.yaml", root)
    build = Build(
        key=key, git_commit="c" * 40, folder=root, lock_sha256="1" * 64, data_sha256="d" * 64, wall_seconds=12.5
    )
    return Made(bundle, evaluation, build)


def reseeded(manifest: bytes, seed: int) -> bytes:
    """A real bundle's manifest that names another seed: a bundle that opens, under another hash."""
    found = Manifest.decode(manifest, where="release")
    return found.model_copy(update={"model": found.model.model_copy(update={"seed": seed})}).encode()
