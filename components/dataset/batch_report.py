"""The page of one batch: what came in, what was refused and why, and whether the refusals lean towards one label.

Files are refused for how they are, not for what they show. Where the refused ones still show one thing more often than
the accepted ones, how a file is made gives its label away, and a model may learn that instead of fractures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.dataset.expectations import STRANGENESS
from components.dataset.inputs import Inputs
from components.dataset.intake import Batch
from components.dataset.page import write_page
from components.dataset.quarantine import Entry, waiting
from components.dataset.store import atomic_folder, label_events, read_pixels
from components.dataset.thumbnails import gallery
from components.radiograph.labels import FRACTURE, NO_FRACTURE

ALPHA = 0.01  # of the test below, once a batch
LISTED = 200  # refusals that the page names; all of them are in results.json


class Lean(BaseModel):
    """Whether refusals depend on the label: Fisher's exact test, two-sided, on refused and added by label.

    Attributes:
        refused, added: (fracture, no fracture); files without a label say nothing.
        p_value: None where one label, or either outcome, is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refused: tuple[int, int]
    added: tuple[int, int]
    p_value: float | None

    @property
    def loud(self) -> bool:
        return self.p_value is not None and self.p_value < ALPHA

    def text(self) -> str:
        """One sentence with its numbers."""
        if self.p_value is None:
            return "Whether refusals depend on the label cannot be told: one label, or one outcome, is missing."
        of = [f"{lost} of {lost + kept}" for lost, kept in zip(self.refused, self.added, strict=True)]
        numbers = f"refused {of[0]} with a fracture, {of[1]} without; Fisher's exact p = {self.p_value:.2g}"
        if self.loud:
            return (
                f"Refusals depend on the label: {numbers}. What is left is biased: find out how these files were made."
            )
        return f"Refusals do not visibly depend on the label: {numbers}."


def lean(batch: Batch) -> Lean:
    """Test the refusals of a batch for a dependence on the label that its source states."""
    from scipy.stats import fisher_exact

    refused = (batch.refused_by_label.get(FRACTURE, 0), batch.refused_by_label.get(NO_FRACTURE, 0))
    added = (batch.labels.get(FRACTURE, 0), batch.labels.get(NO_FRACTURE, 0))
    rows, columns = (sum(refused), sum(added)), [sum(pair) for pair in zip(refused, added, strict=True)]
    testable = min(*rows, *columns) > 0
    p_value = float(fisher_exact([list(refused), list(added)]).pvalue) if testable else None
    return Lean(refused=refused, added=added, p_value=p_value)


def report_batch(
    batch: Batch, refused: Sequence[Entry], inputs: Inputs, folder: Path, *, studies: Path, labels: Path
) -> Lean:
    """Write `folder`: index.html for people, results.json for machines. Pseudonyms, hashes and counts only.

    A page that says what came in is kept when the same batch is repeated and brings nothing.

    Args:
        refused: the quarantine's list, of any batches; those of this one are shown.
        inputs: what the suite `images` says of what came in.
        studies, labels: for pictures of the images that fail it; of no others are pixels read.

    Raises:
        DataError: no disk space.
    """
    mine = [line for line in refused if line.batch == batch.batch]
    leaning = lean(batch)
    if not batch.added and _added(folder):
        return leaning
    document = {
        "batch": batch.model_dump(),
        "lean": leaning.model_dump() | {"text": leaning.text(), "loud": leaning.loud},
        "reasons": [group.model_dump() for group in waiting(mine, set())],
        "refused": [line.model_dump() for line in mine],
        "inputs": inputs.model_dump(),
    }
    with atomic_folder(folder) as draft:
        failing = _failing(inputs, labels, batch.batch)
        pictures = gallery(failing, lambda rows: read_pixels(studies, rows["image_id"], batch.batch))
        write_page(draft, "batch.html.j2", document, listed=LISTED, quality=inputs.text(), gallery=pictures)
    return leaning


def _failing(inputs: Inputs, labels: Path, batch: str) -> pd.DataFrame:
    """The images that fail or are strange, as the gallery takes them; labels as the source states them."""
    reasons = {failure.image_id: failure.reasons for failure in inputs.failures}
    reasons |= {image_id: (*reasons.get(image_id, ()), STRANGENESS) for image_id in inputs.strange}
    said = label_events(labels, batch=batch).drop_duplicates("image_id", keep="last").set_index("image_id")["label"]
    ids = pd.Series(list(reasons), dtype=object)
    return pd.DataFrame(
        {
            "image_id": ids,
            "picture_id": ids,
            "label": ids.map(said).map({FRACTURE: 1.0, NO_FRACTURE: 0.0}).astype("float64"),
            "reasons": pd.Series([";".join(said_of) for said_of in reasons.values()], dtype=object),
        }
    )


def _added(folder: Path) -> int:
    """How many images the page at `folder` says came in; 0 where there is none."""
    try:
        return int(json.loads((folder / "results.json").read_text(encoding="utf-8"))["batch"]["added"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
