"""What an intake did, as the flow returns it and a person reads it."""

from __future__ import annotations

from pydantic import BaseModel

from components.dataset.batch_report import Lean
from components.dataset.inputs import Inputs
from components.dataset.intake import Batch


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
