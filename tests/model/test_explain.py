"""Explanations: the released map is Grad-CAM, SmoothGrad finds the evidence, the pointing game counts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from components.model import ensemble, examples, network
from components.model.explain import covered, grad_cam, pointing_game, smooth_grad
from components.radiograph.labels import Box, boxes_of
from components.serving.bundle import Bundle


@pytest.fixture(scope="module")
def fractures(trained):
    data = examples.load(**trained.inputs, roles=("calibrate",))
    return data.pixels[data.labels == 1][:5]


def test_the_released_map_is_the_network_s_cells(trained, released, fractures):
    """What is served is what the score was made of, scaled to a largest value of 1."""
    model, bundle = network.load(trained.trained / "model.keras"), Bundle.open(released)
    cells = network.evidence(model, fractures)

    found = np.stack([bundle.graph.run(square).heat_map for square in fractures])
    np.testing.assert_allclose(found, cells / cells.max(axis=(1, 2), keepdims=True), atol=1e-3)


def test_boxes_teach_the_map_to_point(trained):
    """The highest cell of a patient that was not fitted to lies on the bright spot, nine times in ten."""
    data = examples.load(**trained.inputs, roles=("calibrate",))
    chosen = data.where(data.labels == 1)
    maps = network.evidence(network.load(trained.trained / "model.keras"), chosen.pixels)
    hits = [
        pointing_game(data.transform.place(found, 64, 64), boxes_of(text))
        for found, text in zip(maps, chosen.table["boxes"], strict=True)
    ]

    assert np.mean(hits) >= 0.9


def test_grad_cam_looks_where_the_spot_is(trained, fractures):
    """Gradients agree with the cells about the half of the picture that matters."""
    model = network.load(trained.trained / "model.keras")
    ratios = []
    for square in fractures:
        gradients = cv2.resize(grad_cam(model, square), square.shape, interpolation=cv2.INTER_LINEAR)
        ratios.append(gradients[square > 170].mean() / gradients[square <= 170].mean())

    assert np.median(ratios) > 1.5


def test_grad_cam_of_two_scales_is_of_the_larger_one():
    """64 pixels at stride 32 are 2 x 2; a mirrored mean of such networks has it too."""
    model = network.build("mobilenet_0.25", 64, None, 0.0, two_scale=True)
    square = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)

    assert grad_cam(model, square).shape == (2, 2)
    assert grad_cam(ensemble.join([model], mirror=True), square).shape == (2, 2)


def test_smooth_grad_lights_the_spot(trained, fractures):
    """Pixels of the bright spot matter more than the rest."""
    model = network.load(trained.trained / "model.keras")
    ratios = []
    for square in fractures:
        sensitivity = smooth_grad(model, square, samples=8)
        ratios.append(sensitivity[square > 170].mean() / sensitivity[square <= 170].mean())

    assert np.median(ratios) > 1.5


def test_smooth_grad_is_repeatable(trained, fractures):
    """One seed, one map, in 0..1."""
    model = network.load(trained.trained / "model.keras")
    one, two = (smooth_grad(model, fractures[0], samples=2, seed=5) for _ in range(2))

    assert np.array_equal(one, two)
    assert (float(one.max()), one.shape) == (1.0, (64, 64))


@pytest.mark.parametrize(
    ("row", "column", "tolerance", "hit"),
    [(5, 7, 0, True), (4, 7, 0, False), (9, 9, 0, True), (10, 9, 0, False), (10, 9, 1, True), (40, 40, 0, True)],
)
def test_the_pointing_game_counts_peaks_inside_a_box(row, column, tolerance, hit):
    """Two boxes, rows 5-9 and columns 7-9, and the single pixel (40, 40); borders belong to the box."""
    heat_map = np.zeros((64, 64), np.float32)
    heat_map[row, column] = 1
    boxes = [Box(x=7, y=5, width=3, height=5), Box(x=40, y=40, width=1, height=1)]

    assert pointing_game(heat_map, boxes, tolerance=tolerance) is hit


def test_a_flat_map_points_nowhere():
    assert pointing_game(np.zeros((8, 8)), [Box(x=0, y=0, width=8, height=8)]) is False


def test_overlapping_boxes_cover_once():
    """10 x 10 pixels; a box of 4 x 5 and the same again, and one of 1 x 1 beside it."""
    boxes = [Box(x=0, y=0, width=4, height=5), Box(x=0, y=0, width=4, height=5), Box(x=9, y=9, width=1, height=1)]

    assert covered((10, 10), boxes) == 0.21
