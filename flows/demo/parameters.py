"""How the demo's params.yaml differs from the repository's: smaller pictures, a small network, a smaller protocol.

A few hundred phantoms cannot carry the evidence a hospital asks for, so the demo's gate is wider, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CHANGES: dict[str, Any] = {
    "split.shares": {"train": 45, "tune": 12, "calibrate": 13, "test": 30},
    "prepare.size": 112,
    "train.backbone": "residual",
    "train.weights": "none",
    "train.epochs_head": 0,
    "train.epochs": 12,
    "train.learning_rate": 0.003,
    "train.dropout": 0.2,
    # What a drawn fracture survives: it is a thin line, and strong augmentation hides it.
    "train.augment": {
        "rotate_degrees": 8,
        "translate": 0.05,
        "scale": 0.08,
        "exposure": 0.08,
        "noise": 0.01,
        "flip": True,
    },
    "train.batch_size": 16,
    "gate.auroc_floor": 0.75,
    "gate.sensitivity_floor": 0.6,
    "gate.specificity_floor": 0.6,
    "gate.margin": 0.15,
    "gate.min_positives": 30,
    "gate.min_negatives": 30,
    "gate.signers": {"reviewer": 1, "reader": 0},  # one reviewer plays in it
    "gate.slices.margin": 0.15,
    "gate.reference.margin": 0.15,
    # The second champion is approved because the first has drifted on the new site: any honest model contradicts that
    # one, and would be taken back for it. It answers at once.
    "roll_out.shadow_cases": 0,
    "roll_out.canary_cases": 0,
    "feedback.audit_share": 0.5,
}


def write(path: Path) -> None:
    """Apply CHANGES to the params.yaml at `path`."""
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for dotted, value in CHANGES.items():
        section, *inner, key = dotted.split(".")
        target = params[section]
        for name in inner:
            target = target[name]
        if key not in target:
            raise KeyError(f"the demo changes {dotted}, which params.yaml does not have")
        target[key] = value
    head = "# The demo's parameters: the repository's own, with the changes listed in flows/demo/parameters.py.\n"
    path.write_text(head + yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
