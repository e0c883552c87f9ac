"""The training loop: head first, then everything, cosine schedule, early stopping on `tune`, resumable by epoch."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.dataset.store import atomic_path
from components.errors import DataError
from components.model import network, runtime
from components.model.averaging import Average
from components.model.examples import Examples
from components.model.loader import Batch, balance, batches
from components.model.normalization import fused
from components.model.optimizer import learning_rate, optimizer
from components.model.statistics import auroc
from components.params import Network

# What each output learns from: its target and the weight of it.
LEARNED: dict[str, Callable[[Batch], tuple[np.ndarray, np.ndarray]]] = {
    network.LOGIT: lambda batch: (batch.labels, batch.weights),
    network.EVIDENCE: lambda batch: (batch.cells, batch.cell_weights),
    network.REGION: lambda batch: (batch.regions, batch.region_weights),
    network.FRACTURES: lambda batch: (batch.fractures, batch.fracture_weights),
}


@dataclass(frozen=True)
class Epoch:
    """One row of the learning curve. Losses are binary cross-entropy, both classes weighing the same.

    box_loss: of the cells, against the boxes (focal); 0 where no image of the epoch has a located fracture or none.
    region_loss, fracture_loss: of the region (cross-entropy) and of the number of fractures (Poisson), over all images,
        those of which it is not known adding 0; None: the network is not asked.
    """

    epoch: int
    phase: str
    learning_rate: float
    loss: float
    box_loss: float
    tune_loss: float
    tune_auroc: float
    region_loss: float | None = None
    fracture_loss: float | None = None

    def row(self) -> dict[str, object]:
        """For history.json: what there is."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def best(history: list[Epoch]) -> Epoch:
    """The epoch whose weights are kept: highest AUROC on `tune`, then lowest loss, then the earlier."""
    return max(history, key=lambda row: (row.tune_auroc, -row.tune_loss, -row.epoch))


