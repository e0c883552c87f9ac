"""How fast each weight learns: AdamW on a cosine, and slower the farther a layer lies from the head."""

from __future__ import annotations

from typing import Any

from components.model import network, runtime


def optimizer(model: Any, *, rate: float, steps: int, warmup: int, layer_decay: float) -> Any:
    """An optimizer for the trainable weights of `model`, built.

    Args:
        rate: learning rate of the head, at its highest; a hundredth at the end.
        steps: of the whole schedule, of which `warmup` lead up from a tenth.
        layer_decay: a layer at level k of `network.levels` learns at rate * layer_decay ** k; 1: all learn alike.
            Adam's step does not depend on the size of the gradient, so it is rates that differ, not gradients.

    Source of the decay: Howard and Ruder 2018 (discriminative fine-tuning); Loshchilov and Hutter 2019 (AdamW).
    """
    keras = runtime.keras()

    def adam(highest: float) -> Any:
        schedule = keras.optimizers.schedules.CosineDecay(
            highest / 10 if warmup else highest,
            max(1, steps - warmup),
            alpha=0.01,
            warmup_target=highest if warmup else None,
            warmup_steps=warmup,
        )
        return keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=5.0)

    if layer_decay == 1:
        made = adam(rate)
    else:
        levels = network.levels(model)
        by_level = {level: adam(rate * layer_decay**level) for level in sorted(set(levels.values()))}

        def its_own(variable: Any) -> Any:  # not a lambda: Keras writes its name into the model's file
            return by_level[levels[variable.path]]

        made = keras.optimizers.MultiOptimizer(its_own)
    made.build(model.trainable_variables)
    return made


def learning_rate(made: Any) -> float:
    """The rate at which the head learns now."""
    return max(float(one.learning_rate) for one in getattr(made, "optimizers", [made]))
