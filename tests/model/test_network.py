"""Networks: shapes, starting weights and their provenance, identity, files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from components.errors import ConfigError, DataError, Unavailable
from components.model import network, runtime
from components.model.backbones import PUBLISHED, Published


@pytest.fixture(scope="module")
def residual():
    runtime.start(1)
    return network.build("residual", 64, None, 0.2)


@pytest.mark.parametrize(
    ("backbone", "channels", "cells"),
    [
        ("residual", 160, 8),
        ("mobilenet_0.25", 256, 4),
        ("mobilenet_v2", 1280, 4),
        ("mobilenet_v3_small", 576, 4),
        ("mobilenet_1.0", 1024, 4),
        ("mobilenet_v3_large", 960, 4),
        ("efficientnet_v2_b0", 1280, 4),
        ("densenet121", 1024, 4),
        ("resnet50", 2048, 4),
        ("convnext_tiny", 768, 4),
    ],
)
def test_every_backbone_gives_a_logit_cells_and_an_embedding(backbone, channels, cells):
    """Each network params.yaml can name takes a grey 64-pixel square; its cells are twice as fine as its last map."""
    model = network.build(backbone, 64, None, 0.2)

    assert model.input.shape == (None, 64, 64, 1)
    assert {name: found.shape for name, found in model.output.items()} == {
        "logit": (None, 1),
        "evidence": (None, cells, cells, 1),
        "embedding": (None, channels),
    }


def test_the_small_network_is_small(residual):
    """The from-scratch network has 0.3 to 0.7 million weights."""
    assert 300_000 < residual.count_params() < 700_000


def test_equal_seeds_build_equal_networks(residual):
    """The identity of a network is a function of the seed, and another seed has another identity."""
    runtime.start(1)
    again = network.weights_sha256(network.build("residual", 64, None, 0.2))
    runtime.start(2)
    other = network.weights_sha256(network.build("residual", 64, None, 0.2))

    assert (again == network.weights_sha256(residual), other == again) == (True, False)


def test_saving_twice_gives_equal_bytes(tmp_path):
    """DVC sees no change where there is none: no time stamp or memory address gets into the file."""
    digests = set()
    for name in ("one.keras", "two.keras"):
        runtime.start(1)
        network.save(network.build("residual", 64, None, 0.2), tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())

    assert len(digests) == 1


def test_a_saved_network_comes_back(residual, tmp_path):
    """Weights and logits survive the round trip."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    network.save(residual, tmp_path / "m.keras")
    again = network.load(tmp_path / "m.keras")

    assert network.weights_sha256(again) == network.weights_sha256(residual)
    np.testing.assert_allclose(network.logits(again, pixels), network.logits(residual, pixels), rtol=1e-6)


