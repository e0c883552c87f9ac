"""Benchmark: folds fitted side by side, a thread each, beside one after the other with all cores, in one run.

To be run in a clone whose data are validated (`dvc repro validate`) and whose `train.weights` can be found, on an idle
machine: `python -m tests.benchmarks.side_by_side --epochs 2`. Each run is a process of its own, start and joining
included. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from components.model import train as step
from components.params import load

WAYS = ("side by side", "one after the other")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--epochs", type=int, default=2, help="of the whole network, after train.epochs_head")
    arguments.add_argument("--folds", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.one:
        one(chosen.one, chosen.epochs, chosen.folds)
        return
    given = ["--epochs", str(chosen.epochs), "--folds", str(chosen.folds)]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(chosen.rounds):
        for way in WAYS:
            began = time.monotonic()
            call = [sys.executable, "-m", "tests.benchmarks.side_by_side", *given, "--one", way]
            subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
            seconds[way].append(time.monotonic() - began)
    beside, after = (sum(seconds[way]) for way in WAYS)
    print(f"{os.cpu_count()} cores, {chosen.folds} folds, {chosen.epochs} epochs, backbone {load().train.backbone}")
    for way in WAYS:
        print(f"  {way:<20} {', '.join(f'{value:.0f} s' for value in seconds[way])}")
    print(f"  {WAYS[1]} takes {after / beside:.2f} times as long")


def one(way: str, epochs: int, folds: int) -> None:
    params = load()
    changed = {"epochs": epochs, "patience": epochs, "folds": folds, "also": ()}
    if way != WAYS[0]:
        step.PROCESSES_FROM = sys.maxsize
    with tempfile.TemporaryDirectory() as folder:
        step.train(
            accepted=Path(params.paths.accepted),
            prepared=Path(params.paths.prepared),
            trained=Path(folder) / "models" / "trained",
            params=params.train.model_copy(update=changed),
        )


if __name__ == "__main__":
    main()
