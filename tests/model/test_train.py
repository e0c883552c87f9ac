"""Training: it learns, it is deterministic, it resumes, and it says why it cannot."""

from __future__ import annotations

import json
import shutil
import signal

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dataset.rows import write_rows
from components.errors import DataError
from components.model import examples, loader, network
from components.model.train import train
from components.model.training import Training
from components.params import Augment
from tests.model.killed import killed

NOWHERE = np.empty((0, 4), np.float32)
STILL = Augment(rotate_degrees=0, translate=0, scale=0, exposure=0, noise=0, flip=False)


def test_it_learns(trained):
    """Minimum function: a bright spot is told from noise on patients it was not fitted to."""
    assert Training.read(trained.trained).tune_auroc > 0.95


def test_the_record_tells_what_was_trained(trained):
    """Counts, seed, software and the identity of the weights stand in training.json."""
    record = Training.read(trained.trained)

    assert (record.fractures, record.no_fractures, record.seed, record.size) == (48, 48, 7, 64)
    assert record.weights_sha256 == network.weights_sha256(network.load(trained.trained / "model.keras"))
    assert [(backbone.name, backbone.pretrained) for backbone in record.backbones] == [("residual", None)]
    assert set(record.versions) == {"keras", "numpy", "opencv-python-headless", "tensorflow"}


def test_the_learning_curve_is_kept(trained):
    """One row an epoch, best epoch among them; of what was not learned there is no figure."""
    rows = json.loads((trained.trained / "history.json").read_text())

    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert set(rows[0]) == {"epoch", "phase", "learning_rate", "loss", "box_loss", "tune_loss", "tune_auroc"}
    assert max(row["tune_auroc"] for row in rows) == Training.read(trained.trained).tune_auroc


def test_everyone_who_was_seen_is_listed(trained):
    """Fitting and choosing patients are both in training_images.parquet, calibration patients are not."""
    seen = pd.read_parquet(trained.trained / "training_images.parquet")

    assert seen["role"].value_counts().to_dict() == {"train": 96, "tune": 24}
    assert list(seen.columns) == ["image_id", "patient_id", "label", "role"]


