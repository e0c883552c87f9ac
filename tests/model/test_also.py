"""Networks made otherwise beside the first (`train.also`): fitted to the same patients, released as one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from components.model import examples, network
from components.model.train import train
from components.model.training import Training

OTHER = {"backbone": "mobilenet_0.25", "box_weight": 0, "epochs": 2}


@pytest.fixture(scope="module")
def of_two_kinds(archive, make_params, tmp_path_factory) -> Path:
    """Two folds of a network and another one of another kind; and the same two, each fitted by itself to everything."""
    folder = tmp_path_factory.mktemp("kinds")
    seed, both = make_params().seed, {"epochs": 1, "patience": 1, "also": [OTHER]}
    for name, params in {
        "folds": make_params(**both, folds=2),
        "both": make_params(**both),
        "one": make_params(epochs=1, patience=1),
        "other": make_params(patience=1, seed=seed + 1, **OTHER),
    }.items():
        train(**archive.inputs, trained=folder / name / "trained", params=params)
    return folder


def test_networks_of_two_kinds_are_released_as_their_mean(archive, of_two_kinds):
    """Each is what it is by itself, with a seed of its own; maps of 8 and of 4 cells a side come together."""
    pixels = examples.load(**archive.inputs, roles=("tune",)).pixels
    both, one, other = (network.load(of_two_kinds / name / "trained/model.keras") for name in ("both", "one", "other"))

    expected = (network.logits(one, pixels) + network.logits(other, pixels)) / 2
    np.testing.assert_allclose(network.logits(both, pixels), expected, rtol=1e-5, atol=1e-6)
    assert [network.evidence(model, pixels[:1]).shape[1] for model in (both, one, other)] == [8, 8, 4]


def test_the_record_names_every_kind_and_network(of_two_kinds):
    record = Training.read(of_two_kinds / "both/trained")
    history = json.loads((of_two_kinds / "both/trained/history.json").read_text())

    assert [backbone.name for backbone in record.backbones] == ["residual", "mobilenet_0.25"]
    assert [(member.fold, member.network, member.epochs) for member in record.members] == [(None, 1, 1), (None, 2, 2)]
    assert [(row["network"], row["epoch"]) for row in history] == [(1, 1), (2, 1), (2, 2)]


def test_every_fold_has_a_network_of_every_kind(archive, of_two_kinds):
    """Four networks; what is kept of a patient is said by the two that have not seen that patient."""
    record = Training.read(of_two_kinds / "folds/trained")
    said = pd.read_parquet(of_two_kinds / "folds/trained/out_of_fold.parquet")

    assert [(member.fold, member.network) for member in record.members] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert (said["role"] == "train").sum() == len(examples.load(**archive.inputs, roles=("train",)).table)


def test_what_is_not_named_is_as_in_the_first(make_params):
    """A changed parameter of the first changes the others too, but for what they name."""
    first, same, other = make_params(dropout=0.4, also=[{}, OTHER]).networks

    assert (same.backbone, same.dropout, same.box_weight) == ("residual", 0.4, 1.0)
    assert (other.backbone, other.dropout, other.box_weight) == ("mobilenet_0.25", 0.4, 0)
    assert first.epochs == same.epochs == 4


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"backbones": "residual"}, r"also\.0\.backbones\n  Extra inputs are not permitted"),
        ({"epochs": 0}, r"also\.0\.epochs\n  Input should be greater than or equal to 1"),
        ({"seed": 8}, "also: seed is the same for all networks; take it out there"),
        ({"region_weight": 0.1}, "also: region_weight is the same for all networks; take it out there"),
        ("residual", r"also\.0\n  Input should be a valid dictionary"),
    ],
)
def test_what_a_network_cannot_be_is_refused_by_name(make_params, named, said):
    with pytest.raises(ValidationError, match=said):
        make_params(also=[named])


def test_also_has_to_be_a_list(make_params):
    with pytest.raises(ValidationError, match=r"also\n  Input should be a valid tuple"):
        make_params(also={"backbone": "mobilenet_0.25"})
