"""Cross-validation: trained in folds, judged by the network that has not seen the patient."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from components.dataset.rows import write_rows
from components.errors import DataError
from components.model import network
from components.model.cross_validation import cross_validation
from components.model.train import train
from components.model.training import Training
from components.params import Calibrate, Evaluate
from tests.sweeps import QUICK

POINTS = Calibrate(high_sensitivity=0.95, high_specificity=0.95, conformal_alpha=0.1)
JUDGE = Evaluate(resamples=200, prevalences=(0.1,), min_slice=30, robustness=QUICK, seed=1)


@pytest.fixture(scope="module")
def in_folds(archive, make_params, tmp_path_factory):
    """The archive, trained in three folds, two epochs each."""
    trained = tmp_path_factory.mktemp("folds") / "trained"
    train(**archive.inputs, trained=trained, params=make_params(folds=3, epochs=2, patience=2))
    return trained


def test_every_image_is_judged_once_by_who_has_not_seen_it(in_folds):
    """96 train images have one out-of-fold logit each; no patient is in two folds."""
    said = pd.read_parquet(in_folds / "out_of_fold.parquet")
    unseen = said[said["role"] == "train"]

    assert (len(unseen), unseen["image_id"].nunique()) == (96, 96)
    assert unseen.groupby("patient_id")["fold"].nunique().max() == 1
    assert unseen["fold"].value_counts().to_dict() == {1: 32, 2: 32, 3: 32}


def test_the_released_network_is_the_ensemble(in_folds):
    """Three members stand in the record; what is released has the mean of their logits on `tune`."""
    record = Training.read(in_folds)
    said = pd.read_parquet(in_folds / "out_of_fold.parquet")
    tune = said[said["role"] == "tune"].groupby("image_id")["logit"].mean()

    assert [member.fold for member in record.members] == [1, 2, 3]
    assert [row["fold"] for row in json.loads((in_folds / "history.json").read_text())] == [1, 1, 2, 2, 3, 3]
    assert record.weights_sha256 == network.weights_sha256(network.load(in_folds / "model.keras"))
    assert record.tune_auroc == pytest.approx(_auroc(tune, said), abs=1e-9)


def test_the_figures_have_intervals_and_denominators(in_folds, archive):
    """All 96 images, half of them fractures, in 48 groups of one patient each."""
    found = cross_validation(in_folds, archive.inputs["accepted"], POINTS, JUDGE)

    assert (found.folds, found.images, found.groups, found.positives, found.weak) == (3, 96, 48, 48, False)
    assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert (found.high_sensitivity.sensitivity.n, found.high_specificity.specificity.n, found.pointing.n) == (
        48,
        48,
        48,
    )
    assert "3 folds, 96 images of 48 groups, 48 fractures" in found.text()


def test_known_predictions_give_known_figures(in_folds, archive, tmp_path):
    """A perfect network has AUROC 1 and both rates 1, and points where the box is; one box is missed on purpose."""
    said = pd.read_parquet(in_folds / "out_of_fold.parquet")
    boxes = pd.read_parquet(archive.inputs["accepted"]).set_index("image_id")["boxes"]
    said["logit"] = np.where(said["label"] == 1, 4.0, -4.0)
    for row in said.index[(said["role"] == "train") & (said["label"] == 1)]:
        box = json.loads(boxes[said.at[row, "image_id"]])[0]
        said.loc[row, ["peak_x", "peak_y"]] = [box["x"] + 4.5, box["y"] + 4.5]
    first = said.index[(said["role"] == "train") & (said["label"] == 1)][0]
    said.loc[first, ["peak_x", "peak_y"]] = np.nan
    said.to_parquet(tmp_path / "out_of_fold.parquet")

    found = cross_validation(tmp_path, archive.inputs["accepted"], POINTS, JUDGE)

    assert (found.auroc.value, found.fold_auroc) == (1.0, (1.0, 1.0, 1.0))
    assert (found.high_sensitivity.specificity.value, found.high_specificity.sensitivity.value) == (1.0, 1.0)
    assert found.pointing.value == pytest.approx(47 / 48)


def test_scales_of_the_folds_do_not_matter(in_folds, archive, tmp_path):
    """One network's logits, ten times as large and shifted, change no call: each fold is judged by its own `tune`."""
    said = pd.read_parquet(in_folds / "out_of_fold.parquet")
    before = cross_validation(in_folds, archive.inputs["accepted"], POINTS, JUDGE)
    said.loc[said["fold"] == 2, "logit"] = said["logit"] * 10 + 50
    said.to_parquet(tmp_path / "out_of_fold.parquet")

    after = cross_validation(tmp_path, archive.inputs["accepted"], POINTS, JUDGE)

    assert after.high_sensitivity == before.high_sensitivity
    assert after.auroc.value == pytest.approx(before.auroc.value, abs=1e-6)


def test_a_killed_cross_validation_ends_with_the_same_weights(in_folds, archive, make_params, tmp_path, monkeypatch):
    """Cut in the second fold and started again: the finished fold is not trained again, and the bytes are the same."""
    shown = []

    def cut(line: str, **_: object) -> None:
        shown.append(line)
        if len(shown) == 3:
            raise KeyboardInterrupt

    params = make_params(folds=3, epochs=2, patience=2)
    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", cut)
        with pytest.raises(KeyboardInterrupt):
            train(**archive.inputs, trained=tmp_path / "trained", params=params)
    shown.clear()
    monkeypatch.setattr("builtins.print", lambda line, **_: shown.append(line))
    train(**archive.inputs, trained=tmp_path / "trained", params=params)

    assert [line.split("  ")[:2] for line in shown] == [
        ["fold 2/3", "epoch 2/2"],
        ["fold 3/3", "epoch 1/2"],
        ["fold 3/3", "epoch 2/2"],
    ]
    for name in ("model.keras", "training.json", "out_of_fold.parquet"):
        assert (tmp_path / "trained" / name).read_bytes() == (in_folds / name).read_bytes(), name


def test_a_training_without_folds_says_so(trained, archive):
    with pytest.raises(DataError, match=r"no out-of-fold predictions; set train\.folds"):
        cross_validation(trained.trained, archive.inputs["accepted"], POINTS, JUDGE)


def test_other_data_are_refused(in_folds, archive, tmp_path):
    """Predictions of images that the table does not know are not judged by it."""
    table = pd.read_parquet(archive.inputs["accepted"])
    write_rows(tmp_path / "accepted", table[table["image_id"] != "image0000"])
    shutil.copytree(in_folds, tmp_path / "trained")

    with pytest.raises(DataError, match="images that were trained on are not in it"):
        cross_validation(tmp_path / "trained", tmp_path / "accepted", POINTS, JUDGE)


def _auroc(tune: pd.Series, said: pd.DataFrame) -> float:
    labels = said.drop_duplicates("image_id").set_index("image_id")["label"].reindex(tune.index)
    pairs = [(p, n) for p in tune[labels == 1] for n in tune[labels == 0]]
    return float(np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs]))