def test_equal_inputs_give_equal_bytes(trained, archive, make_params, tmp_path):
    """A second training, in another place, writes the same files."""
    train(**archive.inputs, trained=tmp_path / "again", params=make_params())

    for name in ("model.keras", "training.json", "history.json", "training_images.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (trained.trained / name).read_bytes(), name


def test_a_killed_training_ends_with_the_same_weights(trained, archive, make_params, tmp_path):
    """SIGKILL after the second epoch, started again: same bytes as an undisturbed run, and no checkpoint is left."""
    call = {**archive.inputs, "trained": tmp_path / "models" / "trained", "params": make_params()}
    ended = killed(call, epochs=2)
    assert (ended, (tmp_path / "models" / "trained").exists()) == (-signal.SIGKILL, False)
    train(**call)

    for name in ("model.keras", "training.json", "history.json"):
        assert (tmp_path / "models" / "trained" / name).read_bytes() == (trained.trained / name).read_bytes(), name
    assert not (tmp_path / "models" / ".training").exists()


def test_each_epoch_prints_one_line(archive, make_params, tmp_path, capsys):
    """Progress can be read by a person and by a program."""
    train(**archive.inputs, trained=tmp_path / "trained", params=make_params(epochs=1))

    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 1/1  whole  0 s left  loss ")
    assert "tune AUROC 0." in line or "tune AUROC 1." in line


def test_head_first_then_everything(archive, make_params, tmp_path):
    """With starting weights the head is fitted alone before the backbone moves."""
    donor = network.build("residual", 64, None, 0.1).get_layer("backbone")
    donor.save_weights(tmp_path / "start.weights.h5")
    params = make_params(weights=str(tmp_path / "start.weights.h5"), epochs_head=1, epochs=1)
    train(**archive.inputs, trained=tmp_path / "trained", params=params)

    assert [row["phase"] for row in json.loads((tmp_path / "trained/history.json").read_text())] == ["head", "whole"]
    assert Training.read(tmp_path / "trained").backbones[0].pretrained.name == "start.weights.h5"


def test_divergence_stops_training(archive, make_params, tmp_path):
    """A loss that is no number ends training with the epoch and the learning rate, and writes nothing."""
    with pytest.raises(DataError, match=r"diverged in epoch \d of 4.*learning rate.*train\.learning_rate"):
        train(**archive.inputs, trained=tmp_path / "trained", params=make_params(learning_rate=1e30))

    assert not (tmp_path / "trained").exists()


def test_one_region_is_none_to_tell_apart(archive, make_params, tmp_path):
    """Every image of the archive is of a hand."""
    with pytest.raises(DataError, match=r"train\.region_weight: .* fewer than two body regions"):
        train(**archive.inputs, trained=tmp_path / "trained", params=make_params(region_weight=0.1))


@pytest.mark.parametrize("role", ["train", "tune"])
def test_one_kind_of_image_is_not_enough(role, make_archive, make_params, tmp_path):
    """A role without fractures is refused before anything is trained; the message counts."""
    labels = np.arange(40) % 2.0
    labels[slice(0, 30) if role == "train" else slice(30, 40)] = 0
    found = make_archive(tmp_path / "archive", {"train": 30, "tune": 10}, labels=labels)

    with pytest.raises(DataError, match=f"role {role} has 0 images with and {30 if role == 'train' else 10} without"):
        train(**found.inputs, trained=tmp_path / "trained", params=make_params())


def test_rows_that_were_not_accepted_are_not_learned_from(make_archive, tmp_path):
    """Quarantined and unlabelled rows, and other roles, are not even loaded."""
    found = make_archive(tmp_path / "archive", {"train": 10, "tune": 4, "test": 6})
    table = pd.read_parquet(found.inputs["accepted"])
    table.loc[0, "accepted"] = False
    table.loc[1, "label"] = np.nan
    write_rows(found.inputs["accepted"], table)

    data = examples.load(**found.inputs, roles=("train", "tune"))

    assert data.table["image_id"].tolist() == [f"image{n:04d}" for n in range(2, 14)]


def test_missing_pixels_name_the_step(make_archive, tmp_path):
    """An image without prepared pixels stops training; the counts and the step are named."""
    found = make_archive(tmp_path / "archive", {"train": 10, "tune": 4})
    (found.inputs["prepared"] / "a-1.npz").unlink()

    with pytest.raises(DataError, match="expected pixels of 14 images, found 7; run `prepare`"):
        examples.load(**found.inputs, roles=("train", "tune"))


def test_mixed_transforms_are_refused(make_archive, tmp_path):
    """Shards prepared in two ways never train one network."""
    found = make_archive(tmp_path / "archive", {"train": 10})
    shard = found.inputs["prepared"] / "a-1.npz"
    with np.load(shard) as arrays:
        np.savez(
            shard, image_id=arrays["image_id"], pixels=arrays["pixels"], transform=np.array('{"size": 64, "low": 1}')
        )

    with pytest.raises(DataError, match="2 different transforms; run `prepare`"):
        examples.load(**found.inputs, roles=("train",))


def test_pixels_stay_with_their_image(archive):
    """Whatever shard a picture lies in, its bright spot comes with its label."""
    data = examples.load(**archive.inputs, roles=("train",))
    brightest = np.sort(data.pixels.reshape(len(data.pixels), -1), axis=1)[:, -40]

    assert ((brightest > 150) == (data.labels == 1)).all()


def test_no_augmentation_is_the_identity():
    """With every parameter at zero the image comes back as it was."""
    square = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)

    boxes = np.array([[3, 5, 7, 9], [0, 0, 32, 32]], np.float32)
    image, moved = loader.augment(square, boxes, STILL, np.random.default_rng(1))

    np.testing.assert_allclose(image, square, atol=1e-3)
    np.testing.assert_allclose(moved, boxes, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(8, 48), st.integers(8, 48))
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_box_stays_on_its_fracture(seed, x, y):
    """Whatever is drawn, the middle of a bright spot is the middle of its box, to half a pixel."""
    square = np.zeros((64, 64), np.uint8)
    square[y : y + 8, x : x + 8] = 200
    wild = Augment(rotate_degrees=45, translate=0.1, scale=0.3, exposure=0, noise=0, flip=True)
    image, moved = loader.augment(
        square, np.array([[x, y, x + 8, y + 8]], np.float32), wild, np.random.default_rng(seed)
    )
    middle = (moved[0, :2] + moved[0, 2:]) / 2
    hypothesis.assume((middle > 12).all() and (middle < 52).all())  # no part of the spot has left the square

    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    found = [(image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()]
    np.testing.assert_allclose(middle, found, atol=0.5)


def test_cells_are_those_that_a_box_touches():
    """In a map of 4 x 4 over 64 pixels a cell is 16 wide; what lies outside the square touches nothing."""
    boxes = np.array([[15, 20, 17, 31], [60, -9, 90, 3], [70, 70, 80, 80]], np.float32)

    assert loader.cells(boxes, 4, 64).astype(int).tolist() == [[0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_an_unlocated_fracture_says_nothing_of_cells(archive):
    """Without boxes a fracture weighs on no cell; images without a fracture do, on all of theirs."""
    data = examples.load(**archive.inputs, roles=("train",))
    lost = examples.Examples(data.table.assign(boxes="[]"), data.pixels, data.transform)
    batch = next(loader.batches(lost, STILL, side=8, batch_size=16, seed=0, epoch=0))

    assert (
        batch.cell_weights[batch.labels[:, 0] == 1].max(),
        batch.cell_weights[batch.labels[:, 0] == 0].min() > 0,
    ) == (0, True)


def test_flip_mirrors_left_and_right():
    """Half of the draws are mirrored, none is turned upside down."""
    square = np.zeros((32, 32), np.uint8)
    square[3, 5] = 200
    random = np.random.default_rng(0)
    spots = {
        tuple(
            int(n)
            for n in np.argwhere(
                loader.augment(square, NOWHERE, STILL.model_copy(update={"flip": True}), random)[0] > 100
            )[0]
        )
        for _ in range(20)
    }

    assert spots == {(3, 5), (3, 26)}


def test_augmented_images_stay_in_range(make_params):
    """Strong augmentation never leaves the range the network was built for."""
    square = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    strong = Augment(rotate_degrees=45, translate=0.5, scale=0.5, exposure=1, noise=1, flip=True)
    drawn = np.stack([loader.augment(square, NOWHERE, strong, np.random.default_rng(n))[0] for n in range(20)])

    assert (drawn.dtype, drawn.shape) == (np.float32, (20, 32, 32))
    assert (float(drawn.min()) >= 0, float(drawn.max()) <= 255) == (True, True)


def test_classes_weigh_the_same():
    """Three fractures in twelve images: their weights add up to those of the nine others, mean 1."""
    weights = loader.balance(np.array([1, 1, 1] + [0] * 9))

    assert weights[:3].sum() == pytest.approx(6)
    assert weights[3:].sum() == pytest.approx(6)


def test_a_batch_is_a_function_of_its_number(archive):
    """The same seed and epoch give the same batches; the next epoch gives others."""
    data = examples.load(**archive.inputs, roles=("train",))
    spec = {"params": Augment(rotate_degrees=9, translate=0.1, scale=0.1, exposure=0.1, noise=0.1, flip=True)}
    one, two = (list(loader.batches(data, **spec, side=8, batch_size=16, seed=3, epoch=0)) for _ in range(2))
    other = list(loader.batches(data, **spec, side=8, batch_size=16, seed=3, epoch=1))

    assert len(one) == 6
    assert all(np.array_equal(a, vars(y)[name]) for x, y in zip(one, two, strict=True) for name, a in vars(x).items())
    assert not np.array_equal(one[0].images, other[0].images)


def test_a_lost_record_names_the_step(trained, tmp_path):
    shutil.copytree(trained.trained, tmp_path / "copy")
    (tmp_path / "copy" / "training.json").write_text("{}")

    with pytest.raises(DataError, match="run `train`"):
        Training.read(tmp_path / "copy")
