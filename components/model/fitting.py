"""The training loop: head first, then everything, cosine schedule, early stopping on `tune`, resumable by epoch."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.dataset.store import atomic_path
from components.errors import DataError
from components.model import network, runtime
from components.model.examples import Examples
from components.model.loader import balance, batches
from components.model.statistics import auroc
from components.params import Train


@dataclass(frozen=True)
class Epoch:
    """One row of the learning curve. Losses are binary cross-entropy, both classes weighing the same.

    box_loss: of the cells, against the boxes (focal); 0 where no image of the epoch has a located fracture or none.
    """

    epoch: int
    phase: str
    learning_rate: float
    loss: float
    box_loss: float
    tune_loss: float
    tune_auroc: float


def best(history: list[Epoch]) -> Epoch:
    """The epoch whose weights are kept: highest AUROC on `tune`, then lowest loss, then the earlier."""
    return max(history, key=lambda row: (row.tune_auroc, -row.tune_loss, -row.epoch))


class Fit:
    """Fits `model` in place to `train`, judged after every epoch on `tune`; the best epoch's weights win.

    The state after each epoch goes to `checkpoint`. A new Fit with the same arguments continues there and ends with
    the weights that an undisturbed run ends with: batches and dropout are functions of seed and epoch alone, and the
    optimizer's own variables are part of the state.
    """

    def __init__(self, model: Any, train: Examples, tune: Examples, params: Train, checkpoint: Path) -> None:
        self.model = model
        self.train = train
        self.tune = tune
        self.params = params
        self.checkpoint = checkpoint
        # A head can only be fitted to a backbone that knows something already.
        self.head_epochs = params.epochs_head if params.weights != "none" else 0
        self.epochs = self.head_epochs + params.epochs
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
                self.best_weights = self.model.get_weights()
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
        steps = max(1, len(self.train.table) // self.params.batch_size) * epochs
        warmup = 0 if head else steps // (2 * epochs)
        schedule = keras.optimizers.schedules.CosineDecay(
            rate / 10 if warmup else rate,
            max(1, steps - warmup),
            alpha=0.01,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
        network.learn(
            self.model,
            backbone=not head,
            pretrained=self.params.weights != "none",
            frozen_stride=self.params.frozen_stride,
        )
        self.model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=5.0),
            loss={
                network.LOGIT: keras.losses.BinaryCrossentropy(from_logits=True),
                # Nearly all cells are easy: what is settled already weighs little (Lin et al. 2017).
                network.EVIDENCE: keras.losses.BinaryFocalCrossentropy(from_logits=True, gamma=2.0),
            },
            loss_weights={network.LOGIT: 1.0, network.EVIDENCE: self.params.box_weight},
            jit_compile=keras.backend.backend() == "jax",  # which runs every operation by itself without
        )
        self.model.optimizer.build(self.model.trainable_variables)

    def _one(self, epoch: int) -> Epoch:
        seed, rate = self.params.seed, float(self.model.optimizer.learning_rate)
        self.model.get_layer("dropout").seed_generator.state.assign([seed % 2**31, epoch])
        losses: list[tuple[float, float]] = []
        side = self.model.output[network.EVIDENCE].shape[1]
        for batch in batches(
            self.train, self.params.augment, side=side, batch_size=self.params.batch_size, seed=seed, epoch=epoch
        ):
            said = self.model.train_on_batch(
                batch.images,
                {network.LOGIT: batch.labels, network.EVIDENCE: batch.cells},
                sample_weight={network.LOGIT: batch.weights, network.EVIDENCE: batch.cell_weights},
                return_dict=True,
            )
            losses.append((float(said[f"{network.LOGIT}_loss"]), float(said[f"{network.EVIDENCE}_loss"])))
            if not math.isfinite(sum(losses[-1])):
                break
        loss, box_loss = (float(mean) for mean in np.mean(losses, axis=0))
        logits = network.logits(self.model, self.tune.pixels)
        if not (math.isfinite(loss + box_loss) and np.isfinite(logits).all()):
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
        )

    def _variables(self) -> Iterator[Any]:
        yield from self.model.variables
        yield from self.model.optimizer.variables

    def _save(self) -> None:
        arrays = {f"v{n:05d}": np.asarray(variable) for n, variable in enumerate(self._variables())}
        arrays |= {f"b{n:05d}": weight for n, weight in enumerate(self.best_weights)}
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
            done = len(self.history)
            # The optimizer of the phase that was under way; at a phase's end the next one replaces it.
            self._begin_phase(done - 1)
            saved = [arrays[name] for name in names if name.startswith("v")]
            for variable, value in zip(self._variables(), saved, strict=True):
                variable.assign(value)
        return done
