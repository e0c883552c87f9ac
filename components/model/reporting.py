"""TRIPOD+AI and CLAIM as a section of the card: what the pipeline recorded, and what people have yet to write."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

LISTS = "reporting.yaml"


class Item(BaseModel):
    """One item of a checklist. fact: what answers it; None where people have to."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    item: str
    title: str
    fact: str | None = None


def checklists() -> dict[str, list[Item]]:
    """The items by checklist, in order."""
    text = files("components.model").joinpath(LISTS).read_text(encoding="utf-8")
    return {name: [Item.model_validate(item) for item in items] for name, items in yaml.safe_load(text).items()}


def section(facts: Mapping[str, str]) -> str:
    """Markdown: per checklist a table of the answered items, and the numbers of those that are empty.

    Args:
        facts: answers by name.
    """
    parts = []
    for name, items in checklists().items():
        answered = [item for item in items if item.fact in facts]
        empty = [item for item in items if item.fact not in facts]
        rows = [f"| {item.item} | {item.title} | {facts[item.fact or '']} |" for item in answered]
        parts.append(
            f"### {name}: {len(answered)} of {len(items)} items are answered\n\n"
            + "\n".join(["| Item | About | Here |", "|---|---|---|", *rows])
            + "\n\nEmpty: "
            + "; ".join(f"{item.item} {item.title}" for item in empty)
            + "."
        )
    return "\n\n".join(parts)
