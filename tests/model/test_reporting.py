"""The reporting checklists: every item is there, answered or listed as empty."""

from __future__ import annotations

import re

from components.model.reporting import checklists, section


def test_the_lists_are_whole():
    """52 items and sub-items of TRIPOD+AI's 27, and the 44 of CLAIM, in order and each once."""
    lists = checklists()
    numbers = {name: [int(re.match(r"\d+", item.item)[0]) for item in items] for name, items in lists.items()}

    assert {name: len(items) for name, items in lists.items()} == {"TRIPOD+AI": 52, "CLAIM": 44}
    assert sorted(set(numbers["TRIPOD+AI"])) == list(range(1, 28))
    assert numbers["CLAIM"] == list(range(1, 45))
    assert all(numbers[name] == sorted(numbers[name]) for name in numbers)
    assert all(len({item.item for item in items}) == len(items) for items in lists.values())


def test_what_nobody_knows_is_listed_as_empty():
    """An item is answered by its fact alone; without facts all are empty."""
    page = section({"sites": "two sites"})

    assert "### TRIPOD+AI: 1 of 52 items are answered" in page
    assert "| 5a | where the data came from | two sites |" in page
    assert "; 44 funding." in page
    assert section({}).count("| Item |") == 2


def test_the_card_answers_every_fact_that_the_lists_ask_for(released):
    """No item waits for a fact that the card does not know, and none of its figures is left out."""
    card = (released / "model_card.md").read_text()
    asked = {name: sum(item.fact is not None for item in items) for name, items in checklists().items()}

    assert f"### TRIPOD+AI: {asked['TRIPOD+AI']} of 52 items are answered" in card
    assert f"### CLAIM: {asked['CLAIM']} of 44 items are answered" in card
    assert "| 29 | uncertainty and significance |" in card
