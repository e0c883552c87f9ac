"""May readers be shown the heat map: only one that depends on what was learned, and finds fractures."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from components.model import ensemble, examples, network, runtime
from components.model.calibrate import Calibrated
from components.model.card import render
from components.model.examples import spread
from components.model.sanity import cascade, check, correlations, depths, redraw
from components.model.training import Training
from components.params import Export, HeatMapChecks, RegionChecks
from components.radiograph.labels import boxes_of
from components.serving.bundle import Bundle, Outputs

CHECKS = HeatMapChecks(images=16, max_similarity=0.5, min_boxes=10, min_pointed=0.2)
EXPORT = Export(
    intended_use="research on wrists",
    variant="float32",
    parity=0.01,
    heat_map=CHECKS,
    regions=RegionChecks(min_images=50, min_accuracy=0.8, min_sure=0.9),
    min_supported=0,
)


@pytest.fixture(scope="module")
def held(trained):
    return examples.load(**trained.inputs, roles=("tune", "calibrate"))


def cells(held):
    """The same examples with boxes as large as the map can resolve: 8 pixels more on each side."""
    boxes = []
    for text in held.table["boxes"]:
        grown = [(max(0, box.x - 8), max(0, box.y - 8)) for box in boxes_of(text)]
        boxes.append(json.dumps([{"x": x, "y": y, "width": 25, "height": 25} for x, y in grown]))
    return examples.Examples(held.table.assign(boxes=boxes), held.pixels, held.transform)


@pytest.fixture(scope="module")
def model(trained):
    return network.load(trained.trained / "model.keras")


@pytest.fixture(scope="module")
def outputs(held, released):
    graph = Bundle.open(released).graph
    return [graph.run(square) for square in held.pixels]


def test_a_trained_network_passes(model, held, outputs):
    """It points at bright spots as finely as its map of 4 x 4 cells can; the map goes with the weights, which stay."""
    before = network.weights_sha256(model)
    found = check(model, cells(held), outputs, CHECKS, seed=1)

    assert (found.shown, found.reasons) == (True, ())
    assert found.pointed.n == 32
    assert found.pointed.low > found.chance
    assert found.similarity[-1].value < 0.5
    assert network.weights_sha256(model) == before


def test_a_map_that_does_not_point_is_hidden(model, held, outputs):
    """Mirrored, the same maps meet the boxes no more often than chance."""
    wrong = [Outputs(o.probability, o.logit, o.heat_map[::-1, ::-1], o.embedding) for o in outputs]
    found = check(model, cells(held), wrong, CHECKS, seed=1)

    assert found.shown is False
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("its peak is not shown to meet a fracture more often than chance")


def test_better_than_chance_is_not_enough(model, held, outputs):
    """A map that misses more fractures than the protocol allows misleads, however little chance would find."""
    strict = CHECKS.model_copy(update={"min_pointed": 1.0})
    few = [
        o if n % 3 else Outputs(o.probability, o.logit, o.heat_map[::-1, ::-1], o.embedding)
        for n, o in enumerate(outputs)
    ]
    found = check(model, cells(held), few, strict, seed=1)

    assert found.shown is False
    assert found.reasons[0].startswith("its peak misses too many fractures (")
    assert found.reasons[0].endswith("are met, 1 are asked for)")


def test_a_map_of_the_picture_alone_is_hidden(model, held, outputs, monkeypatch):
    """Evidence that is the picture's brightness points well, and stays the same whatever the weights are."""

    def brightness(_model, pixels, **_):
        return pixels.reshape(len(pixels), 16, 4, 16, 4).mean(axis=(2, 4)).astype(np.float32)

    monkeypatch.setattr(network, "evidence", brightness)
    found = check(model, cells(held), outputs, CHECKS, seed=1)

    assert found.shown is False
    assert "with every weight re-drawn the map stays alike (rank correlation 1.00, allowed 0.5)" in found.reasons[0]


