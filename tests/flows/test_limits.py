"""`osteoflow data limits` in a real repository: what is learned is told and committed, once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset.limits import read_limits
from components.dataset.rows import write_rows

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def home(tmp_path) -> Path:
    """A repository with the tables of 250 images of a site whose detector blurs: sharpness 0.5 to 0.749."""
    root = tmp_path / "clone"
    (root / "data" / "features").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/limits.yaml"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache"))
    (root / ".gitignore").write_text(".osteoflow\ndata/splits\ndata/features\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    ids = [f"image-{k:03d}" for k in range(250)]
    about = {"site": "soft", "bits_stored": 8, "rows": 300, "columns": 200, "label": 0.0, "shard": "000001-a-0000"}
    write_rows(root / "data/splits", pd.DataFrame({"image_id": ids, "picture_id": ids, **about}))
    pd.DataFrame(
        {
            "image_id": ids, "exposure_median": 0.5, "exposure_p1": 0.1, "exposure_p99": 0.9, "saturation": 0.01,
            "grey_levels": 200.0, "field_fraction": 0.9, "noise": 0.01, "cnr": 20.0, "motion": 1.0, "clutter": 1.0,
            "sharpness": [0.5 + k / 1000 for k in range(250)], "deviation_index": np.nan, "polarity_ok": True,
        }
    ).to_parquet(root / "data/features/000001-a-0000.parquet")  # fmt: skip
    return root


def command(home: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "data", "limits", *words],
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home.parent),
            "PYTHONPATH": str(REPOSITORY),
            "OSTEOFLOW_WORKSPACE": str(home),
            "OSTEOFLOW_KEY_DIR": str(home.parent / "keys"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def commits(home: Path) -> list[str]:
    said = subprocess.run(["git", "log", "--format=%s"], cwd=home, capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def test_limits_are_learned_told_and_committed_once(home):
    done = command(home, "--site", "soft")
    refused = command(home, "--site", "soft")
    again = json.loads(command(home, "--site", "soft", "--again", "--json").stdout)

    assert "min_sharpness: 6 -> 0.5012" in done.stdout, done.stderr
    assert read_limits(home / "data/limits.yaml").sites["soft"].images == 250
    assert commits(home) == ["Learn the image limits of site soft from its first 250 images", "x"]
    assert refused.returncode == 1
    assert "'soft' has limits already" in refused.stderr
    assert again["before"] == again["after"]
    assert again["commit"] is None


def test_a_site_with_too_few_images_commits_nothing(home):
    done = command(home, "--site", "sft")

    assert done.returncode == 1
    assert "'sft': 0 usable image(s), it takes 200 to learn limits from; images by site: soft 250" in done.stderr
    assert commits(home) == ["x"]
