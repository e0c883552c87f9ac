"""Where a patient's images are, and what learned from them; and their withdrawal, on record and out of later builds.

No Prefect flow: its server would keep the arguments, and original ids are kept nowhere.
"""

from __future__ import annotations

from pydantic import BaseModel

from components.dataset import store
from components.dataset.merges import one_person, read_merges
from components.dataset.retirements import marks
from components.dataset.withdrawals import read_withdrawals, record_withdrawals
from components.errors import DataError, PromotionRefused
from components.params import Paths
from components.promotion.withdraw import unheeded, withdrawn
from components.promotion.withdraw import withdraw as record
from components.settings import Settings
from components.workspace import Workspace
from flows import clients
from flows.trace import versions_that_learned


class PatientTrace(BaseModel):
    """A patient, by pseudonym.

    Attributes:
        others: further pseudonyms that `osteoflow data merge-patients` said are the same person; all counts hold them.
        images: in the archive.
        labels: label events of these images.
        predictions: logged by the service.
        comparisons: silent scores of a model beside the one that answered, logged during a roll-out.
        data_versions: commits whose data holds one of the images, newest first.
        learned_by: model versions that learned from one.
        withdrawal: ledger entry of the withdrawal; None: there is none.
        excluded: whether the next build leaves the images out.
    """

    patient_id: str
    others: list[str]
    images: int
    labels: int
    predictions: int
    comparisons: int
    data_versions: list[str]
    learned_by: list[int]
    withdrawal: int | None = None
    excluded: bool = False

    def text(self) -> str:
        """What is where, a line each."""
        also = f" (with {len(self.others)} other pseudonym(s) of the same person)" if self.others else ""
        lines = [
            f"patient       {self.patient_id}{also}: {self.images} images, {self.labels} label events, "
            f"{self.predictions} predictions, {self.comparisons} silent comparisons",
            f"data versions {', '.join(commit[:12] for commit in self.data_versions) or 'none'}",
            f"learned by    version(s) {', '.join(map(str, self.learned_by)) or 'none'}",
        ]
        if self.withdrawal is not None:
            later = (
                "later builds leave these images out, and those to come"
                if self.excluded
                else "builds are refused until the log of withdrawals is complete: `osteoflow doctor --repair`"
            )
            lines.append(
                f"withdrawn     ledger entry {self.withdrawal}: {later}. It removes nothing: the data versions above "
                "hold them, and the model versions have learned from them"
            )
            if self.predictions:
                lines.append(
                    "still counted predictions: in drift while they are in its window, in audited performance while "
                    "their model is champion; comparisons: until that stage of the roll-out ends"
                )
        return "\n".join(lines)


def pseudonym(settings: Settings, patient: str, issuer: str) -> str:
    """What this site calls a patient whose original id is given."""
    from components.radiograph.deidentify import identity  # brings pydicom, which a pseudonym does without

    return clients.pseudonyms(settings).of("patient", identity(patient.strip(), issuer.strip()))


def trace(settings: Settings, patient: str) -> PatientTrace:
    """Trace one person, under every pseudonym the log of merges knows.

    Raises:
        DataError: neither archive, prediction log nor ledger knows this pseudonym, or a log in git is damaged.
    """
    home, paths = clients.workspace(settings), clients.params(settings).paths
    home.complete([paths.catalog])
    person = one_person([patient], read_merges(home.root / paths.merges))
    catalog = store.read_catalog(home.root / paths.catalog, columns=("image_id", "patient_id"))
    theirs = catalog[catalog["patient_id"].isin(person)]
    log = clients.prediction_log(settings)
    predictions, comparisons = log.count_of_patients(person)
    ledger = clients.ledger(settings)
    entries = [entry for name in sorted(person) if (entry := withdrawn(ledger, name))]
    if theirs.empty and not predictions and not entries:
        raise DataError("neither the archive nor the prediction log knows a patient of this pseudonym")
    events = store.label_events(home.root / paths.labels)
    return PatientTrace(
        patient_id=patient,
        others=sorted(person - {patient}),
        images=len(theirs),
        labels=int(events["image_id"].isin(theirs["image_id"]).sum()),
        predictions=predictions,
        comparisons=comparisons,
        data_versions=_holding(home, f"{paths.catalog}.dvc", set(theirs["shard"])),
        learned_by=versions_that_learned(settings, "patient_id", person),
        withdrawal=entries[0].seq if entries else None,
        excluded=bool(person & set(_heeded(home, paths))),
    )