def test_two_scales_are_looked_at_with_the_same_weights(tmp_path):
    """The backbone has no weight more, saved and loaded it has none more either, and the second look counts."""
    single = network.build("mobilenet_0.25", 64, None, 0.0)
    double = network.build("mobilenet_0.25", 64, None, 0.0, two_scale=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    network.save(double, tmp_path / "m.keras")
    again = network.load(tmp_path / "m.keras")

    backbones = [model.get_layer("backbone").count_params() for model in (single, double, again)]
    assert backbones == [218_544, 218_544, 218_544]
    assert double.output["embedding"].shape == (None, 512)
    np.testing.assert_allclose(network.logits(again, pixels), network.logits(double, pixels), rtol=1e-6)
    kernel = double.get_layer("logit").kernel
    kernel.assign(np.concatenate([np.zeros((256, 1)), np.ones((256, 1)), np.zeros((1, 1))]))  # what the second look saw
    assert np.ptp(network.logits(double, pixels)) > 0


def test_logits_do_not_depend_on_the_batch(residual):
    """An image alone, and among others, has the same logit."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, 64, 64), np.uint8)

    together = network.logits(residual, pixels, batch_size=4)

    np.testing.assert_allclose(
        together, [network.logits(residual, p[None], batch_size=4)[0] for p in pixels], atol=1e-5
    )


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 damaged"])
def test_a_damaged_model_is_a_data_error(content, tmp_path):
    """A missing or broken model file names the step that makes it."""
    if content is not None:
        (tmp_path / "m.keras").write_bytes(content)

    with pytest.raises(DataError, match="run `train`"):
        network.load(tmp_path / "m.keras")


def test_local_weights_are_loaded_and_recorded(tmp_path):
    """A local file fills the whole backbone; its name and hash are recorded, its licence is not invented."""
    runtime.start(3)
    donor = network.build("mobilenet_0.25", 64, None, 0.2).get_layer("backbone")
    donor.save_weights(tmp_path / "own.weights.h5")
    path, origin = network.pretrained("mobilenet_0.25", str(tmp_path / "own.weights.h5"))
    runtime.start(4)
    model = network.build("mobilenet_0.25", 64, path, 0.2)

    assert network.weights_sha256(model.get_layer("backbone")) == network.weights_sha256(donor)
    assert (origin.name, origin.source) == ("own.weights.h5", "local file")
    assert origin.licence == "unknown: stated by whoever provided the file"
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_of_another_network_are_refused(tmp_path):
    """A file that does not fit is a configuration error, never a half-loaded network."""
    network.build("residual", 64, None, 0.2).get_layer("backbone").save_weights(tmp_path / "residual.weights.h5")

    with pytest.raises(ConfigError, match=r"residual.weights.h5 does not fit mobilenet_0.25|lacks"):
        network.build("mobilenet_0.25", 64, tmp_path / "residual.weights.h5", 0.2)


@pytest.mark.parametrize(("mean", "moves"), [(0.0, False), (0.5, True)])
def test_batch_statistics_move_unless_they_were_folded(mean, moves, tmp_path):
    """Weights with batch statistics adapt them in training; folded weights (means of 0) keep theirs."""
    runtime.start(5)
    donor = network.build("residual", 64, None, 0.2).get_layer("backbone")
    for weight in donor.weights:
        if weight.path.endswith("moving_mean"):
            weight.assign(np.full(weight.shape, mean))
    donor.save_weights(tmp_path / "start.weights.h5")
    model = network.build("residual", 64, tmp_path / "start.weights.h5", 0.2)
    network.learn(model, backbone=True, pretrained=True)
    model.compile(optimizer="sgd", loss={"logit": "mse"}, jit_compile=False)
    images = np.random.default_rng(0).random((4, 64, 64, 1), np.float32) * 255
    model.train_on_batch(images, {"logit": np.ones((4, 1), np.float32)})
    means = [np.asarray(w) for w in model.get_layer("backbone").weights if w.path.endswith("moving_mean")]

    assert any((value != mean).any() for value in means) is moves


@pytest.mark.parametrize("weights", ["nowhere.h5", "params.yaml"])
def test_weights_that_are_no_file_are_refused(weights):
    """A typo in train.weights is a configuration error, named as such."""
    with pytest.raises(ConfigError, match=r"train\.weights.*" + weights):
        network.pretrained("mobilenet_0.25", weights)


def test_the_small_network_has_no_imagenet_weights():
    """`imagenet` with the from-scratch network says what to use."""
    with pytest.raises(ConfigError, match="`none` or a local file"):
        network.pretrained("residual", "imagenet")


def test_no_weights_have_no_provenance():
    assert network.pretrained("mobilenet_0.25", "none") is None


def test_a_failed_download_can_be_retried(monkeypatch):
    """Without a network, `imagenet` is Unavailable, and the message names the alternative."""
    monkeypatch.setitem(PUBLISHED, "mobilenet_0.25", Published("http://127.0.0.1:9/weights.h5", "Apache-2.0"))

    with pytest.raises(Unavailable, match="path of a local copy"):
        network.pretrained("mobilenet_0.25", "imagenet")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("mobilenet_0.25", "mobilenet_1_0.25_224_imagenet_no_top.h5"),
        ("mobilenet_v2", "mobilenet_v2_1.0_224_imagenet_no_top.weights.h5"),
    ],
)
def test_published_weights_fit(backbone, name, real_data: Path):
    """The ImageNet files that Keras publishes fill every weight of their backbone, in both file formats."""
    file = real_data.parent / "weights" / name
    if not file.is_file():
        pytest.skip(f"{name} not present")

    assert all(np.isfinite(weight).all() for weight in network.build(backbone, 224, file, 0.2).get_weights())
