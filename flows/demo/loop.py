"""The demo, act by act: every line here is a flow, a server or a person; nothing is computed beside them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from components.settings import Settings
from flows.environment import prepare
from flows.progress import shown

# A first site, and later a new one whose detector the champion has never seen. Two images a patient.
SITE_A_PATIENTS, SITE_B_PATIENTS, IMAGES_PER_PATIENT, PREVALENCE = 260, 150, 2, 0.4
TONIGHT_PATIENTS = 12  # of site B, seen again after the loop: a worklist with work in it
SEED = 20261123

console = Console(stderr=True, highlight=False)


@dataclass
class Story:
    """What happened, for the last table."""

    settings: Settings
    rows: dict[str, list[str]] = field(default_factory=dict)

    def tell(self, what: str, column: int, said: str) -> None:
        """Note `said` about the first (0) or the second (1) champion."""
        self.rows.setdefault(what, ["", ""])[column] = said

    def judged(self, column: int, judgement: Any, data: str) -> None:
        """Note what a build and its gate gave."""
        decision = judgement.decision
        self.tell("model version", column, str(judgement.version))
        self.tell("data commit", column, data)
        found = decision.challenger
        self.tell("sealed test images", column, f"{decision.images} of {decision.patients} patients")
        self.tell("AUROC", column, str(found.auroc))
        self.tell("sensitivity, high-sensitivity point", column, str(found.sensitivity["high_sensitivity"]))
        self.tell("specificity, high-specificity point", column, str(found.specificity["high_specificity"]))
        self.tell("gate", column, decision.verdict)

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (what, first, second)."""
        return [(what, *said) for what, said in self.rows.items()]  # type: ignore[misc]


def run(settings: Settings) -> None:
    """Play the loop once in the workspace of `settings`."""
    prepare(settings, log_level="CRITICAL")
    logging.getLogger("osteoflow").setLevel(logging.INFO)
    started = time.monotonic()
    from flows.demo.clinic import service

    story = Story(settings)
    with act("Drawing phantoms of two sites"):
        site_a, site_b, tonight = draw(settings)
    first_champion(story, site_a)
    with service(settings) as client:
        before = production(story, client, site_b)
        second_champion(story, client, site_b, before)
        after = again(client, site_b, tonight)
    compare(story, site_b, before, after)
    finish(story, time.monotonic() - started)


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


def draw(settings: Settings) -> list[Any]:
    """Phantoms of site A with labels; of site B, another detector, without; and of a later night at site B."""
    from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, write_archive

    folder = settings.state / "phantoms"
    plan = (
        ("site-a", SITE_A_PATIENTS, DETECTOR_A, True),
        ("site-b", SITE_B_PATIENTS, DETECTOR_B, False),
        ("tonight", TONIGHT_PATIENTS, DETECTOR_B, False),
    )
    return [
        write_archive(
            folder / name,
            patients=patients,
            images_per_patient=IMAGES_PER_PATIENT,
            prevalence=PREVALENCE,
            detector=detector,
            seed=SEED + number,
            labels=labelled,
        )
        for number, (name, patients, detector, labelled) in enumerate(plan)
    ]


def first_champion(story: Story, site_a: Any) -> None:
    """Intake, training, gate and approval on the first site."""
    from flows.intake import intake
    from flows.retrain import retrain

    with act("Site A: intake, de-identification, data version"):
        arrival = intake(source=SecretStr(str(site_a.folder)))
    with act("First model: validate, split, train, calibrate, export, evaluate, register, gate"):
        judgement = retrain()
    story.judged(0, judgement, arrival.commit[:12])
    approve(judgement, "First model of this site: it clears every floor of the protocol on sealed test patients.")


