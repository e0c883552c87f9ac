"""One network, two engines: what is trained under JAX, say on an accelerator, is released under TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from components.model import network
from tests.model.conftest import OPTIONS, squares

# Runs where Keras has JAX for its engine: the real training, and what the network it wrote says there.
TRAIN = """
import json, sys
from pathlib import Path
import keras
import numpy as np
from components.model import network
from components.model.train import train
from components.params import Train

folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
paths = {name: Path(given[name]) for name in ("accepted", "prepared")}
train(**paths, trained=folder / "trained", params=Train.model_validate(given["params"]))
model = network.load(folder / "trained/model.keras")
pixels = np.load(folder / "pixels.npy")
said = model.predict_on_batch(pixels[..., None].astype(np.float32))
np.savez(folder / "said.npz", **{name: np.asarray(value) for name, value in said.items()})
print(keras.backend.backend())
"""


@pytest.mark.slow
def test_weights_trained_under_jax_say_the_same_under_tensorflow(make_archive, make_params, tmp_path):
    """All that a network says that JAX trained, with every option on, differs by rounding; it has learned there."""
    archive = make_archive(tmp_path / "archive", {"train": 96, "tune": 24}, regions=True)
    pixels, _ = squares(np.arange(16) % 2.0, seed=5)
    np.save(tmp_path / "pixels.npy", pixels)
    given = {name: str(path) for name, path in archive.inputs.items()}
    given |= {"params": make_params(**OPTIONS).model_dump(mode="json")}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path), json.dumps(given)],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "jax"
    assert json.loads((tmp_path / "trained/training.json").read_text())["tune_auroc"] > 0.9

    model = network.load(tmp_path / "trained/model.keras")
    with np.load(tmp_path / "said.npz") as said:
        here = model.predict_on_batch(pixels[..., None].astype(np.float32))
        assert set(here) == {"logit", "evidence", "embedding", "region", "fractures"}
        for name, value in here.items():
            np.testing.assert_allclose(np.asarray(value), said[name], atol=1e-3, err_msg=name)
