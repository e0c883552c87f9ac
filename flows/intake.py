"""Flow: new radiographs in. Trigger: a schedule over the inbox, or a person naming a source."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prefect import flow
from pydantic import SecretStr

from components.dataset.batch_report import report_batch
from components.dataset.batches import write_record
from components.dataset.inputs import judge_batch
from components.dataset.intake import intake as take_in
from components.dataset.limits import read_limits
from components.dataset.places import likely
from components.dataset.quarantine import entries
from flows import clients
from flows.arrival import Arrival, page, unfinished
from flows.artifacts import show
from flows.doors import door
from flows.effects import effect


@flow(name="intake")
def intake(source: SecretStr | None = None, labels_file: SecretStr | None = None) -> Arrival:
    """Take `source` (default: the inbox) in, refuse what cannot be used, version it and commit the pointers."""
    settings = clients.load_settings()
    params, home = clients.params(settings), clients.workspace(settings)
    folders = [params.paths.studies, params.paths.labels, params.paths.catalog]
    studies, labels, quarantine = home.root / folders[0], home.root / folders[1], clients.quarantine(settings)
    reports = settings.state / "reports"
    limits = read_limits(home.root / params.paths.limits)
    # Secret: a folder or a zip may be called after a person, and Prefect writes the parameters of a run down.
    place, table = (value.get_secret_value() if value else None for value in (source, labels_file))
    entrance = door(settings, place, Path(table) if table else None)
    with home.writing():  # one section: a second writer never versions half of what the first brings
        effect(home.complete)(folders)
        found = effect(entrance.bring)()
        batch = effect(take_in)(
            source=entrance.path,
            may_be_empty=entrance.may_be_empty,
            studies=studies,
            labels=labels,
            catalog=home.root / folders[2],
            quarantine=quarantine,
            pseudonyms=clients.pseudonyms(settings),
            params=params.intake,
            now=datetime.now(UTC),
            unfinished=unfinished(home, folders, reports),
            apart=partial(likely, role="test", params=params.split),
        )
        record = effect(write_record)(home.root / params.paths.batches, batch.record())
        commit = effect(home.commit_data)(folders, batch.message(), [record] if record else [])
        effect(entrance.landed)()  # only now: until the commit, what was brought is the only other copy
    report = page(reports, batch.batch)
    inputs = effect(judge_batch)(studies=studies, batch=batch.batch, limits=limits, params=params.validate_.images)
    lean = effect(report_batch)(batch, entries(quarantine), inputs, report, studies=studies, labels=labels)
    arrival = Arrival(batch=batch, commit=commit, lean=lean, inputs=inputs, report=str(report), found=found)
    show("intake", f"Intake {batch.batch}", arrival.summary(), report / "index.html")
    return arrival
