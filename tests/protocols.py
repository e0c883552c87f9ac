"""The repository's own modification protocol, with the figures that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.params import Gate, load

REPOSITORY = Path(__file__).resolve().parent.parent


def protocol_of(**changes: Any) -> Gate:
    """`gate` of params.yaml with `changes`, checked as if they stood there."""
    return Gate.model_validate(load(REPOSITORY / "params.yaml").gate.model_dump() | changes)
