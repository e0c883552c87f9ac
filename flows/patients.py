"""Where a patient's images are, and what learned from them; and their withdrawal, on record.

No Prefect flow: its server would keep the arguments, and original ids are kept nowhere.
"""

from __future__ import annotations

from pydantic import BaseModel

from components.dataset import store
from components.errors import DataError
from components.promotion.withdraw import withdraw as record
from components.promotion.withdraw import withdrawn
from components.radiograph.deidentify import identity
from components.settings import Settings
from components.workspace import Workspace
from flows import clients
from flows.trace import versions_that_learned


class PatientTrace(BaseModel):
    """A patient, by pseudonym.

    Attributes:
        images: in the archive.
        labels: label events of these images.
        predictions: logged by the service.
        data_versions: commits whose data holds one of the images, newest first.
        learned_by: model versions that learned from one.
        withdrawal: ledger entry of the withdrawal; None: there is none.
    """

    patient_id: str
    images: int
    labels: int
    predictions: int
    data_versions: list[str]
    learned_by: list[int]
    withdrawal: int | None = None

    def text(self) -> str:
        """What is where, a line each."""
        lines = [
            f"patient       {self.patient_id}: {self.images} images, {self.labels} label events, "
            f"{self.predictions} predictions",
            f"data versions {', '.join(commit[:12] for commit in self.data_versions) or 'none'}",
            f"learned by    version(s) {', '.join(map(str, self.learned_by)) or 'none'}",
        ]
        if self.withdrawal is not None:
            lines.append(
                f"withdrawn     ledger entry {self.withdrawal}. It removes nothing: the next builds hold these images "
                "until they are out of the archive, and these versions have learned from them"
            )
        return "\n".join(lines)


def pseudonym(settings: Settings, patient: str, issuer: str) -> str:
    """What this site calls a patient whose original id is given."""
    return clients.pseudonyms(settings).of("patient", identity(patient.strip(), issuer.strip()))


def trace(settings: Settings, patient: str) -> PatientTrace:
    """Trace one patient.

    Raises:
        DataError: neither the archive nor the prediction log knows this pseudonym.
    """
    home, params = clients.workspace(settings), clients.params(settings)
    home.complete([params.paths.catalog])
    catalog = store.read_catalog(home.root / params.paths.catalog)
    theirs = catalog[catalog["patient_id"] == patient]
    predictions = clients.prediction_log(settings).count_of_patient(patient)
    if theirs.empty and not predictions:
        raise DataError("neither the archive nor the prediction log knows a patient of this pseudonym")
    events = store.label_events(home.root / params.paths.labels)
    entry = withdrawn(clients.ledger(settings), patient)
    return PatientTrace(
        patient_id=patient,
        images=len(theirs),
        labels=int(events["image_id"].isin(theirs["image_id"]).sum()),
        predictions=predictions,
        data_versions=_holding(home, f"{params.paths.catalog}.dvc", set(theirs["shard"])),
        learned_by=versions_that_learned(settings, "patient_id", patient),
        withdrawal=entry.seq if entry else None,
    )


def withdraw(settings: Settings, patient: str, reason: str) -> PatientTrace:
    """Record the withdrawal of a patient with everything the trace found.

    Raises:
        PromotionRefused: it is on record already, or there is no reason.
    """
    found = trace(settings, patient)
    entry = record(
        ledger=clients.ledger(settings),
        patient=patient,
        images=found.images,
        data_versions=found.data_versions,
        models=found.learned_by,
        reason=reason,
        user=settings.user,
        key=clients.signing_key(settings, settings.user),
    )
    return found.model_copy(update={"withdrawal": entry.seq})


def _holding(home: Workspace, pointer: str, shards: set[str]) -> list[str]:
    """The data versions that hold one of `shards`, newest first; shards are immutable, so a name tells."""
    files = {f"{shard}.parquet" for shard in shards}
    commits = [change.commit for change in home.changes([pointer], limit=1_000_000)]
    return [commit for commit in commits if files & home.listing(home.pointer(commit, pointer)).keys()]
