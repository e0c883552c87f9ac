"""What a training leaves behind: the names of its files, and training.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.errors import DataError
from components.serving.bundle import Backbone

MODEL = "model.keras"
RECORD = "training.json"
HISTORY = "history.json"
IMAGES = "training_images.parquet"


class Member(BaseModel):
    """One fitted network. fold: the fold it has not seen, from 1; None where nothing was held out.

    network: which of those that are fitted to the same patients, from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fold: int | None
    network: int
    best_epoch: int
    epochs: int
    tune_auroc: float


class Training(BaseModel):
    """training.json: what was trained, from what, with what. tune_auroc: of what is released, the members' mean.

    backbones: each once, the first network's first.
    regions: the body regions that it tells apart, in the order of its output; none: it does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbones: tuple[Backbone, ...] = Field(min_length=1)
    size: int
    weights_sha256: str
    seed: int
    members: tuple[Member, ...] = Field(min_length=1)
    mirror: bool
    regions: tuple[str, ...] = ()
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
