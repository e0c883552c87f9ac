"""May readers be shown the heat map? Only one that knows the model from chance, and fractures from the rest.

Two checks on fractures the network was not fitted to (roles tune and calibrate), before the bundle is hashed:

- *Parameter randomisation*: weights are re-drawn from the head down until nothing learned is left. A map that stays as
  it was shows the picture and not what the network learned from it.
- *Pointing game*: the map's peak lies on a marked fracture more often than a peak at random, and more often than the
  peaks of the re-drawn networks; and often enough to be of use.

A check that fails, or that cannot be run, hides the map. Whatever serves the bundle obeys.

Source: Adebayo et al. 2018, "Sanity checks for saliency maps"; Zhang et al. 2018, section 4.1 (pointing game).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from components.model import ensemble, network, runtime
from components.model.examples import Examples, spread
from components.model.explain import covered, pointing_game
from components.model.statistics import rate
from components.params import HeatMapChecks
from components.radiograph.labels import Box, boxes_of
from components.serving.bundle import HeatMap, Outputs, Similarity

STAGES = (0.0, 1 / 3, 2 / 3, 1.0)  # of the layers, from the head down, that are re-drawn; the first is the head alone
DRAWS = 5  # networks without anything learned: one alone may show no evidence at all, or be like by chance


def check(model: Any, data: Examples, outputs: Sequence[Outputs], params: HeatMapChecks, seed: int) -> HeatMap:
    """Judge the heat map of a release.

    Args:
        model: the trained network; it is left as it came.
        data: examples of tune and calibrate.
        outputs: what the released graph says of each.
        seed: of what is re-drawn.
    """
    fractures = np.flatnonzero(data.labels == 1)
    boxes = [boxes_of(text) for text in data.table["boxes"]]
    boxed = np.array([row for row in fractures if boxes[row]], dtype=int)
    chosen = spread(boxed if boxed.size else fractures, params.images)
    stages, random_maps = cascade(model, data.pixels[chosen], seed)
    hits = np.array([_hit(data, row, outputs[row].heat_map, boxes[row]) for row in boxed], dtype=bool)
    by_chance = [_hit(data, row, maps[n], boxes[row]) for maps in random_maps for n, row in enumerate(chosen)]
    found = HeatMap(
        shown=False,
        reasons=(),
        similarity=stages,
        pointed=rate(hits, data.table["patient_id"].astype(str).to_numpy()[boxed]),
        covered=float(np.mean([covered(_shape(data, row), boxes[row]) for row in boxed])) if boxed.size else None,
        random=float(np.mean(by_chance)) if boxed.size else None,
    )
    reasons = tuple(_reasons(found, params))
    return found.model_copy(update={"shown": not reasons, "reasons": reasons})


def _reasons(found: HeatMap, params: HeatMapChecks) -> Iterator[str]:
    last = found.similarity[-1].value
    if last is None:
        yield "no map to compare: the trained network, or every one without its weights, shows no evidence on fractures"
    elif last > params.max_similarity:
        yield (
            f"with every weight re-drawn the map stays alike (rank correlation {last:.2f}, allowed "
            f"{params.max_similarity:g}): it shows the picture, not what was learned"
        )
    pointed = found.pointed
    if pointed is None or pointed.n < params.min_boxes:
        yield f"{0 if pointed is None else pointed.n} fractures have boxes, {params.min_boxes} are needed to judge it"
    elif found.chance is not None and pointed.low <= found.chance:
        yield f"its peak is not shown to meet a fracture more often than chance ({pointed} against {found.chance:.3f})"
    elif pointed.value < params.min_pointed:
        yield f"its peak misses too many fractures ({pointed} are met, {params.min_pointed:g} are asked for)"


def cascade(model: Any, pixels: np.ndarray, seed: int) -> tuple[tuple[Similarity, ...], list[np.ndarray]]:
    """How alike the maps stay while weights are re-drawn from the head down.

    Args:
        pixels: (n, size, size) uint8.

    Returns:
        One similarity a stage: the mean size of the rank correlation with the trained network's map, over the images
        whose maps have one; and DRAWS arrays (n, h, w), the maps of networks with nothing learned left.
    """
    kept, random = model.get_weights(), np.random.default_rng(seed)
    stages, bare = [], []
    trained = _maps(model, pixels)
    try:
        for above, depth in zip((-1.0, *STAGES), STAGES, strict=False):
            redraw(model, above, depth, random)
            maps = [_maps(model, pixels)]
            if depth == STAGES[-1]:
                for _ in range(DRAWS - 1):
                    redraw(model, -1.0, depth, random)
                    maps.append(_maps(model, pixels))
                bare = maps
            alike = [abs(a) for drawn in maps for a in correlations(trained, drawn) if a is not None]
            stages.append(Similarity(redrawn=round(depth, 3), value=float(np.mean(alike)) if alike else None))
    finally:
        model.set_weights(kept)
    return tuple(stages), bare


def _maps(model: Any, pixels: np.ndarray) -> np.ndarray:
    with runtime.silence():  # every one is traced anew, and TensorFlow warns of it
        return network.evidence(model, pixels)


def redraw(model: Any, above: float, depth: float, random: np.random.Generator) -> None:
    """Put the weights of every layer deeper than `above` and down to `depth` into a random order, tensor by tensor.

    What is drawn has the size and the spread that was trained, and nothing of its arrangement; a fresh initialisation
    mutes the map (all evidence against a fracture) more often, and then there is nothing to compare.

    Args:
        above, depth: 0 is the head, 1 the layer next to the image.
    """
    for at, layer in depths(model):
        if above < at <= depth:
            layer.set_weights([random.permutation(w.ravel()).reshape(w.shape) for w in layer.get_weights()])


def depths(model: Any) -> list[tuple[float, Any]]:
    """(depth, layer) of every layer with weights: 0 in a network's head, above 0 and up to 1 inside its backbone.

    The networks of an ensemble are gone through one by one.
    """
    found: list[tuple[float, Any]] = []
    for member in ensemble.members_of(model):
        head, inner = _layers(member)
        found += [(0.0, layer) for layer in head]
        while inner:
            chain, nested = _layers(inner.pop())
            inner += nested
            found += [((len(chain) - number) / len(chain), layer) for number, layer in enumerate(chain)]
    return found


def _layers(model: Any) -> tuple[list[Any], list[Any]]:
    """The layers of `model` that hold weights themselves, from the input on, and the models among them."""
    weighted = [layer for layer in model.layers if layer.weights]
    return [x for x in weighted if not hasattr(x, "layers")], [x for x in weighted if hasattr(x, "layers")]


def correlations(one: np.ndarray, other: np.ndarray) -> list[float | None]:
    """Spearman's correlation of each pair of maps (n, h, w); None where a map is flat."""
    from scipy.stats import rankdata

    found: list[float | None] = []
    for pair in zip(one, other, strict=True):
        a, b = (rankdata(part) for part in pair)
        flat = np.ptp(a) == 0 or np.ptp(b) == 0
        found.append(None if flat else float(np.corrcoef(a, b)[0, 1]))
    return found


def _shape(data: Examples, row: int) -> tuple[int, int]:
    return int(data.table["rows"].iloc[row]), int(data.table["columns"].iloc[row])


def _hit(data: Examples, row: int, heat_map: np.ndarray, boxes: Sequence[Box]) -> bool:
    return bool(boxes) and pointing_game(data.transform.place(heat_map, *_shape(data, row)), boxes)
