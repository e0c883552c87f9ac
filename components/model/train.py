"""Step: fit the network to the accepted patients of role `train`, watched on role `tune`. Deterministic, resumable.

With `train.folds` it is an ensemble: as many networks, each fitted without one fold of the patients of role `train`,
released as one. What each says about the patients it has not seen is kept (cross_validation.py reads it). With
`train.also` further networks, made otherwise, are fitted to the same patients, and all speak as one.
Result and price are recorded where the parameters are: params.yaml, section train.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from components.dataset.store import atomic_folder
from components.errors import DataError
from components.model import ensemble, examples, folds, network, runtime
from components.model.examples import Examples
from components.model.fitting import Epoch, Fit, best
from components.model.side_by_side import side_by_side
from components.model.statistics import auroc
from components.model.training import HISTORY, IMAGES, MODEL, RECORD, Member, Training
from components.params import Network, Train
from components.serving.bundle import Backbone, Pretrained

PROCESSES_FROM = 500  # images to learn from, below which starting a process for each network costs more than it saves
NETWORK = 3 * 2**30  # bytes to fit one beside its images: MobileNetV2 took 2.6 GB (384 pixels, batches of 16)
COPIES = 3  # of the images: as they were read, by role, and without the fold


def train(*, accepted: Path, prepared: Path, trained: Path, params: Train) -> None:
    """Write the folder `trained`: model.keras, training.json, history.json, training_images.parquet.

    With folds also out_of_fold.parquet. Equal inputs give equal bytes on one machine and one TensorFlow build. A
    killed run continues at its last whole epoch from `.training/` beside `trained` (DVC empties `trained` itself)
    and ends with the same weights.

    Raises:
        ConfigError: `train.weights` names no usable file.
        Unavailable: ImageNet weights could not be downloaded.
        DataError: a role or a fold lacks fractures or non-fractures, pixels are missing, training diverged, a process
            that fits a network died, or a region is to be told where there are no two to tell apart.
    """
    plan = Plan.read(accepted, prepared, trained, params)
    if plan.side_by_side:
        each = NETWORK + COPIES * plan.data.pixels.nbytes
        side_by_side(partial(_ahead, accepted, prepared, trained, params), plan.places, each=each)
    networks: list[Any] = []
    members: list[Member] = []
    history: list[dict[str, object]] = []
    unseen: list[pd.DataFrame] = []
    for number, (fold, seen, out) in enumerate(plan.turns()):
        alike: list[Any] = []  # fitted to the same patients
        for which in range(len(params.networks)):
            model, curve = plan.fitted(fold, seen, number, which)
            chosen = best(curve)
            alike.append(model)
            members.append(
                Member(
                    fold=fold or None,
                    network=which + 1,
                    best_epoch=chosen.epoch,
                    epochs=len(curve),
                    tune_auroc=chosen.tune_auroc,
                )
            )
            place_of = ({"fold": fold} if fold else {}) | ({"network": which + 1} if len(params.networks) > 1 else {})
            history += [row.row() | place_of for row in curve]
        networks += alike
        if out is not None:
            unseen.append(folds.held_out(ensemble.released(alike, mirror=params.mirror), out, plan.tune, fold))
    released = ensemble.released(networks, mirror=params.mirror)
    positives, negatives = plan.fit.counts
    training = Training(
        backbones=tuple(dict.fromkeys(plan.backbones)),
        size=plan.data.transform.size,
        weights_sha256=network.weights_sha256(released),
        seed=params.seed,
        members=tuple(members),
        mirror=params.mirror,
        regions=plan.told,
        tune_auroc=float(auroc(plan.tune.labels, network.logits(released, plan.tune.pixels))),
        fractures=positives,
        no_fractures=negatives,
        examples_sha256=plan.data.sha256,
        params=params.model_dump(mode="json"),
        versions=_versions(),
    )
    with atomic_folder(trained) as folder:
        network.save(released, folder / MODEL)
        (folder / RECORD).write_text(training.model_dump_json(indent=2) + "\n")
        (folder / HISTORY).write_text(json.dumps(history, indent=2) + "\n")
        # `tune` chose the epoch, so its patients count as seen.
        plan.data.table[["image_id", "patient_id", "label", "role"]].to_parquet(folder / IMAGES, index=False)
        if unseen:
            pd.concat(unseen, ignore_index=True).to_parquet(folder / folds.OUT_OF_FOLD, index=False)
    shutil.rmtree(plan.checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class Plan:
    """Which networks are fitted, to whom and from what: the same in every process that reads the same files.

    Attributes:
        data: roles `train`, which is `fit`, and `tune`.
        given: of each of `params.networks` the file that its backbone starts from, and its provenance.
        told: the body regions that they tell apart.
        side_by_side: there are several networks, enough to learn, and processors to do it on.
        checkpoints: the folder of what is fitted so far; `key` stands for all that decides the outcome.
    """

    params: Train
    data: Examples
    fit: Examples
    tune: Examples
    given: tuple[tuple[Path, Pretrained] | None, ...]
    told: tuple[str, ...]
    side_by_side: bool
    checkpoints: Path
    key: str

    @classmethod
    def read(cls, accepted: Path, prepared: Path, trained: Path, params: Train) -> Plan:
        """Raises: as `train`, but for what comes of fitting."""
        data = examples.load(accepted, prepared, roles=("train", "tune"))
        fit, tune = data.role("train"), data.role("tune")
        fit.require_both("train", "train")
        tune.require_both("tune", "train")
        given = tuple(network.pretrained(own.backbone, own.weights) for own in params.networks)
        many = max(1, params.folds) * len(params.networks) > 1
        apart = many and len(fit.table) >= PROCESSES_FROM and runtime.on_cpu()
        everything = [
            data.sha256,
            params.model_dump(mode="json"),
            _versions(),
            [found and found[1].sha256 for found in given],
            apart,  # one thread rounds otherwise than many
        ]
        return cls(
            params=params,
            data=data,
            fit=fit,
            tune=tune,
            given=given,
            told=regions_told(fit, params),
            side_by_side=apart,
            checkpoints=trained.parent / ".training",
            key=hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest(),
        )

    @property
    def backbones(self) -> list[Backbone]:
        """Of each of `params.networks`."""
        return [
            Backbone(name=own.backbone, pretrained=found and found[1])
            for own, found in zip(self.params.networks, self.given, strict=True)
        ]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Of all networks: the number of its turn, and which of `params.networks` it is; both from 0."""
        return list(itertools.product(range(max(1, self.params.folds)), range(len(self.params.networks))))

    def turns(self) -> Iterator[tuple[int, Examples, Examples | None]]:
        """As `folds.turns`."""
        return folds.turns(self.fit, self.params.folds, self.params.seed)

    def fitted(self, fold: int, seen: Examples, number: int, which: int) -> tuple[Any, list[Epoch]]:
        """The network of one of `places`, and its learning curve; from its checkpoint, so far as it is fitted."""
        found, nth = self.given[which], place(self.params, number, which)
        return fitted(
            seen,
            self.tune,
            self.params.networks[which],
            nth=nth,
            weights=found and found[0],
            told=self.told,
            checkpoint=self.checkpoints / f"{self.key[:32]}-{nth}.npz",
            progress=_progress(fold, self.params.folds, which + 1, len(self.given)),
        )


