"""The command line: one verb a task, `--json` where a machine reads, 0 done / 1 refused or failed / 2 usage.

Libraries are imported inside the commands: `osteoflow --help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import OsteoflowError
from flows.answers_cli import promote, resume, stop
from flows.audit_cli import audit_app
from flows.data_cli import data_app
from flows.reproduce_cli import reproduce
from flows.terminal import As, Json, say, settings_of
from flows.testset_cli import testset_app
from flows.users_cli import users_app

app = typer.Typer(
    name="osteoflow",
    help="Fracture detection on radiographs: versioned data, judged models, named approvals, watched predictions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line; our own errors are one line, anything else is a bug and keeps its traceback."""
    try:
        app()
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def demo() -> None:
    """Run the whole loop in small, on phantoms, in its own workspace (.osteoflow/demo)."""
    from flows.demo import demo as run

    run()


@app.command()
def up(
    demo: Annotated[bool, typer.Option("--demo", help="Serve the demo's workspace instead of this one.")] = False,
) -> None:
    """Serve MLflow, Prefect with its schedules, and the clinic page on this machine until Ctrl-C."""
    from components.settings import load_settings
    from flows.environment import prepare
    from flows.stack import choose, serve

    settings = choose(load_settings(), demo=demo)
    prepare(settings, log_level="WARNING")
    serve(settings)


