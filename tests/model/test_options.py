"""The training options: an average of the weights, images in pairs, and rates that fall away from the head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from components.model import examples, loader, network, optimizer, runtime
from components.model.averaging import Average
from components.params import Augment

STILL = Augment(rotate_degrees=0, translate=0, scale=0, exposure=0, noise=0, flip=False)


def test_the_average_is_the_recurrence_by_hand():
    """Three steps of a network of one weight: d = min(.5, (1 + t) / (10 + t)), that is .1, 2/11, .25."""
    keras = runtime.keras()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[8.0]])])
    average = Average(model, 0.5)
    expected = 8.0
    for step, (weight, kept) in enumerate([(1.0, 0.1), (2.0, 2 / 11), (4.0, 0.25)]):
        model.set_weights([np.array([[weight]])])
        average.update(model, step)
        expected = kept * expected + (1 - kept) * weight

    assert average.values[0][0, 0] == pytest.approx(expected, rel=1e-6)
    with average.inside(model):
        assert model.get_weights()[0][0, 0] == average.values[0][0, 0]
    assert model.get_weights()[0][0, 0] == 4.0


def test_a_long_memory_keeps_its_decay():
    """After the warm-up d is the decay itself."""
    keras = runtime.keras()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[0.0]])])
    average = Average(model, 0.9)
    model.set_weights([np.array([[1.0]])])
    average.update(model, 1000)

    assert average.values[0][0, 0] == pytest.approx(0.1, rel=1e-6)


def test_mixed_images_are_the_convex_combination(archive):
    """Picture, label and number of fractures, with classes of one weight; the same seed mixes the same way."""
    data = examples.load(**archive.inputs, roles=("train",))
    (plain, *_), (mixed, *_) = (
        list(loader.batches(data, STILL, side=8, batch_size=96, seed=0, epoch=0, mixup=alpha)) for alpha in (0, 0.4)
    )
    random = np.random.default_rng([0, 0, 0])
    for _ in range(96):  # what the augmentation has drawn before
        loader.augment(data.pixels[0], np.empty((0, 4), np.float32), STILL, random)
    share, partner = random.beta(0.4, 0.4, 96).astype(np.float32), random.permutation(96)

    for name in ("images", "labels", "fractures"):
        value = getattr(plain, name)
        part = share.reshape(-1, *[1] * (value.ndim - 1))
        expected = part * value + (1 - part) * value[partner]
        np.testing.assert_allclose(getattr(mixed, name), expected, atol=1e-4)
    np.testing.assert_allclose(mixed.weights, 1, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=50, deadline=None)
def test_the_loss_of_a_mixed_target_is_the_mixed_loss(seed):
    """Whatever the weights, those of what is not known among them: cross-entropy against any prediction."""
    random = np.random.default_rng(seed)
    target = np.eye(3, dtype=np.float32)[random.integers(3, size=6)]
    weight = (random.random(6) * (random.random(6) < 0.7)).astype(np.float32)
    share, partner = random.random(6).astype(np.float32), random.permutation(6)
    said = np.log(random.dirichlet(np.ones(3), 6))
    found, total = loader.mixed(target, weight, share, partner)

    own = -weight * (target * said).sum(axis=1)
    other = -weight[partner] * (target[partner] * said).sum(axis=1)
    np.testing.assert_allclose(-total * (found * said).sum(axis=1), share * own + (1 - share) * other, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_what_is_not_known_weighs_nothing(make_archive, tmp_path):
    """A picture of no single region, and a fracture that nobody has located, have targets of weight 0."""
    found = make_archive(tmp_path / "archive", {"train": 24}, regions=True)
    data = examples.load(**found.inputs, roles=("train",))
    data = examples.Examples(data.table.assign(boxes="[]"), data.pixels, data.transform)
    spec = {"side": 8, "batch_size": 24, "seed": 0, "epoch": 0, "regions": ("hand", "leg")}
    batch = next(loader.batches(data, STILL, **spec))
    order = np.random.default_rng([0, 0]).permutation(24)
    known = data.table["body_region"].isin(["hand", "leg"]).to_numpy()[order]

    assert (batch.region_weights.tolist(), int(known.sum())) == (known.astype(float).tolist(), 20)
    assert batch.fracture_weights.tolist() == (1 - batch.labels[:, 0]).tolist()
    assert batch.regions[known, 0].tolist() == (data.table["body_region"] == "hand").to_numpy()[order][known].tolist()


def test_a_layer_learns_slower_the_farther_it_lies_from_the_head():
    """Adam's first step is the learning rate itself: it halves with every halving of the stride."""
    runtime.start(1)
    model = network.build("residual", 32, None, 0.0)
    levels = network.levels(model)
    made = optimizer.optimizer(model, rate=0.01, steps=10, warmup=0, layer_decay=0.5)
    model.compile(optimizer=made, loss={"logit": "mse"}, jit_compile=False)
    before = {v.path: np.asarray(v.numpy()) for v in model.trainable_variables}
    images = np.random.default_rng(0).random((4, 32, 32, 1), np.float32) * 255
    model.train_on_batch(images, {"logit": np.ones((4, 1), np.float32)})
    steps: dict[int, float] = {}
    for variable in model.trainable_variables:
        moved = float(np.abs(variable.numpy() - before[variable.path]).max())
        steps[levels[variable.path]] = max(moved, steps.get(levels[variable.path], 0))

    assert steps == pytest.approx({level: 0.01 * 0.5**level for level in range(6)}, rel=2e-3)
    assert optimizer.learning_rate(made) == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("backbone", ["residual", "mobilenet_0.25", "mobilenet_v3_small"])
def test_levels_follow_the_stride(backbone):
    """Every weight that learns has a level; the stem is the farthest, squeeze-and-excitation stays with its block."""
    model = network.build(backbone, 64, None, 0.0)
    levels = network.levels(model)

    assert set(levels) == {variable.path for variable in model.trainable_variables}
    assert (levels["logit/kernel"], levels["local/kernel"]) == (0, 0)
    assert sorted(set(levels.values())) == [0, 1, 2, 3, 4, 5]
    squeezed = {level for path, level in levels.items() if "squeeze_excite" in path}
    assert squeezed == ({1, 2, 4} if backbone == "mobilenet_v3_small" else set())


def test_one_rate_for_all_is_plain_adamw():
    """A decay of 1 is the optimizer of before, of one part."""
    model = network.build("residual", 32, None, 0.0)

    made = optimizer.optimizer(model, rate=0.01, steps=10, warmup=2, layer_decay=1)

    assert (type(made).__name__, optimizer.learning_rate(made)) == ("AdamW", pytest.approx(0.001))
