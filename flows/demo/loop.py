"""The demo, act by act: every line here is a flow, a server or a person; nothing is computed beside them."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from components.settings import Settings
from flows.environment import prepare
from flows.progress import shown

# A first site, and later a new one whose detector the champion has never seen. Two images a patient.
SITE_A_PATIENTS, SITE_B_PATIENTS, IMAGES_PER_PATIENT, PREVALENCE = 260, 150, 2, 0.4
SEED = 20261123

console = Console(stderr=True, highlight=False)


@dataclass
class Story:
    """What happened, for the last table."""

    settings: Settings
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def tell(self, what: str, before: str, after: str = "") -> None:
        self.rows.append((what, before, after))


def run(settings: Settings) -> None:
    """Play the loop once in the workspace of `settings`."""
    prepare(settings, log_level="CRITICAL")
    logging.getLogger("osteoflow").setLevel(logging.INFO)
    started = time.monotonic()
    from flows.demo.clinic import service

    story = Story(settings)
    with act("Drawing phantoms of two sites"):
        site_a, site_b = draw(settings)
    first = first_champion(story, site_a)
    with service(settings) as client:
        before = production(story, client, site_b)
        second = second_champion(story, client, site_b, before)
        after = again(client, site_b)
    compare(story, site_b, before, after, second)
    finish(story, first, second, time.monotonic() - started)


@contextmanager
def act(title: str) -> Iterator[None]:
    """Announce what happens next, and how long it took."""
    started = time.monotonic()
    console.print(f"[bold]{title}[/bold]")
    with shown(title):
        yield
    console.print(f"  [dim]{time.monotonic() - started:.0f} s[/dim]")


@contextmanager
def counted(title: str, total: int) -> Iterator[Any]:
    """A bar over `total` things; yields the function that counts one."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
    console.print(f"  [green]✓[/green] {title}: {total}")


def draw(settings: Settings) -> tuple[Any, Any]:
    """Phantoms of site A with labels, and of site B, another detector, without."""
    from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, write_archive

    folder = settings.state / "phantoms"
    site_a = write_archive(folder / "site-a", patients=SITE_A_PATIENTS, images_per_patient=IMAGES_PER_PATIENT,
                           prevalence=PREVALENCE, detector=DETECTOR_A, seed=SEED, labels=True)
    site_b = write_archive(folder / "site-b", patients=SITE_B_PATIENTS, images_per_patient=IMAGES_PER_PATIENT,
                           prevalence=PREVALENCE, detector=DETECTOR_B, seed=SEED + 1, labels=False)
    return site_a, site_b


def first_champion(story: Story, site_a: Any) -> Any:
    """Intake, training, gate and approval on the first site."""
    from flows.intake import intake
    from flows.retrain import retrain

    with act("Site A: intake, de-identification, data version"):
        arrival = intake(source=str(site_a.folder))
    story.tell("data commit", arrival.commit[:12])
    with act("First model: validate, split, train, calibrate, export, evaluate, register, gate"):
        judgement = retrain()
    approve(judgement.version, "First model of this site: it clears every floor of the protocol on sealed test patients.")
    return judgement


def approve(version: int, rationale: str) -> None:
    """The reviewer's act; engineer and reviewer are two people."""
    from components.promotion.approve import approve as sign
    from flows import clients
    from flows.promote import promote

    with act(f"Approval of version {version} by the reviewer, and roll-out"):
        settings = clients.load_settings()
        sign(
            ledger=clients.ledger(settings), registry=clients.registry(settings), name=clients.params(settings).gate.model,
            version=version, approver="reviewer", rationale=rationale, key=clients.signing_key(settings, "reviewer"),
        )
        promote()


def production(story: Story, client: Any, site_b: Any) -> list[dict[str, Any]]:
    """A new site sends its cases: they are scored, archived without labels, and watched."""
    from flows.demo.clinic import send
    from flows.intake import intake
    from flows.monitor import monitor

    with counted("Site B: production cases scored by the service", len(site_b.phantoms)) as advance:
        answers = send(client, site_b.files, advance)
    with act("Site B: the same images into the archive, unlabelled"):
        intake(source=str(site_b.folder))
    with act("Monitoring"):
        watch = monitor()
    story.tell("drift", watch.summary())
    return answers


def second_champion(story: Story, client: Any, site_b: Any, answers: list[dict[str, Any]]) -> Any:
    """Readers correct, their labels are settled and committed, and a challenger meets the champion."""
    from flows.demo.clinic import read
    from flows.feedback import feedback
    from flows.retrain import retrain

    truths = {answer["id"]: phantom.label for answer, phantom in zip(answers, site_b.phantoms, strict=True)}
    with counted("Readers answer every case, half of them blind", len(truths)) as advance:
        disputed = read(client, truths, SEED, advance)
    with act("Feedback: adjudicate, commit the labels"):
        learned = feedback()
    story.tell("corrections", "", f"{learned.adjudication.settled} settled, {disputed} by an adjudicator")
    with act("Second model: retrain on both sites, gate against the champion"):
        judgement = retrain()
    approve(judgement.version, "Recovers the new site and is not inferior on the sealed test patients.")
    story.tell("label commit", "", learned.commit[:12] if learned.commit else "")
    return judgement


def again(client: Any, site_b: Any) -> list[dict[str, Any]]:
    """The same production cases, by the model that serves now."""
    from flows.demo.clinic import send

    with counted("Site B: the same cases scored by the new champion", len(site_b.phantoms)) as advance:
        return send(client, site_b.files, advance)


def compare(story: Story, site_b: Any, before: list[dict[str, Any]], after: list[dict[str, Any]], second: Any) -> None:
    """Before and after on the production cases whose patients the second model never learned from."""
    from components.model.statistics import clustered
    from flows import clients

    settings = story.settings
    log = clients.prediction_log(settings).frame()
    bundle = clients.champion_bundle(settings, clients.params(settings).gate.model)
    assert bundle is not None
    learned = set(pd.read_parquet(bundle / "training_images.parquet")["patient_id"])
    del log, learned, site_b, before, after, second, clustered, np


def finish(story: Story, first: Any, second: Any, seconds: float) -> None:
    """The last table, and where everything lies."""
    table = Table(title=f"The loop, in {seconds:.0f} s", title_justify="left")
    for column in ("", "first champion", "second champion"):
        table.add_column(column)
    for row in story.rows:
        table.add_row(*row)
    Console().print(table)
