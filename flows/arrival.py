"""What an intake did, as the flow returns it and a person reads it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from components.dataset.batch_report import Lean
from components.dataset.inputs import Inputs
from components.dataset.intake import Batch
from components.workspace import Workspace


class Arrival(BaseModel):
    """What came in, and the commit that versions it (None: nothing new).

    Attributes:
        lean: whether refusals depend on the label.
        inputs: what the suite `images` says of what came in.
        report: folder of the batch's page.
        found: what lay behind the door, in words.
    """

    batch: Batch
    commit: str | None
    lean: Lean
    inputs: Inputs
    report: str
    found: str = ""

    def text(self) -> str:
        """The batch in a few lines, for a person."""
        return f"{self.summary()} Report: {self.report}/index.html"

    def summary(self) -> str:
        """The same without the page."""
        version = f"Data version {self.commit[:12]}." if self.commit else "Nothing new: the data version stands."
        said = [self.batch.message(), f"source: {self.found}" if self.found else ""]
        said += [self.lean.text() if self.batch.refused else "", self.inputs.text() if self.inputs.images else ""]
        return "\n".join([*filter(None, said), version])


def page(reports: Path, batch: str) -> Path:
    """The folder of a batch's page."""
    return reports / f"intake-{batch}"


def unfinished(home: Workspace, folders: list[Path], reports: Path) -> frozenset[Path]:
    """Shards that no version holds, or whose batch has no page yet: a run was killed before it had told of them."""
    shards = {path for folder in folders for path in (home.root / folder).glob("*.parquet")}
    untold = {path for path in shards if not page(reports, path.stem.rpartition("-")[0]).exists()}
    return home.unversioned(folders) | untold