def _ahead(accepted: Path, prepared: Path, trained: Path, params: Train, where: tuple[int, int]) -> None:
    """Fit the network of one of `places` in a process of its own, and leave it in its checkpoint."""
    plan = Plan.read(accepted, prepared, trained, params)
    number, which = where
    fold, seen, _ = next(itertools.islice(plan.turns(), number, None))
    plan.fitted(fold, seen, number, which)


def regions_told(fit: Examples, params: Train) -> tuple[str, ...]:
    """The body regions that a network fitted to `fit` tells apart; none where it is not asked to.

    Raises:
        DataError: it is asked to, and there are no two to tell apart.
    """
    told = examples.vocabulary(fit.table["body_region"]) if params.region_weight else ()
    if params.region_weight and not told:
        raise DataError("train.region_weight: role train states fewer than two body regions to tell apart; set it to 0")
    return told


def place(params: Train, number: int, which: int) -> int:
    """Where a network stands among all: of `turns` the one with this number, of `networks` this; both from 0."""
    return number + which * max(1, params.folds)


def fitted(
    seen: Examples,
    tune: Examples,
    params: Network,
    *,
    nth: int,
    weights: Path | None,
    told: tuple[str, ...],
    checkpoint: Path,
    progress: Callable[[Epoch, int], None],
) -> tuple[Any, list[Epoch]]:
    """A network fitted to `seen`, and its learning curve.

    Args:
        nth: its `place`; every network has a seed of its own.
        weights: as for `network.build`.
        told: the body regions that it tells apart.

    Raises:
        ConfigError, DataError: as `network.build` and `Fit.run`.
    """
    own = params.model_copy(update={"seed": params.seed + nth})
    runtime.start(own.seed)
    model = network.build(
        own.backbone,
        seen.transform.size,
        weights,
        own.dropout,
        two_scale=own.two_scale,
        regions=len(told),
        fractures=own.count_weight > 0,
    )
    return model, Fit(model, seen, tune, own, checkpoint, regions=told).run(progress)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("keras", "numpy", "opencv-python-headless", "tensorflow")}


def _progress(fold: int, of: int, network: int, networks: int) -> Callable[[Epoch, int], None]:
    """One line an epoch, to be read by people and by the flow that runs this step.

    What is left is at the pace of the epochs seen so far, of this network, and without stopping early.
    """
    started = time.monotonic()
    begin = (f"fold {fold}/{of}  " if fold else "") + (f"network {network}/{networks}  " if networks > 1 else "")
    seen = 0

    def show(row: Epoch, planned: int) -> None:
        nonlocal seen
        seen += 1
        left = (planned - row.epoch) * (time.monotonic() - started) / seen
        print(
            f"{begin}epoch {row.epoch}/{planned}  {row.phase}  {left:.0f} s left  loss {row.loss:.4f}  "
            f"boxes {row.box_loss:.4f}  tune loss {row.tune_loss:.4f}  tune AUROC {row.tune_auroc:.4f}",
            flush=True,
        )

    return show
