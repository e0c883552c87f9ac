"""DVC's door: `python -m components STEP --input PATH ...` runs one step of the pipeline and nothing else.

The step's own signature says which paths it takes; its params section is handed to it when it asks for `params`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from components.errors import ConfigError, OsteoflowError
from components.params import load

STEPS = {
    "inspect": "components.dataset.inspect",
    "match": "components.dataset.match",
    "curate": "components.dataset.curate",
    "split": "components.dataset.split",
    "validate": "components.dataset.validate",
    "prepare": "components.dataset.prepare",
    "train": "components.model.train",
    "calibrate": "components.model.calibrate",
    "export": "components.model.export",
    "evaluate": "components.model.evaluate",
}


def run(argv: list[str]) -> None:
    """Run the step `argv[0]` with the `--name path` pairs that follow.

    Raises:
        ConfigError: the step is unknown, or its paths are not exactly the ones it takes.
    """
    if not argv or argv[0] not in STEPS:
        raise ConfigError(f"usage: python -m components STEP --name PATH ...; STEP is one of {', '.join(STEPS)}")
    name, words = argv[0], argv[1:]
    step = getattr(importlib.import_module(STEPS[name]), name)
    wanted = set(inspect.signature(step).parameters) - {"params"}
    flags, values = words[::2], words[1::2]
    given = {flag.removeprefix("--").replace("-", "_"): Path(value) for flag, value in zip(flags, values, strict=False)}
    if len(words) % 2 or given.keys() != wanted:
        raise ConfigError(f"{name} takes {sorted(wanted)}, was given {sorted(given)}; fix dvc.yaml")
    section = load().section(name)
    step(**given, **({} if section is None else {"params": section}))


def main() -> int:
    try:
        run(sys.argv[1:])
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
