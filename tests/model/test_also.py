"""Networks made otherwise beside the first (`train.also`): fitted to the same patients, released as one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from components.model import examples, network
from components.model.calibrate import calibrate
from components.model.export import export
from components.model.train import train
from components.model.training import Training
from components.params import Calibrate, Export
from components.serving.bundle import Bundle
from tests.model.conftest import CHECKS, REGIONS

EXPORT = Export(
    intended_use="research", variant="float32", parity=0.001, heat_map=CHECKS, regions=REGIONS, min_supported=0
)
OTHER = {"backbone": "mobilenet_0.25", "box_weight": 0, "epochs": 2}


@pytest.fixture(scope="module")
def of_two_kinds(archive, make_params, tmp_path_factory) -> Path:
    """A network and one of another kind, without each of two folds: four, whose maps have 8 and 4 cells a side."""
    folder = tmp_path_factory.mktemp("kinds")
    train(**archive.inputs, trained=folder / "trained", params=make_params(epochs=1, folds=2, also=[OTHER]))
    return folder


def test_a_network_beside_the_first_is_what_it_is_by_itself(trained, make_params, tmp_path):
    """And has a seed of its own; what is released is the mean of both."""
    brief = {"epochs": 1, "patience": 1}
    train(**trained.inputs, trained=tmp_path / "both/trained", params=make_params(also=[brief]))
    train(
        **trained.inputs, trained=tmp_path / "other/trained", params=make_params(seed=make_params().seed + 1, **brief)
    )
    pixels = examples.load(**trained.inputs, roles=("tune",)).pixels
    both, one, other = (
        network.logits(network.load(folder / "model.keras"), pixels)
        for folder in (tmp_path / "both/trained", trained.trained, tmp_path / "other/trained")
    )

    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5, atol=1e-6)


def test_the_record_names_every_kind_and_network(of_two_kinds):
    record = Training.read(of_two_kinds / "trained")
    history = json.loads((of_two_kinds / "trained/history.json").read_text())

    assert [backbone.name for backbone in record.backbones] == ["residual", "mobilenet_0.25"]
    assert [(row["fold"], row["network"], row["epoch"]) for row in history if row["fold"] == 2] == [
        (2, 1, 1),
        (2, 2, 1),
        (2, 2, 2),
    ]


def test_every_fold_has_a_network_of_every_kind(archive, of_two_kinds):
    """Four networks; what is kept of a patient is said by the two that have not seen that patient."""
    record = Training.read(of_two_kinds / "trained")
    said = pd.read_parquet(of_two_kinds / "trained/out_of_fold.parquet")

    assert [(member.fold, member.network) for member in record.members] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert (said["role"] == "train").sum() == len(examples.load(**archive.inputs, roles=("train",)).table)


def test_the_bundle_names_every_backbone_and_what_it_started_from(archive, of_two_kinds):
    """In the manifest and on the card; its graph is the mean, within the parity of any other."""
    trained = of_two_kinds / "trained"
    given = archive.inputs | {"trained": trained, "calibration": of_two_kinds / "calibration.json"}
    calibrate(**given, params=Calibrate(high_sensitivity=0.95, high_specificity=0.95, conformal_alpha=0.1))
    export(**given, features=archive.features, bundle=of_two_kinds / "bundle", params=EXPORT)
    bundle = Bundle.open(of_two_kinds / "bundle")
    model, card = bundle.manifest.model, (bundle.folder / "model_card.md").read_text()

    assert [backbone.name for backbone in model.backbones] == ["residual", "mobilenet_0.25"]
    assert (model.networks, bundle.manifest.parity.images) == (4, 64)
    assert "- Network: residual and mobilenet_0.25, input 64 x 64 pixels" in card
    assert "\n- residual: random weights\n- mobilenet_0.25: random weights\n" in card


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
