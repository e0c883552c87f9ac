"""The repository's own modification protocol and roll-out, with the figures that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.gate_params import Gate
from components.params import load

REPOSITORY = Path(__file__).resolve().parent.parent
# A roll-out without stages: an approved version answers every case at once.
AT_ONCE = load(REPOSITORY / "params.yaml").roll_out.model_copy(update={"shadow_cases": 0, "canary_cases": 0})


def protocol_of(**changes: Any) -> Gate:
    """`gate` of params.yaml with `changes`, checked as if they stood there."""
    return Gate.model_validate(load(REPOSITORY / "params.yaml").gate.model_dump() | changes)
