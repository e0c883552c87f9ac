"""Fixtures every room shares: an empty home, silent dependencies, and the real radiographs where they stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the developer's own home, keys or settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    for name in [n for n in os.environ if n.startswith("OSTEOFLOW_") and n != "OSTEOFLOW_REAL_DATA"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs (FracAtlas subset, DICOM files); the test is skipped by name without it."""
    folder = Path(os.environ.get("OSTEOFLOW_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "fracatlas" / "dataset.csv").is_file():
        pytest.skip("real radiographs not present (set OSTEOFLOW_REAL_DATA)")
    return folder