def approve(judgement: Any, rationale: str) -> None:
    """The reviewer's act; engineer and reviewer are two people, and nobody can approve what the gate did not pass.

    Raises:
        PromotionRefused: the gate's verdict is not a pass; its reasons are printed.
    """
    from components.promotion.approve import approve as sign
    from flows import clients
    from flows.promote import promote

    if judgement.decision.verdict != "passed":
        console.print(judgement.text())
    with act(f"Approval of version {judgement.version} by the reviewer, and roll-out"):
        settings = clients.load_settings()
        sign(
            ledger=clients.ledger(settings),
            registry=clients.registry(settings),
            name=clients.params(settings).gate.model,
            version=judgement.version,
            approver="reviewer",
            rationale=rationale,
            key=clients.signing_key(settings, "reviewer"),
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
        intake(source=SecretStr(str(site_b.folder)))
    with act("Monitoring"):
        watch = monitor()
    story.tell("production", 0, watch.summary())
    story.tell("alert", 0, f"ledger entry {watch.alert}" if watch.alert is not None else "none")
    return answers


def second_champion(story: Story, client: Any, site_b: Any, answers: list[dict[str, Any]]) -> None:
    """Readers correct, their labels are settled and committed, and a challenger meets the champion."""
    from flows.demo.clinic import read
    from flows.feedback import feedback
    from flows.retrain import retrain

    truths = {answer["id"]: phantom.label for answer, phantom in zip(answers, site_b.phantoms, strict=True)}
    with counted("Readers answer every case, half of them blind", len(truths)) as advance:
        disputed = read(client, truths, SEED, advance)
    with act("Feedback: adjudicate, commit the labels"):
        learned = feedback()
    with act("Second model: retrain on both sites, gate against the champion"):
        judgement = retrain()
    story.judged(1, judgement, learned.commit[:12] if learned.commit else "none")
    story.tell("corrections", 1, f"{learned.adjudication.settled} settled, {disputed} by an adjudicator")
    approve(judgement, "Recovers the new site and is not inferior on the sealed test patients.")


def again(client: Any, site_b: Any, tonight: Any) -> list[dict[str, Any]]:
    """The same production cases, by the model that serves now; then tonight's, which nobody has read yet."""
    from flows.demo.clinic import send

    with counted("Site B: the same cases scored by the new champion", len(site_b.phantoms)) as advance:
        answers = send(client, site_b.files, advance)
    with counted("Site B: tonight's cases, for the worklist", len(tonight.phantoms)) as advance:
        send(client, tonight.files, advance)
    return answers


def compare(story: Story, site_b: Any, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Before and after on the production cases of patients whom the second model neither learned from nor was tuned on.

    The service hides its word on blind cases from readers, not from its own log, which is where the scores come from.
    """
    from components.model.statistics import auroc, auroc_of, bootstrap, percentile, rate
    from flows import clients

    log = clients.prediction_log(story.settings)
    splits = pd.read_parquet(newest_build(story.settings) / clients.params(story.settings).paths.splits)
    used = set(splits.loc[splits["role"].isin(("train", "tune", "calibrate")), "patient_id"])
    labels = np.array([phantom.label == "fracture" for phantom in site_b.phantoms], dtype=float)
    for column, answers in enumerate((before, after)):
        scored = [log.prediction(answer["id"]) for answer in answers]
        keep = np.array([one.patient_id not in used for one in scored])
        truth, patients = labels[keep], np.array([one.patient_id for one in scored])[keep]
        scores = np.array([one.probability for one in scored])[keep]
        flagged = np.array([one.call != "no_fracture" for one in scored])[keep]
        draws = bootstrap(patients, auroc_of(truth, scores), resamples=1000, seed=SEED)
        figures = {
            f"site B, {int(keep.sum())} unseen cases: AUROC": percentile(auroc(truth, scores), draws[:, 0], len(truth)),
            "    fractures not passed over (Se)": rate(flagged[truth == 1], patients[truth == 1]),
            "    healthy cases cleared (Sp)": rate(~flagged[truth == 0], patients[truth == 0]),
        }
        for what, estimate in figures.items():
            story.tell(what, column, str(estimate))


def newest_build(settings: Settings) -> Path:
    """The clone that the last model was built in."""
    return max((settings.state / "builds").iterdir(), key=lambda folder: folder.stat().st_mtime)


def finish(story: Story, seconds: float) -> None:
    """The last table, and where everything lies."""
    from flows import clients
    from flows.tables import rendered

    settings = story.settings
    entries = clients.ledger(settings).verify()
    summary = {"seconds": round(seconds), "rows": story.rows}
    (settings.state / "reports" / "demo.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(rendered(f"The loop, in {seconds:.0f} s", ("", "first champion", "second champion"), story.table()))
    print(
        f"Ledger: {entries} entries, verified. A demonstration on phantoms: its protocol is wider than a clinic's "
        "(flows/demo/parameters.py).\n"
        f"Reports: {settings.state / 'reports'}\n"
        "Next: `make up` serves MLflow, Prefect and the clinic page of this state."
    )
