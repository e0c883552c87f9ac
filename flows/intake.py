"""Flow: new radiographs in. Trigger: a schedule over the inbox, or a person naming a source."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow
from pydantic import BaseModel, SecretStr

from components.dataset.batch_report import Lean, report_batch
from components.dataset.intake import Batch
from components.dataset.intake import intake as take_in
from components.dataset.quarantine import entries
from flows import clients
from flows.artifacts import show
from flows.doors import door
from flows.effects import effect


class Arrival(BaseModel):
    """What came in, and the commit that versions it (None: nothing new).

    Attributes:
        lean: whether refusals depend on the label.
        report: folder of the batch's page.
        found: what lay behind the door, in words.
    """

    batch: Batch
    commit: str | None
    lean: Lean
    report: str
    found: str = ""

    def text(self) -> str:
        """The batch in a few lines, for a person."""
        version = f"Data version {self.commit[:12]}." if self.commit else "Nothing new: the data version stands."
        found = f"source: {self.found}\n" if self.found else ""
        refusals = f"{self.lean.text()}\n" if self.batch.refused else ""
        return f"{self.batch.message()}\n{found}{refusals}{version} Report: {self.report}/index.html"


@flow(name="intake")
def intake(source: SecretStr | None = None, labels_file: SecretStr | None = None) -> Arrival:
    """Take `source` (default: the inbox) in, refuse what cannot be used, version it and commit the pointers."""
    settings = clients.load_settings()
    params = clients.params(settings)
    home = clients.workspace(settings)
    studies, labels = params.paths.studies, params.paths.labels
    # Secret: a folder or a zip may be called after a person, and Prefect writes the parameters of a run down.
    place, table = (value.get_secret_value() if value else None for value in (source, labels_file))
    entrance = door(settings, place, Path(table) if table else None)
    with home.writing():  # one section: a second writer never versions half of what the first brings
        effect(home.complete)([studies, labels])
        found = effect(entrance.bring)()
        batch = effect(take_in)(
            source=entrance.path,
            may_be_empty=entrance.may_be_empty,
            studies=home.root / studies,
            labels=home.root / labels,
            quarantine=clients.quarantine(settings),
            pseudonyms=clients.pseudonyms(settings),
            params=params.intake,
            now=datetime.now(UTC),
        )
        commit = effect(home.commit_data)([studies, labels], batch.message())
        effect(entrance.landed)()  # only now: until the commit, what was brought is the only other copy
    report = settings.state / "reports" / f"intake-{batch.batch}"
    lean = effect(report_batch)(batch, entries(clients.quarantine(settings)), report)
    show("intake", f"Intake {batch.batch}", f"{batch.message()}\n\n{lean.text()}", report / "index.html")
    return Arrival(batch=batch, commit=commit, lean=lean, report=str(report), found=found)
