"""Step: fit the network to the accepted patients of role `train`, watched on role `tune`. Deterministic, resumable.

Result and price are recorded where the parameters are: params.yaml, section train.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.dataset.store import atomic_folder
from components.errors import DataError
from components.model import examples, network, runtime
from components.model.fitting import Epoch, Fit, best
from components.params import Train
from components.serving.bundle import Pretrained

MODEL = "model.keras"
RECORD = "training.json"
HISTORY = "history.json"
IMAGES = "training_images.parquet"


class Training(BaseModel):
    """training.json: what was trained, from what, with what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    size: int
    pretrained: Pretrained | None
    weights_sha256: str
    seed: int
    best_epoch: int
    epochs: int
    tune_auroc: float
    fractures: int
    no_fractures: int
    examples_sha256: str
    params: dict[str, object]
    versions: dict[str, str]

    @classmethod
    def read(cls, trained: Path) -> Training:
        """Raises: DataError when the record is missing or not one."""
        try:
            return cls.model_validate_json((trained / RECORD).read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{trained / RECORD}: no training record ({type(error).__name__}); run `train`") from None


def train(*, accepted: Path, prepared: Path, trained: Path, params: Train) -> None:
    """Write the folder `trained`: model.keras, training.json, history.json, training_images.parquet.

    Equal inputs give equal bytes on one machine and one TensorFlow build. A killed run continues at its last whole
    epoch from `.training/` beside `trained` (DVC empties `trained` itself) and ends with the same weights.

    Raises:
        ConfigError: `train.weights` names no usable file.
        Unavailable: ImageNet weights could not be downloaded.
        DataError: a role lacks fractures or non-fractures, pixels are missing, or training diverged.
    """
    data = examples.load(accepted, prepared, roles=("train", "tune"))
    fit, tune = data.role("train"), data.role("tune")
    fit.require_both("train", "train")
    tune.require_both("tune", "train")
    given = network.pretrained(params.backbone, params.weights)
    path, origin = given if given else (None, None)
    runtime.start(params.seed)
    model = network.build(params.backbone, data.transform.size, path, params.dropout)
    everything = [data.sha256, params.model_dump(mode="json"), _versions(), origin.sha256 if origin else None]
    key = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    checkpoints = trained.parent / ".training"
    history = Fit(model, fit, tune, params, checkpoints / f"{key[:32]}.npz").run(_progress())
    chosen = best(history)
    positives, negatives = fit.counts
    training = Training(
        backbone=params.backbone,
        size=data.transform.size,
        pretrained=origin,
        weights_sha256=network.weights_sha256(model),
        seed=params.seed,
        best_epoch=chosen.epoch,
        epochs=len(history),
        tune_auroc=chosen.tune_auroc,
        fractures=positives,
        no_fractures=negatives,
        examples_sha256=data.sha256,
        params=params.model_dump(mode="json"),
        versions=_versions(),
    )
    with atomic_folder(trained) as folder:
        network.save(model, folder / MODEL)
        (folder / RECORD).write_text(training.model_dump_json(indent=2) + "\n")
        (folder / HISTORY).write_text(json.dumps([vars(row) for row in history], indent=2) + "\n")
        # `tune` chose the epoch, so its patients count as seen.
        data.table[["image_id", "patient_id", "label", "role"]].to_parquet(folder / IMAGES, index=False)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("keras", "numpy", "opencv-python-headless", "tensorflow")}


def _progress() -> Callable[[Epoch, int], None]:
    """One line an epoch, to be read by people and by the flow that runs this step."""
    started = time.monotonic()

    def show(row: Epoch, planned: int) -> None:
        print(
            f"epoch {row.epoch}/{planned}  {row.phase}  loss {row.loss:.4f}  tune loss {row.tune_loss:.4f}  "
            f"tune AUROC {row.tune_auroc:.4f}  {time.monotonic() - started:.0f} s",
            flush=True,
        )

    return show
