"""Cross-validation at a person's request: how good is what params.yaml describes, before anything is released?"""

from __future__ import annotations

import shutil

import yaml
from pydantic import BaseModel

from components.dataset.store import atomic_folder
from components.model.cross_validation import CrossValidation, cross_validation
from components.model.folds import OUT_OF_FOLD
from components.settings import Settings
from flows import clients
from flows.builds import heed_withdrawals, make


class CrossValidated(BaseModel):
    """What the folds say of a revision. folder: where the figures and the out-of-fold predictions are kept."""

    commit: str
    found: CrossValidation
    folder: str

    def text(self) -> str:
        return f"Commit {self.commit[:12]}, {self.found.text()}\nKept in {self.folder}; nothing was registered."


def cross_validate(settings: Settings, *, folds: int, rev: str) -> CrossValidated:
    """Train `folds` networks on `rev` in a clone, each without one fold of the patients of role `train`.

    The working copy is not touched. Repeat it after a kill: it continues at the last whole epoch.

    Raises:
        DataError: a step refuses the data, or the revision does not know of a withdrawal on record.
        ConfigError: a parameter is wrong.
    """
    home = clients.workspace(settings)
    with home.building(rev) as build:
        file = build.root / "params.yaml"
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
        written["train"]["folds"] = folds  # the clone's own; a later build checks the file out again
        file.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
        params = clients.params(settings.model_copy(update={"workspace": build.root}))
        heed_withdrawals(build, clients.ledger(settings))
        make(build, "train")
        trained, accepted = build.root / params.paths.trained, build.root / params.paths.accepted
        found = cross_validation(trained, accepted, params.calibrate, params.evaluate)
        commit = build.head()
        folder = settings.state / "reports" / f"cross-validation-{commit[:12]}-{folds}"
        with atomic_folder(folder) as draft:
            shutil.copyfile(trained / OUT_OF_FOLD, draft / OUT_OF_FOLD)
            text = found.model_dump_json(indent=2) + "\n"
            (draft / "cross_validation.json").write_text(text, encoding="utf-8")
    return CrossValidated(commit=commit, found=found, folder=str(folder))
