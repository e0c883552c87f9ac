"""Export: the released graph says what the network says, and nothing in it depends on when or where."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from components.dataset.rows import rows_sha256, write_rows
from components.errors import DataError
from components.model import examples, network
from components.model.calibrate import Calibrated
from components.model.conversion import convert, parity, steady
from components.model.export import export
from components.params import Export
from components.radiograph.quality import FEATURES
from components.serving.bundle import Bundle, Graph, Supported
from tests.model.conftest import CHECKS, REGIONS


def run(source, bundle, parity=0.001, min_supported=0, **changes):
    given = {"trained": source.trained, "calibration": source.calibration, "features": source.features} | changes
    export(
        **(source.inputs | given),
        bundle=bundle,
        params=Export(
            intended_use="decision support for research",
            variant="float32",
            parity=parity,
            heat_map=CHECKS,
            regions=REGIONS,
            min_supported=min_supported,
        ),
    )


def test_the_released_graph_says_what_the_network_says(trained, released):
    """Probability, logit and embedding of 64 images agree with Keras to float32 accuracy; ties are no flipped calls."""
    data = examples.load(**trained.inputs, roles=("tune", "calibrate"))
    model, curve, bundle = (
        network.load(trained.trained / "model.keras"),
        Calibrated.read(trained.calibration),
        Bundle.open(released),
    )
    logits = network.logits(model, data.pixels)
    outputs = [bundle.graph.run(square) for square in data.pixels]

    found = bundle.manifest.parity
    assert (found.images, found.flips, found.difference < 1e-4) == (64, 0, True)
    assert bundle.manifest.intended_use == "decision support for research"
    np.testing.assert_allclose([o.logit for o in outputs], logits, atol=1e-3)
    np.testing.assert_allclose([o.probability for o in outputs], curve.probability(logits), atol=1e-4)
    assert outputs[0].embedding.shape == (160,)


def test_half_precision_halves_the_file(trained, released):
    """float16 keeps the probability to a hundredth and takes half the room."""
    data = examples.load(**trained.inputs, roles=("tune",))
    model, curve = network.load(trained.trained / "model.keras"), Calibrated.read(trained.calibration)
    content = convert(model, curve, "float16", data.pixels)
    outputs = [Graph(content, 64, where=released).run(square) for square in data.pixels]

    assert len(content) < 0.6 * (released / "model.tflite").stat().st_size
    assert parity(model, curve, data, outputs).difference < 0.01


def test_eight_bits_are_a_third_and_rank_alike(trained, released):
    """int8 takes at most 40% of the room, the same bytes every time; its coarse probabilities keep their order."""
    data = examples.load(**trained.inputs, roles=("tune", "calibrate"))
    model, curve = network.load(trained.trained / "model.keras"), Calibrated.read(trained.calibration)
    content = convert(model, curve, "int8", data.pixels)
    outputs = [Graph(content, 64, where=released).run(square) for square in data.pixels]

    assert len(content) < 0.4 * (released / "model.tflite").stat().st_size
    assert content == convert(model, curve, "int8", data.pixels)
    assert spearmanr([o.probability for o in outputs], network.logits(model, data.pixels)).statistic > 0.9


def test_a_graph_that_answers_in_two_ways_is_seen(trained, released):
    """The same image, asked again, has the same answer to the last bit; anything else is not steady."""
    data = examples.load(**trained.inputs, roles=("tune",))
    graph = Bundle.open(released).graph
    outputs = [graph.run(square) for square in data.pixels]
    moved = [dataclasses.replace(outputs[0], logit=outputs[0].logit + 1e-6), *outputs[1:]]

    assert (steady(graph, data, outputs), steady(graph, data, moved)) == (True, False)


def test_exporting_twice_gives_one_hash(trained, released, tmp_path):
    """Equal inputs give an equal bundle, byte for byte: its hash is an identity."""
    run(trained, tmp_path / "again")

    assert Bundle.open(tmp_path / "again").hash == Bundle.open(released).hash


def test_disagreement_stops_the_release(trained, tmp_path):
    """A graph that differs from the network by more than export.parity is not written."""
    with pytest.raises(DataError, match=r"differ by up to .* export\.parity allows 1e-15"):
        run(trained, tmp_path / "b", parity=1e-15)
    assert not (tmp_path / "b").exists()


def test_weights_that_are_not_the_recorded_ones_stop_the_release(trained, tmp_path):
    """A model file swapped under its record is noticed."""
    shutil.copytree(trained.trained, tmp_path / "trained")
    record = json.loads((tmp_path / "trained/training.json").read_text())
    record["weights_sha256"] = "0" * 64
    (tmp_path / "trained/training.json").write_text(json.dumps(record))

    with pytest.raises(DataError, match=r"training\.json says 0000"):
        run(trained, tmp_path / "b", trained=tmp_path / "trained")


def test_the_reference_describes_images_the_network_was_not_fitted_to(trained, released):
    """One row for each tune and calibrate image, with quality, probability and embedding."""
    table = pd.read_parquet(released / "reference.parquet")

    assert len(table) == 64
    about = ["image_id", "patient_id", "site", "device", "view", "body_region"]
    assert list(table.columns) == [*about, *FEATURES, "probability", "embedding"]
    assert {len(vector) for vector in table["embedding"]} == {160}
    assert set(table["image_id"]).isdisjoint(examples.load(**trained.inputs, roles=("train",)).table["image_id"])


def test_missing_quality_features_name_the_step(trained, tmp_path):
    (tmp_path / "features").mkdir()

    with pytest.raises(DataError, match="run `inspect`"):
        run(trained, tmp_path / "b", features=tmp_path / "features")


def test_the_manifest_names_everything(trained, released):
    """One hash for each part, the data set's hash, the weights' identity, the roles thresholds came from."""
    manifest = json.loads((released / "manifest.json").read_text())

    assert manifest["data"] == {
        "training_images": 120,
        "accepted_sha256": rows_sha256(trained.inputs["accepted"]),
    }
    assert manifest["parts"] == {
        name: hashlib.sha256((released / name).read_bytes()).hexdigest()
        for name in ("model.tflite", "model_card.md", "reference.parquet", "training_images.parquet")
    }
    assert manifest["vocabulary"] == ["fracture", "no_fracture", "review"]
    assert manifest["model"]["backbone"] == "residual"


def test_a_graph_that_tells_nothing_else_has_no_word_of_it(released):
    """A network without further outputs gives the manifest of a bundle from before there were any."""
    manifest = json.loads((released / "manifest.json").read_text())

    assert "regions" not in manifest
    assert "further" not in manifest["model"]
    assert (Bundle.open(released).graph.regions, Bundle.open(released).sure({})) == (0, None)


def test_what_files_state_often_enough_is_supported(trained, tmp_path):
    """32 patients of tune and calibrate, two images each: of a hand, but four of a skull and ten of several regions at
    once; all frontal, but every other image without a view.
    """
    table = pd.read_parquet(trained.inputs["accepted"])
    held = table.index[table["role"].isin(["tune", "calibrate"])]
    table.loc[held[:8], "body_region"] = "skull"
    table.loc[held[8:28], "body_region"] = "mixed"
    table.loc[held[::2], "view"] = "unknown"
    write_rows(tmp_path / "accepted", table)
    run(trained, tmp_path / "b", accepted=tmp_path / "accepted", min_supported=5)
    found = Bundle.open(tmp_path / "b").manifest.supported

    assert found == Supported(body_regions=("hand",), views=("frontal",))
    said = "A file that states another gets no call (body regions: hand; views: frontal); what a file does not state"
    assert said in " ".join((tmp_path / "b/model_card.md").read_text().split())


def test_where_too_few_files_state_anything_nothing_is_asked(trained, tmp_path):
    run(trained, tmp_path / "b", min_supported=33)

    assert Bundle.open(tmp_path / "b").manifest.supported is None


def test_the_card_says_what_the_model_is_for(released):
    """Intended use, provenance and limits are there, and no placeholder is left."""
    card = (released / "model_card.md").read_text()

    assert "Not a medical device" in card
    assert "- residual: random weights\n" in card
    assert "| north | 64 | 32 |" in card
    assert "{" not in card


def test_the_card_marks_weak_grouping(trained, released, tmp_path):
    """Beside its only figure; a card of named patients does not."""
    accepted = tmp_path / "accepted"
    write_rows(accepted, pd.read_parquet(trained.inputs["accepted"]).assign(grouping="weak"))
    run(trained, tmp_path / "b", accepted=accepted)
    card = (tmp_path / "b/model_card.md").read_text()

    assert "\nWeak grouping. Some images came without patient ids" in card
    assert "| AUROC on `tune` (chose the epoch, so optimistic; weak grouping) |" in card
    assert "eak grouping" not in (released / "model_card.md").read_text()


def test_the_heat_map_points_at_the_spot(trained, released):
    """Model behaviour: on most fractures the map's peak lies within a feature-map cell of the bright spot."""
    data = examples.load(**trained.inputs, roles=("calibrate",))
    bundle = Bundle.open(released)
    hits = []
    for square in data.pixels[data.labels == 1]:
        heat_map = bundle.predict(square).heat_map
        peak = np.array(np.unravel_index(int(np.argmax(heat_map)), heat_map.shape))
        spot = np.argwhere(square > 170).mean(axis=0)
        hits.append(np.abs(peak - spot).max() <= 12)

    assert np.mean(hits) > 0.7