class Fit:
    """Fits `model` in place to `train`, judged after every epoch on `tune`; the best epoch's weights win.

    The state after each epoch goes to `checkpoint`. A new Fit with the same arguments continues there and ends with
    the weights that an undisturbed run ends with: batches and dropout are functions of seed and epoch alone, and the
    optimizer's own variables, and the average of the weights, are part of the state.

    With `train.ema` it is the average that is judged, and that wins.
    """

    def __init__(
        self,
        model: Any,
        train: Examples,
        tune: Examples,
        params: Network,
        checkpoint: Path,
        *,
        regions: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self.fast = fused(model)  # the same weights
        self.train = train
        self.tune = tune
        self.params = params
        self.checkpoint = checkpoint
        self.regions = regions
        self.average = Average(model, params.ema) if params.ema else None
        # A head can only be fitted to a backbone that knows something already.
        self.head_epochs = params.epochs_head if params.weights != "none" else 0
        self.epochs = self.head_epochs + params.epochs
        self.steps = max(1, len(train.table) // params.batch_size)  # of an epoch
        self.history: list[Epoch] = []
        self.best_weights: list[np.ndarray] = []

    def run(self, progress: Callable[[Epoch, int], None]) -> list[Epoch]:
        """Train to the end; return the learning curve.

        Args:
            progress: called after each epoch with its row and the number of epochs planned.

        Raises:
            DataError: the loss is no longer a number.
        """
        epoch = self._restore()
        while epoch < self.epochs and not self._out_of_patience():
            if epoch in (0, self.head_epochs):
                self._begin_phase(epoch)
            row = self._one(epoch)
            epoch += 1
            self.history.append(row)
            if best(self.history) is row:
                self.best_weights = (
                    [value.copy() for value in self.average.values] if self.average else self.model.get_weights()
                )
            self._save()
            progress(row, self.epochs)
        self.model.set_weights(self.best_weights)
        return self.history

    def _out_of_patience(self) -> bool:
        if len(self.history) <= self.head_epochs:
            return False
        return len(self.history) - max(best(self.history).epoch, self.head_epochs) >= self.params.patience

    def _begin_phase(self, epoch: int) -> None:
        """A fresh optimizer; the backbone learns from the second phase on."""
        keras = runtime.keras()

        head = epoch < self.head_epochs
        rate, epochs = (
            (self.params.head_learning_rate, self.head_epochs)
            if head
            else (self.params.learning_rate, self.params.epochs)
        )
        steps = self.steps * epochs
        network.learn(
            self.model,
            backbone=not head,
            pretrained=self.params.weights != "none",
            frozen_stride=self.params.frozen_stride,
        )
        losses = {
            network.LOGIT: (keras.losses.BinaryCrossentropy(from_logits=True), 1.0),
            # Nearly all cells are easy: what is settled already weighs little (Lin et al. 2017).
            network.EVIDENCE: (
                keras.losses.BinaryFocalCrossentropy(from_logits=True, gamma=2.0),
                self.params.box_weight,
            ),
            network.REGION: (keras.losses.CategoricalCrossentropy(from_logits=True), self.params.region_weight),
            network.FRACTURES: (keras.losses.Poisson(), self.params.count_weight),
        }
        self.fast.compile(
            optimizer=optimizer(
                self.model,
                rate=rate,
                steps=steps,
                warmup=0 if head else steps // (2 * epochs),
                layer_decay=self.params.layer_decay,
            ),
            loss={name: loss for name, (loss, _) in losses.items() if name in self.model.output},
            loss_weights={name: weight for name, (_, weight) in losses.items() if name in self.model.output},
            jit_compile=keras.backend.backend() == "jax",  # which runs every operation by itself without
        )

    def _one(self, epoch: int) -> Epoch:
        seed, rate = self.params.seed, learning_rate(self.fast.optimizer)
        self.model.get_layer("dropout").seed_generator.state.assign([seed % 2**31, epoch])
        names = [name for name in LEARNED if name in self.model.output]
        losses: list[list[float]] = []
        for number, batch in enumerate(self._batches(epoch)):
            targets = {name: LEARNED[name](batch) for name in names}
            said = self.fast.train_on_batch(
                batch.images,
                {name: target for name, (target, _) in targets.items()},
                sample_weight={name: weight for name, (_, weight) in targets.items()},
                return_dict=True,
            )
            losses.append([float(said[f"{name}_loss"]) for name in names])
            if not math.isfinite(sum(losses[-1])):
                break
            if self.average:
                self.average.update(self.model, epoch * self.steps + number)
        means = dict(zip(names, np.mean(losses, axis=0).tolist(), strict=True))
        loss, box_loss = means[network.LOGIT], means[network.EVIDENCE]
        with self.average.inside(self.model) if self.average else nullcontext():
            logits = network.logits(self.fast, self.tune.pixels)
        if not (math.isfinite(sum(means.values())) and np.isfinite(logits).all()):
            raise DataError(
                f"training diverged in epoch {epoch + 1} of {self.epochs}: loss {loss}, learning rate {rate:.2g}; "
                "lower train.learning_rate, or look for corrupt images with `validate`"
            )
        labels = self.tune.labels
        margin = np.where(labels == 1, logits, -logits)
        return Epoch(
            epoch=epoch + 1,
            phase="head" if epoch < self.head_epochs else "whole",
            learning_rate=rate,
            loss=loss,
            box_loss=box_loss,
            tune_loss=float(np.mean(balance(labels) * np.logaddexp(0, -margin))),
            tune_auroc=float(auroc(labels, logits)),
            region_loss=means.get(network.REGION),
            fracture_loss=means.get(network.FRACTURES),
        )

    def _batches(self, epoch: int) -> Iterator[Batch]:
        return batches(
            self.train,
            self.params.augment,
            side=self.model.output[network.EVIDENCE].shape[1],
            batch_size=self.params.batch_size,
            seed=self.params.seed,
            epoch=epoch,
            regions=self.regions,
            mixup=self.params.mixup,
        )

    def _variables(self) -> Iterator[Any]:
        yield from self.model.variables
        yield from self.fast.optimizer.variables

    def _save(self) -> None:
        arrays = {f"v{n:05d}": np.asarray(variable) for n, variable in enumerate(self._variables())}
        arrays |= {f"b{n:05d}": weight for n, weight in enumerate(self.best_weights)}
        if self.average:
            arrays |= {f"e{n:05d}": value for n, value in enumerate(self.average.values)}
        history = np.array(json.dumps([asdict(row) for row in self.history]))
        buffer = io.BytesIO()
        np.savez(buffer, history=history, allow_pickle=False, **arrays)
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.checkpoint) as temporary:
            temporary.write_bytes(buffer.getvalue())

    def _restore(self) -> int:
        """Take up the checkpoint, when one stands; return the number of epochs already done."""
        if not self.checkpoint.exists():
            return 0
        with np.load(self.checkpoint, allow_pickle=False) as arrays:
            names = sorted(arrays.files)
            self.history = [Epoch(**row) for row in json.loads(str(arrays["history"]))]
            self.best_weights = [arrays[name] for name in names if name.startswith("b")]
            if self.average:
                self.average.values = [arrays[name] for name in names if name.startswith("e")]
            done = len(self.history)
            # The optimizer of the phase that was under way; at a phase's end the next one replaces it.
            self._begin_phase(done - 1)
            saved = [arrays[name] for name in names if name.startswith("v")]
            for variable, value in zip(self._variables(), saved, strict=True):
                variable.assign(value)
        return done
