"""Many networks as one: their mean logit, the mean of what they say of each cell, their embeddings side by side.

Whatever reads a network (calibration, export, heat map, drift) reads an ensemble without knowing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.model import network, runtime

MEMBER = "member_"  # and its number: the networks inside a joined one


def join(members: Sequence[Any], *, mirror: bool) -> Any:
    """One network whose logit is the mean logit of `members`.

    Args:
        members: from `network.build`, of one input size; at least two views in all, of members and mirror images.
            Their backbones may differ; coarser cells are brought to the side of the finest.
        mirror: the mean is taken over the image and its mirror image (left and right exchanged) as well.

    Returns:
        keras.Model with the outputs of `network.build`; cells of the mirror image are mirrored back.
    """
    keras = runtime.keras()
    inputs = keras.Input(members[0].input.shape[1:], name="image")
    side = max(member.output[network.EVIDENCE].shape[1] for member in members)
    logits, cells, embeddings = [], [], []
    more: dict[str, list[Any]] = {name: [] for name in (network.REGION, network.FRACTURES)}
    for number, member in enumerate(members):
        look = keras.Model(member.input, member.output, name=f"{MEMBER}{number}")
        for mirrored in (False, True) if mirror else (False,):
            found = look(keras.ops.flip(inputs, axis=2) if mirrored else inputs)
            logits.append(found[network.LOGIT])
            seen = keras.ops.flip(found[network.EVIDENCE], axis=2) if mirrored else found[network.EVIDENCE]
            cells.append(seen if seen.shape[1] == side else keras.ops.image.resize(seen, (side, side)))
            embeddings.append(found[network.EMBEDDING])
            for name in more.keys() & found.keys():
                more[name].append(found[name])
    mean = keras.layers.Average
    told = {name: mean()(said) for name, said in more.items() if said}
    return network.outputs_of(inputs, mean()(logits), mean()(cells), keras.layers.Concatenate()(embeddings), **told)


def released(members: Sequence[Any], *, mirror: bool) -> Any:
    """What is released of `members`: a network that stands alone and looks once stays what it is."""
    return join(members, mirror=mirror) if len(members) > 1 or mirror else members[0]


def members_of(model: Any) -> list[Any]:
    """The networks inside a joined one; a network that stands alone is its own only member."""
    return [layer for layer in model.layers if layer.name.startswith(MEMBER)] or [model]
