"""An ensemble is one network: the mean logit, the mean map, a file, and a released graph that says the same."""

from __future__ import annotations

import numpy as np
import pytest

from components.model import ensemble, network, runtime
from components.model.calibrate import Calibrated
from components.model.conversion import convert
from components.model.explain import grad_cam
from components.serving.bundle import Conformal, Graph, Threshold, Thresholds

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 64, 64), np.uint8)


@pytest.fixture(scope="module")
def members():
    """Three networks with other weights each."""
    made = []
    for seed in (1, 2, 3):
        runtime.start(seed)
        made.append(network.build("residual", 64, None, 0.2))
    return made


@pytest.fixture(scope="module")
def all_kinds(members):
    """And one with another backbone, whose map has half as many cells a side."""
    runtime.start(4)
    return [*members, network.build("mobilenet_0.25", 64, None, 0.2)]


def test_the_logit_is_the_mean_of_the_members(members):
    joined = ensemble.join(members, mirror=False)

    expected = np.mean([network.logits(member, PIXELS) for member in members], axis=0)
    np.testing.assert_allclose(network.logits(joined, PIXELS), expected, atol=1e-5)


def test_a_mirrored_image_scores_the_same(members):
    """With `mirror`, left and right do not matter, and the logit is the mean over both."""
    joined = ensemble.join(members[:1], mirror=True)

    expected = (network.logits(members[0], PIXELS) + network.logits(members[0], PIXELS[:, :, ::-1])) / 2
    np.testing.assert_allclose(network.logits(joined, PIXELS), expected, atol=1e-5)
    np.testing.assert_allclose(network.logits(joined, PIXELS[:, :, ::-1]), expected, atol=1e-5)


def test_the_map_of_a_mirrored_image_is_the_mirrored_map(members):
    """The heat map follows the picture: it is not left lying mirrored over it."""
    joined = ensemble.join(members, mirror=True)

    there, back = network.evidence(joined, PIXELS), network.evidence(joined, PIXELS[:, :, ::-1])

    assert there.max() > 0
    np.testing.assert_allclose(back, there[:, :, ::-1], atol=1e-5)


def test_it_survives_the_file(all_kinds, tmp_path):
    """Saved and loaded it has the same identity and says the same."""
    joined = ensemble.join(all_kinds, mirror=True)
    network.save(joined, tmp_path / "m.keras")
    again = network.load(tmp_path / "m.keras")

    assert network.weights_sha256(again) == network.weights_sha256(joined)
    np.testing.assert_allclose(network.logits(again, PIXELS), network.logits(joined, PIXELS), atol=1e-6)


def test_the_released_graph_says_the_same(all_kinds, tmp_path):
    """LiteRT runs members and mirror in one graph: probability within 1e-4, and the mean of the cells."""
    joined = ensemble.join(all_kinds, mirror=True)
    at = Thresholds(
        high_sensitivity=Threshold(threshold=0.1, source_role="tune"),
        high_specificity=Threshold(threshold=0.9, source_role="tune"),
    )
    sets = Conformal(
        alpha=0.1,
        fracture_from=0,
        no_fracture_to=1,
        fracture_patients=1,
        no_fracture_patients=1,
        source_role="calibrate",
    )
    curve = Calibrated(
        slope=1.5, intercept=-0.5, source_role="calibrate", n=1, thresholds=at, study_thresholds=None, conformal=sets
    )

    graph = Graph(convert(joined, curve, "float32", PIXELS), 64, where=tmp_path)

    found = [graph.run(square) for square in PIXELS]
    expected = curve.probability(network.logits(joined, PIXELS))
    np.testing.assert_allclose([output.probability for output in found], expected, atol=1e-4)
    cells = network.evidence(joined, PIXELS[:1])[0]
    np.testing.assert_allclose(found[0].heat_map, cells / cells.max(), atol=1e-3)


def test_grad_cam_of_an_ensemble_is_its_members_mean(members):
    """Each member is asked by itself; the mean is scaled to a largest value of 1."""
    joined = ensemble.join(members, mirror=False)
    single = np.mean([grad_cam(member, PIXELS[0]) for member in members], axis=0)

    assert (grad_cam(joined, PIXELS[0]).shape, float(grad_cam(joined, PIXELS[0]).max())) == (single.shape, 1.0)


def test_grad_cam_of_two_kinds_has_the_cells_of_the_finer_one(all_kinds):
    coarse, fine = grad_cam(all_kinds[-1], PIXELS[0]), grad_cam(all_kinds[0], PIXELS[0])

    assert (coarse.shape, fine.shape) == ((2, 2), (4, 4))
    assert grad_cam(ensemble.join(all_kinds, mirror=False), PIXELS[0]).shape == (4, 4)