def test_too_few_boxes_hide_the_map(model, held, outputs):
    """What cannot be checked is not shown."""
    few = examples.Examples(held.table.assign(boxes="[]"), held.pixels, held.transform)
    found = check(model, few, outputs, CHECKS, seed=1)

    assert (found.shown, found.pointed, found.chance) == (False, None, None)
    assert found.reasons == ("0 fractures have boxes, 10 are needed to judge it",)


def test_the_cascade_goes_from_the_head_to_the_picture(model, held):
    """Four stages, the last with everything re-drawn, and five networks without anything learned."""
    stages, bare = cascade(model, held.pixels[held.labels == 1][:6], seed=3)

    assert [stage.redrawn for stage in stages] == [0.0, 0.333, 0.667, 1.0]
    assert 0 <= stages[-1].value <= 1
    assert [maps.shape for maps in bare] == [(6, 8, 8)] * 5


def test_redrawing_the_head_leaves_the_backbone():
    """And what is re-drawn keeps its values, in another order."""
    runtime.start(1)
    made = network.build("residual", 32, None, 0.0)
    body, head = made.get_layer("backbone").get_weights(), made.get_layer("logit").get_weights()
    redraw(made, -1.0, 0.0, np.random.default_rng(2))
    after = made.get_layer("logit").get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(body, made.get_layer("backbone").get_weights(), strict=True))
    assert not np.array_equal(head[0], after[0])
    assert np.array_equal(np.sort(head[0], axis=None), np.sort(after[0], axis=None))


def test_every_layer_with_weights_has_a_depth(model):
    """0 is the head, 1 is next to the picture; none is forgotten."""
    found = depths(model)

    assert sum(w.size for _, layer in found for w in layer.get_weights()) == sum(w.size for w in model.get_weights())
    assert {layer.name for depth, layer in found if depth == 0} == {"local", "evidence", "logit"}
    assert max(depth for depth, _ in found) == 1.0


def test_every_member_of_an_ensemble_has_a_head():
    """Two networks: six layers of depth 0, and every weight has a depth."""
    runtime.start(1)
    joined = ensemble.join([network.build("residual", 32, None, 0.0) for _ in range(2)], mirror=False)
    found = depths(joined)

    assert [layer.name for depth, layer in found if depth == 0] == ["local", "evidence", "logit"] * 2
    assert sum(w.size for _, layer in found for w in layer.get_weights()) == sum(w.size for w in joined.get_weights())


def test_correlations_are_of_ranks():
    """Any growing change of a map leaves it alike; a flat map is like nothing."""
    one = np.arange(12.0).reshape(1, 3, 4)

    assert correlations(one, one**3) == [pytest.approx(1.0)]
    assert correlations(one, -one) == [pytest.approx(-1.0)]
    assert correlations(one, np.ones((1, 3, 4))) == [None]


def test_spread_takes_first_and_last():
    assert spread(np.array([3, 5, 7, 9, 11]), 3).tolist() == [3, 7, 11]
    assert spread(np.array([3, 5]), 3).tolist() == [3, 5]


@pytest.mark.parametrize(("shown", "words"), [(True, "It passed its checks"), (False, "It is **hidden** from readers")])
def test_the_card_says_whether_it_is_shown(trained, held, released, shown, words):
    """With the figures, or with the reasons."""
    found = Bundle.open(released).manifest.heat_map
    found = found.model_copy(update={"shown": shown, "reasons": () if shown else ("it points nowhere",)})
    training, curve = Training.read(trained.trained), Calibrated.read(trained.calibration)
    seen = pd.read_parquet(released / "training_images.parquet")
    card = render(training, curve, held, seen, EXPORT, 0.0, found, None, None, counts=False)

    assert f"- {words}: " in card
    assert "- Intended use: research on wrists. **Not a medical device.**" in card
    assert (str(found.pointed) in card, "it points nowhere" in card) == (shown, not shown)


def test_the_manifest_keeps_the_evidence(released):
    """As plain JSON, for whoever audits the release."""
    body = json.loads((released / "manifest.json").read_text())["heat_map"]

    assert sorted(body) == ["covered", "pointed", "random", "reasons", "shown", "similarity"]
