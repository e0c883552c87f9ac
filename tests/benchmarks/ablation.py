"""Benchmark: what each ingredient of the training buys, on the same folds (`python -m tests.benchmarks.ablation`).

To be run in a clone whose data are validated (`dvc repro validate`) and whose `train.weights` can be found. Each row
changes what it names in `params.yaml` and is trained on the same folds of role `train`; its networks are judged on what
they have not seen, each fold on the scale that its network has on role `tune`. The sealed test patients are not looked
at. A fold of a row is a process on one core; what stands in FOLDER is not trained again. Nothing is asserted.

    python -m tests.benchmarks.ablation FOLDER --folds 1,2 --rows "base,another seed,base + another seed,no boxes"

`+` is what `train.also` releases of several rows: one network, their mean, in logits and in cells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.dataset.prepare import prepare
from components.model import ensemble, examples, folds, network
from components.model.cross_validation import CrossValidation, cross_validation, judged
from components.model.examples import Examples
from components.model.fitting import Epoch, best
from components.model.statistics import auroc, auroc_of, bootstrap, percentile
from components.model.train import fitted, place, regions_told
from components.params import Params, Train, load

BASE = "base"
MEAN = " + "
FOLDS = 5
MIRRORED = ".mirror.parquet"
ROWS: dict[str, dict[str, Any]] = {
    BASE: {},
    "another seed": {"repeat": 2},
    "random weights": {"weights": "none"},
    "nothing frozen": {"frozen_stride": 1},
    "no boxes": {"box_weight": 0},
    "boxes weigh 1": {"box_weight": 1.0},
    "batches of 8": {"batch_size": 8},
    "256 pixels": {"size": 256},
    "512 pixels": {"size": 512},
    "batches of 8 at 512 pixels": {"batch_size": 8, "size": 512},
    "two scales": {"two_scale": True},
    "average of weights": {"ema": 0.995},
    "pairs of images": {"mixup": 0.2},
    "slower layers": {"layer_decay": 0.7},
    "region and number": {"region_weight": 0.1, "count_weight": 0.1},
    "no augmentation": {
        "augment": {"rotate_degrees": 0, "translate": 0, "scale": 0, "exposure": 0, "noise": 0, "flip": False}
    },
    "MobileNetV2": {
        "backbone": "mobilenet_v2",
        "frozen_stride": 16,
        "learning_rate": 0.0003,
        "epochs": 10,
        "patience": 10,
    },
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--folds", default="1,2,3,4,5", help="of five")
    arguments.add_argument("--epochs", type=int, help="of the whole network, in place of train.epochs")
    arguments.add_argument("--rows", default=",".join(ROWS))
    arguments.add_argument("--v2", help="the file of MobileNetV2's weights", default="imagenet")
    arguments.add_argument("--at-once", type=int, default=os.cpu_count())
    arguments.add_argument("--one", nargs=2, metavar=("ROW", "FOLD"), help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.one:
        row, fold = chosen.one[0], int(chosen.one[1])
        if MEAN in row:
            together(chosen.folder, row, fold)
        else:
            train(chosen.folder, row, fold, chosen.epochs, chosen.v2)
        return
    rows, numbers = chosen.rows.split(","), [int(number) for number in chosen.folds.split(",")]
    single = list(dict.fromkeys(one for row in rows for one in row.split(MEAN)))
    for size in {ROWS[row].get("size", 0) for row in single} - {0}:
        square(chosen.folder, size)
    given = [sys.executable, "-m", "tests.benchmarks.ablation", str(chosen.folder), "--v2", chosen.v2]
    given += ["--epochs", str(chosen.epochs)] if chosen.epochs else []

    def run(job: tuple[str, int]) -> None:
        row, fold = job
        if record(chosen.folder, row, fold).exists():
            return
        one = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
        subprocess.run([*given, "--one", row, str(fold)], env=one, check=True)

    with ThreadPoolExecutor(chosen.at_once) as pool:
        list(pool.map(run, [(row, fold) for row in single for fold in numbers]))
        list(pool.map(run, [(row, fold) for row in rows if MEAN in row for fold in numbers]))
    show(chosen.folder, rows, numbers)


def record(folder: Path, row: str, fold: int) -> Path:
    return folder / f"{row.replace(' ', '-')}-{fold}.json"


def square(folder: Path, size: int) -> Path:
    """The same images at another size."""
    params = load()
    own = folder / f"prepared-{size}"
    if not own.exists():
        paths, changed = params.paths, params.prepare.model_copy(update={"size": size})
        prepare(catalog=Path(paths.catalog), studies=Path(paths.studies), prepared=own, params=changed)
    return own


def train(folder: Path, row: str, fold: int, epochs: int | None, v2: str) -> None:
    """Fit the network that does not see `fold`, and keep it and what it says of that fold."""
    everything, changed = load(), dict(ROWS[row])
    size, repeat = changed.pop("size", None), changed.pop("repeat", 1)
    if changed.get("backbone") == "mobilenet_v2":
        changed["weights"] = v2
    changed |= {"epochs": epochs, "patience": epochs} if epochs else {}
    params = Train.model_validate(everything.train.model_dump() | changed | {"folds": FOLDS})
    fit, tune, seen, unseen = parts(folder, size, fold, params)
    given = network.pretrained(params.backbone, params.weights)
    to = record(folder, row, fold)
    began = time.process_time()

    def progress(epoch: Epoch, planned: int) -> None:
        print(f"{row}, fold {fold}: epoch {epoch.epoch}/{planned}, tune AUROC {epoch.tune_auroc:.3f}", flush=True)

    model, curve = fitted(
        seen,
        tune,
        params,
        nth=place(params, fold - 1, repeat - 1),
        weights=given[0] if given else None,
        told=regions_told(fit, params),
        checkpoint=to.with_suffix(".npz"),
        progress=progress,
    )
    seconds = time.process_time() - began
    network.save(model, to.with_suffix(".keras"))
    keep(to, [model], unseen, tune, fold)
    to.write_text(json.dumps({"seconds": seconds, "best_epoch": best(curve).epoch}))


def together(folder: Path, row: str, fold: int) -> None:
    """Join the networks of several rows as `train.also` does, and keep what they say of the fold they have not seen."""
    files = [record(folder, one, fold) for one in row.split(MEAN)]
    sizes = {ROWS[one].get("size") for one in row.split(MEAN)}
    assert len(sizes) == 1, "networks of one input size can be joined"
    _, tune, _, unseen = parts(folder, sizes.pop(), fold, load().train)
    to = record(folder, row, fold)
    keep(to, [network.load(file.with_suffix(".keras")) for file in files], unseen, tune, fold)
    to.write_text(json.dumps({"seconds": sum(json.loads(file.read_text())["seconds"] for file in files)}))


def parts(folder: Path, size: int | None, fold: int, params: Train) -> tuple[Examples, Examples, Examples, Examples]:
    """Roles train and tune, and of train what the network of `fold` sees and what it does not."""
    paths = load().paths
    prepared = square(folder, size) if size else Path(paths.prepared)
    data = examples.load(Path(paths.accepted), prepared, roles=("train", "tune"))
    fit = data.role("train")
    _, seen, unseen = next(turn for turn in folds.turns(fit, FOLDS, params.seed) if turn[0] == fold)
    assert unseen is not None
    return fit, data.role("tune"), seen, unseen


def keep(to: Path, networks: list[Any], unseen: Examples, tune: Examples, fold: int) -> None:
    """What is released of `networks` says of the fold that they have not seen, with and without its mirror image."""
    for ending, mirror in ((".parquet", False), (MIRRORED, True)):
        released = ensemble.released(networks, mirror=mirror)
        folds.held_out(released, unseen, tune, fold).to_parquet(to.with_suffix(ending))


def said(folder: Path, row: str, numbers: list[int], *, mirror: bool = False) -> pd.DataFrame:
    """What the networks of `row` say of the folds that they have not seen, and of role `tune`: as `train` keeps it."""
    ending = MIRRORED if mirror else ".parquet"
    return pd.concat([pd.read_parquet(record(folder, row, fold).with_suffix(ending)) for fold in numbers])


def show(folder: Path, rows: list[str], numbers: list[int]) -> None:
    """Print the table. Differences from the first row are paired: the same patients are drawn for both."""
    params = load()
    found = [judgement(folder, row, numbers, params) for row in rows]
    _, first = found[0]
    labels, groups = first["label"].to_numpy(float), first["group_id"].to_numpy(str)
    print(f"{len(labels)} images, {int(labels.sum())} fractures, {len(set(groups))} groups; folds {numbers} of {FOLDS}")
    print(f"{'':<26}{'AUROC':<22}{'beside ' + rows[0]:<28}{'mirrored':<22}{'peak in a box':<22}minutes a fold")

    def drawn(scores: np.ndarray) -> np.ndarray:
        of = auroc_of(labels, scores)
        return bootstrap(groups, of, resamples=params.evaluate.resamples, seed=params.evaluate.seed)[:, 0]

    mine = first["probability"].to_numpy(float)
    area, draws = auroc(labels, mine), drawn(mine)
    texts = []
    for row, (figures, table) in zip(rows, found, strict=True):
        scores = table["probability"].to_numpy(float)
        difference = percentile(auroc(labels, scores) - area, drawn(scores) - draws, len(labels))
        mirrored, _ = judgement(folder, row, numbers, params, mirror=True)
        texts += [f"\n{row}: {figures.text()}", f"\n{row}, mirrored: {mirrored.text()}"]
        files = [record(folder, row, fold) for fold in numbers]
        minutes = sum(json.loads(file.read_text())["seconds"] for file in files) / 60 / len(numbers)
        print(
            f"{row:<26}{figures.auroc!s:<22}{(str(difference) if row != rows[0] else ''):<28}"
            f"{mirrored.auroc!s:<22}{figures.pointing!s:<22}{minutes:.1f}"
        )
    print("\n".join(texts))


def judgement(
    folder: Path, row: str, numbers: list[int], params: Params, *, mirror: bool = False
) -> tuple[CrossValidation, pd.DataFrame]:
    """The figures of a row, and one line an image, each fold on the scale of its own network; equal rows line up."""
    table = said(folder, row, numbers, mirror=mirror)
    with tempfile.TemporaryDirectory() as kept:
        table.to_parquet(Path(kept) / folds.OUT_OF_FOLD)
        found = cross_validation(Path(kept), Path(params.paths.accepted), params.calibrate, params.evaluate)
    settled = pd.concat([judged(part, params.calibrate) for _, part in table.groupby("fold")])
    return found, settled.sort_values("image_id")


if __name__ == "__main__":
    main()