@app.command()
def intake(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="A path or a URL, as listed above; default: the inbox.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="For DICOMweb: a labels.csv (sop_instance_uid, label, boxes).", exists=True, dir_okay=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take radiographs in: de-identify, refuse what cannot be used, version with DVC, commit the pointers.

    Without SOURCE, the inbox: what the DICOM node of `osteoflow up` received; it is emptied. Else SOURCE is one of

    - a folder or .zip of DICOM files (with an optional labels.csv), or one in the layout of FracAtlas or GRAZPEDWRI-DX

    - s3://BUCKET/PREFIX: the same, in any S3-compatible store (OSTEOFLOW_S3_ENDPOINT_URL; credentials as AWS_...)

    - dicomweb+https://HOST/PATH?StudyDate=20260101-20260131: the CR and DX images of a PACS (filters: StudyDate,
    StudyTime, ModalitiesInStudy, StudyDescription, InstitutionName; OSTEOFLOW_DICOMWEB_USER and _PASSWORD, or _TOKEN)

    What is here already is not fetched or stored again; repeat the command after any failure.
    """
    settings_of()
    from pydantic import SecretStr

    from flows.intake import intake as run
    from flows.progress import shown

    place = str(Path(source).resolve()) if source and "://" not in source else source
    with shown("intake", quiet=as_json):
        arrival = run(
            source=SecretStr(place) if place else None, labels_file=SecretStr(str(labels.resolve())) if labels else None
        )
    say(arrival.text(), arrival.model_dump(), as_json)


@app.command()
def retrain(
    rev: Annotated[str, typer.Option(help="The git revision to build: data pointers, parameters and code.")] = "HEAD",
    proposer: As = None,
    as_json: Json = False,
) -> None:
    """Build a revision, register it as challenger, judge it. Never promotes."""
    settings_of(proposer)
    from flows.progress import shown
    from flows.retrain import retrain as run

    with shown("retrain", quiet=as_json):
        judgement = run(rev=rev)
    say(judgement.text(), judgement.model_dump(), as_json)


@app.command()
def train(
    folds: Annotated[int, typer.Option(help="How many networks, each fitted without one fold.", min=2, max=20)] = 5,
    rev: Annotated[str, typer.Option(help="The git revision to train: data pointers, parameters and code.")] = "HEAD",
    as_json: Json = False,
) -> None:
    """Cross-validate a revision by patients, on role `train` alone. Registers nothing; `retrain` releases."""
    settings = settings_of()
    from flows.progress import shown
    from flows.train import cross_validate

    with shown("train", quiet=as_json):
        validated = cross_validate(settings, folds=folds, rev=rev)
    say(validated.text(), validated.model_dump(), as_json)


@app.command()
def models(as_json: Json = False) -> None:
    """List the model versions: verdict, alias, figures, and the commit each was made from."""
    settings = settings_of()
    from flows import clients
    from flows.tables import version_table

    name = clients.params(settings).gate.model
    versions = clients.registry(settings).versions(name)
    body = {"model": name, "versions": [version.model_dump() for version in versions]}
    say(version_table(name, versions), body, as_json)


@app.command()
def approve(
    version: Annotated[int, typer.Argument(help="The model version to make champion.")],
    rationale: Annotated[str, typer.Option(help="Why; it is signed with your name.")],
    approver: As = None,
    as_json: Json = False,
) -> None:
    """Approve a version that passed its gate, sign it, and begin its roll-out once all who have to have signed."""
    settings = settings_of(approver)
    from components.promotion.approve import approve as sign
    from components.promotion.signers import behind
    from flows import clients
    from flows.promote import promote

    ledger = clients.ledger(settings)
    entry = sign(
        ledger=ledger,
        registry=clients.registry(settings),
        name=clients.params(settings).gate.model,
        version=version,
        approver=settings.user,
        rationale=rationale,
        key=clients.signing_key(settings, settings.user),
    )
    way, signed = promote(), behind(entry, ledger.entries())
    live = way.text() if signed.completing else f"Not live: {signed.text()}."
    text = f"Version {version} approved by {settings.user} (ledger entry {entry.seq}, signed). {live}"
    text += clients.still_off(settings)
    body = {"version": version, "approver": settings.user, "entry": entry.seq, "rolled_out": way.rolled_out}
    body |= {"staged": way.model_dump()["staged"], "signed": len(signed.approvals), "lacking": dict(signed.lacking)}
    body |= {"signers": signed.needed.model_dump() if signed.needed else None}
    say(text, body, as_json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it is signed with your name.")],
    to: Annotated[
        int | None,
        typer.Option(help="The version to return to; default: the one before, from a canary the champion."),
    ] = None,
    user: As = None,
    as_json: Json = False,
) -> None:
    """Return to an earlier champion now, or from a version on its way to the present one. A reviewer may.

    Who is none, and sees harm, runs `osteoflow stop`.
    """
    settings = settings_of(user)
    from components.promotion.approve import rollback as back
    from flows import clients

    entry = back(
        ledger=clients.ledger(settings),
        registry=clients.registry(settings),
        name=clients.params(settings).gate.model,
        to_version=to,
        reason=reason,
        user=settings.user,
        key=clients.signing_key(settings, settings.user),
    )
    version = entry.body["version"]
    say(
        f"Version {version} is champion again, alone, instead of version {entry.body['replaced_version']} "
        f"(ledger entry {entry.seq}, signed by {settings.user})." + clients.still_off(settings),
        {"version": version, "entry": entry.seq},
        as_json,
    )


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="DICOM files.", exists=True, dir_okay=False)],
    out: Annotated[Path | None, typer.Option(help="Folder for the DICOM results (SR and marked overlay).")] = None,
    as_json: Json = False,
) -> None:
    """Score DICOM files with the champion, exactly as the service does; nothing is logged as production."""
    settings = settings_of()
    from flows.predict import predict_files

    results = predict_files(settings, files, out)
    say("\n".join(result.text() for result in results), {"results": [r.model_dump() for r in results]}, as_json)
    if all(result.refused for result in results):
        raise typer.Exit(1)


@app.command()
def explain(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="DICOM, PNG, JPEG or TIFF files, or image ids.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for a panel and a line of JSON per image.")] = Path(
        "reports/explain"
    ),
    as_json: Json = False,
) -> None:
    """Show why the model of the current build says what it says: heat map, Grad-CAM and SmoothGrad beside the image."""
    settings = settings_of()
    from flows.explain import explain_images

    results = explain_images(settings, images, out)
    say("\n".join(result.text() for result in results), {"results": [r.model_dump() for r in results]}, as_json)
    if all(result.refused for result in results):
        raise typer.Exit(1)


@app.command()
def deidentify(
    files: Annotated[list[Path], typer.Argument(help="DICOM files.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the copies.")],
    as_json: Json = False,
) -> None:
    """Write copies that say nothing of whose they are: pseudonyms, moved dates, text in the pixels painted over."""
    settings = settings_of()
    from flows import clients
    from flows.release import release_files

    results = release_files(files, out, clients.pseudonyms(settings), clients.params(settings).intake)
    say("\n".join(result.text() for result in results), {"results": [r.model_dump() for r in results]}, as_json)
    if all(result.refused for result in results):
        raise typer.Exit(1)


@app.command()
def monitor(as_json: Json = False) -> None:
    """Compare recent production predictions with what the champion was made on; alert when they part."""
    settings_of()
    from flows.monitor import monitor as run

    watch = run()
    say(watch.text(), watch.model_dump(), as_json)


@app.command()
def feedback(as_json: Json = False) -> None:
    """Adjudicate clinician corrections and commit the settled labels."""
    settings_of()
    from flows.feedback import feedback as run

    learned = run()
    say(learned.text(), learned.model_dump(), as_json)


for verb in (promote, stop, resume, reproduce):
    app.command()(verb)
app.add_typer(audit_app, name="audit")
app.add_typer(data_app, name="data")
app.add_typer(testset_app, name="testset")
app.add_typer(users_app, name="users")

trace_app = typer.Typer(
    help="Follow a prediction to its training images, an image or a patient to the models that learned from them.",
    no_args_is_help=True,
)
app.add_typer(trace_app, name="trace")


@trace_app.command("prediction")
def trace_prediction(
    identity: Annotated[str, typer.Argument(metavar="ID", help="A prediction id, as the clinic page shows it.")],
    as_json: Json = False,
) -> None:
    """Prediction -> bundle, version, approval, commits, training images and who labelled them."""
    settings = settings_of()
    from flows.trace import prediction

    found = prediction(settings, identity)
    say(found.text(), found.model_dump(), as_json)


@trace_app.command("image")
def trace_image(
    identity: Annotated[str, typer.Argument(metavar="ID", help="An image id (a pseudonym).")],
    as_json: Json = False,
) -> None:
    """Image -> label events, predictions, and the model versions that learned from it."""
    settings = settings_of()
    from flows.trace import image

    found = image(settings, identity)
    say(found.text(), found.model_dump(), as_json)


@trace_app.command("patient")
def trace_patient(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A patient's pseudonym; left out, the original id is asked for."),
    ] = None,
    issuer: Annotated[str, typer.Option(help="Issuer of the original id, where it has one.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw: on record, and out of later builds.")] = False,
    reason: Annotated[str, typer.Option(help="Why it is withdrawn, without a name; it is signed with yours.")] = "",
    user: As = None,
    as_json: Json = False,
) -> None:
    """Patient -> data versions and models that hold their images; with --withdraw, out of later builds."""
    settings = settings_of(user)
    from flows import patients

    # Asked for, not given as an argument: a shell keeps those.
    patient = identity or patients.pseudonym(settings, typer.prompt("patient id"), issuer)
    found = patients.withdraw(settings, patient, reason) if withdraw else patients.trace(settings, patient)
    say(found.text(), found.model_dump(), as_json)


@app.command()
def doctor(
    mend: Annotated[
        bool, typer.Option("--repair", help="First mend what killed runs left, where that is safe.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check this workspace and its services, and say what to do about what is wrong."""
    settings = settings_of()
    from flows.doctor import examine, repair

    mended = repair(settings) if mend else []
    report = examine(settings)
    for what in [] if as_json else mended:
        print(f"mended: {what}")
    say(report.text(), report.model_dump(), as_json)
    if not report.healthy:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
