"""Many networks as one: their mean logit, still a feature map, a mean over it, and one linear unit.

The logit of a network that ends in pooling and a linear unit is linear in its feature map. So the mean logit of
several such networks, over the image and over its mirror image, is again the logit of one: the maps side by side,
the head weights divided by their number. Whatever reads a network (calibration, export, heat map, drift) reads an
ensemble without knowing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.model import network, runtime
from components.model.backbones import BACKBONE


def join(members: Sequence[Any], *, mirror: bool) -> Any:
    """One network whose logit is the mean logit of `members`.

    Args:
        members: from `network.build`, of one input size.
        mirror: the mean is taken over the image and its mirror image (left and right exchanged) as well.

    Returns:
        keras.Model, (batch, size, size, 1) 0..255 -> (batch, 1) logits, with the layers `network.build` promises.
        Its class-activation map is the mean of the members' maps, those of the mirror image mirrored back.
    """
    keras = runtime.keras()
    size, views = members[0].input.shape[1], 2 if mirror else 1
    weights = [member.get_layer(network.LOGIT).get_weights() for member in members]
    inputs = keras.Input((size, size, 1), name="image")
    seen = keras.Input((size, size, 1), name="seen")
    maps = []
    for number, member in enumerate(members):
        look = keras.Model(member.input, member.get_layer(network.EMBEDDING).input, name=f"member_{number}")
        maps.append(look(seen))
        if mirror:
            flipped = keras.ops.flip(look(keras.ops.flip(seen, axis=2)), axis=2)
            maps.append(flipped)
    body = keras.Model(seen, maps[0] if len(maps) == 1 else keras.layers.Concatenate(name="maps")(maps), name=BACKBONE)
    embedding = keras.layers.GlobalAveragePooling2D(name=network.EMBEDDING)(body(inputs))
    joined = keras.Model(inputs, keras.layers.Dense(1, name=network.LOGIT)(embedding), name="fracture")
    kernel = np.concatenate([kernel for kernel, _ in weights for _ in range(views)]) / (len(members) * views)
    bias = np.mean([bias for _, bias in weights], axis=0)
    joined.get_layer(network.LOGIT).set_weights([kernel, bias])
    return joined