def withdraw(settings: Settings, patient: str, reason: str) -> PatientTrace:
    """Record the withdrawal of a patient with everything the trace found, and keep them out of later builds.

    Killed anywhere, the same call completes it: the ledger says it first, and builds are refused until the log in git
    says it too.

    Raises:
        PromotionRefused: it is on record already, and builds heed it; or there is no reason.
        DataError: as for `trace`.
    """
    home, paths = clients.workspace(settings), clients.params(settings).paths
    with home.writing():
        read_withdrawals(home.root / paths.withdrawals)  # a damaged log must not leave a record that nothing follows
        found = trace(settings, patient)
        if found.withdrawal is not None and found.excluded:
            raise PromotionRefused(f"this patient was withdrawn already (ledger entry {found.withdrawal})")
        if found.withdrawal is None:  # else: a killed run left the rest to do
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
            found = found.model_copy(update={"withdrawal": entry.seq})
        wanted = unexcluded(settings)
        names = [name for name in (patient, *found.others) if wanted.intersection(marks([name]))]
        _exclude(home, paths, names, found.images)
    return found.model_copy(update={"excluded": True})


def unexcluded(settings: Settings) -> set[str]:
    """Marks of the patients whose withdrawal is on record and not, committed, in the log that builds read.

    Raises:
        DataError: the log is damaged.
    """
    ledger = clients.ledger(settings)
    if not ledger.entries("withdrawal"):
        return set()
    return unheeded(ledger, _heeded(clients.workspace(settings), clients.params(settings).paths))


def exclude(settings: Settings) -> int:
    """Complete the log of withdrawals from the record; return how many patients nobody here knows by pseudonym.

    The record does not hold pseudonyms: they are found among the patients of the archive and of the prediction log.
    """
    home, paths = clients.workspace(settings), clients.params(settings).paths
    with home.writing():
        wanted = unexcluded(settings)
        home.complete([paths.catalog])
        catalog = store.read_catalog(home.root / paths.catalog, columns=("patient_id",))
        logged = clients.prediction_log(settings).frame()["patient_id"].dropna()
        known = {*catalog["patient_id"], *logged, *read_withdrawals(home.root / paths.withdrawals)}
        found = {mark: name for name in known for mark in marks([name]) if mark in wanted}
        if found:
            names = sorted(found.values())
            _exclude(home, paths, names, int(catalog["patient_id"].isin(names).sum()))
    return len(wanted - found.keys())


def _exclude(home: Workspace, paths: Paths, patients: list[str], images: int) -> None:
    record_withdrawals(home.root / paths.withdrawals, patients)
    message = f"Withdraw {len(patients)} patient(s)\n\n{images} images, which no later build uses"
    home.commit_file(paths.withdrawals, message)


def _heeded(home: Workspace, paths: Paths) -> list[str]:
    """Whom the next build leaves out: what the log says, once it is committed."""
    return [] if home.dirty(str(paths.withdrawals)) else read_withdrawals(home.root / paths.withdrawals)


def _holding(home: Workspace, pointer: str, shards: set[str]) -> list[str]:
    """The data versions that hold one of `shards`, newest first; shards are immutable, so a name tells."""
    files = {f"{shard}.parquet" for shard in shards}
    commits = [change.commit for change in home.changes([pointer], limit=1_000_000)]
    return [commit for commit in commits if files & home.listing(home.pointer(commit, pointer)).keys()]
