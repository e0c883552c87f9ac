"""The clinic pages: a worklist, a case to read, what drifted, and which model answers. Plain HTML; works by keyboard.

A call is told by word and shape, never by colour alone. While a case is read blind its page holds no AI output and
no other reader's opinion; while the stop switch is on, no page holds AI output.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from components.errors import (
    DataError,
    LedgerCorrupt,
    MissingPatient,
    OsteoflowError,
    UnknownLabel,
    UnknownReader,
    UnreadableImage,
)
from components.promotion.ledger import Entry
from components.serving import caution
from components.serving.cases import Case, agreement, confidence, what_is_left
from components.serving.champion import Off, Serving
from components.serving.manifest import CARD
from components.serving.service import Service

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

NEWEST = 200
MAX_FILES = 50
CALLS = {
    "fracture": ("▲", "Fracture likely"),
    "review": ("◆", "Not certain: please read"),
    "no_fracture": ("○", "No fracture seen"),
    "blind": ("◌", "Blind read"),
    "off": ("□", "AI output is off"),
}
LABELS = {"fracture": "Fracture", "no_fracture": "No fracture", "unknown": "Cannot tell"}
SEVERITIES = {
    "critical": ("▲", "Critical: the model may be missing fractures"),
    "warning": ("▲", "Warning: cases are no longer like what the model was made on"),
    "notice": ("◆", "Notice: something new is being sent"),
    "clear": ("○", "Cleared"),
}
UNSAID = {"blind": "shown once it has been read", "off": "not shown while AI output is off"}
# What needs a person comes first, and among equal calls what its prediction set does not settle. A blind case has a
# place of its own, so that its place tells nothing.
ORDER = ("review", "blind", "off", "fracture", "no_fracture")


@router.get("/")
def worklist(request: Request) -> Response:
    """The newest cases, those that need a person first."""
    return _worklist(request)


@router.post("/cases")
async def upload(request: Request) -> Response:
    """Judge the files of the form; one leads to its case, several to the list."""
    from components.serving.api import judge

    service = _service(request)
    current = await run_in_threadpool(service.champion.current)
    if isinstance(current, Off):
        return await run_in_threadpool(_worklist, request, problems=[current.sentence], status=503)
    problems: list[str] = []
    case: Case | None = None
    async with request.form(max_files=MAX_FILES, max_fields=4) as form:
        files = [part for part in form.getlist("file") if isinstance(part, UploadFile) and part.size]
        for number, part in enumerate(files, start=1):
            try:
                case = await judge(request, await part.read(), current)
            except (UnreadableImage, MissingPatient) as error:
                problems.append(f"File {number} of {len(files)} was not judged: {error}")
    if not files:
        problems.append("No file was chosen.")
    if problems:
        return await run_in_threadpool(_worklist, request, problems=problems, status=422)
    target = f"/cases/{case.prediction.id}" if case and len(files) == 1 else "/"
    return RedirectResponse(target, status_code=303)


@router.get("/cases/{id}")
def case_page(request: Request, id: str) -> Response:
    """One case to read."""
    return _case_page(request, id)


@router.post("/cases/{id}/reads")
def read(
    request: Request,
    id: str,
    label: Annotated[str, Form()],
    reader: Annotated[str, Form(max_length=80)] = "",
    note: Annotated[str, Form(max_length=2000)] = "",
    adjudicator: Annotated[bool, Form()] = False,
) -> Response:
    """Log a read from the page."""
    if not reader.strip():
        return _case_page(request, id, problem="A read needs its reader's name.", status=422)
    try:
        _service(request).correct(id, reader=reader, label=label, note=note, adjudicator=adjudicator)
    except (UnknownLabel, UnknownReader) as error:
        return _case_page(request, id, problem=str(error), status=422)
    return RedirectResponse(f"/cases/{id}", status_code=303)


@router.get("/alerts")
def alerts(request: Request) -> Response:
    """Drift and performance alerts, newest first."""
    try:
        entries = _service(request).champion.ledger.entries("alert")
    except LedgerCorrupt:
        return message(request, 503, "The ledger is damaged; run `osteoflow audit verify`.")
    return _page(request, "alerts.html", alerts=[_alert(entry) for entry in reversed(entries)])


@router.get("/model")
def model(request: Request) -> Response:
    """Which model answers, and who approved it."""
    service = _service(request)
    current = service.champion.current()
    serving = current if isinstance(current, Serving) else None
    met = len(service.log.comparisons(serving.candidate.entry.hash)) if serving and serving.candidate else 0
    return _page(
        request,
        "model.html",
        serving=serving,
        met=met,
        back=_taken_back(service, serving) if serving else None,
        registry_url=service.config.registry_url,
        when=_iso,
    )


@router.get("/model/card")
def card(request: Request) -> Response:
    """The model card that travels in the bundle."""
    current = _service(request).champion.current()
    if isinstance(current, Off):
        return message(request, 503, current.sentence)
    return PlainTextResponse((current.bundle.folder / CARD).read_text(encoding="utf-8"))


def _taken_back(service: Service, serving: Serving) -> Entry | None:
    """The last version that a guard took back while this champion has served."""
    mine = [e for e in service.champion.ledger.entries("return") if e.body.get("name") == service.config.model]
    return mine[-1] if mine and mine[-1].seq > serving.entry.seq else None


def message(request: Request, status: int, sentence: str) -> Response:
    """A page that says one thing."""
    return _page(request, "message.html", status=status, sentence=sentence)


def _worklist(request: Request, *, problems: list[str] | None = None, status: int = 200) -> Response:
    service = _service(request)
    rows = [_row(service, case) for case in service.log.cases(NEWEST)]
    rows.sort(key=lambda row: (row["answered"], not row["disagree"], ORDER.index(row["kind"]), row["settled"]))
    return _page(request, "worklist.html", status=status, rows=rows, problems=problems or [])


def _row(service: Service, case: Case) -> dict[str, Any]:
    said = case.prediction
    hidden = service.withheld(case)
    kind = "blind" if hidden else "off" if service.silence() else said.call
    left = None if kind in UNSAID else said.prediction_set  # whose answer is withheld keeps its place, whatever its set
    disagree = not hidden and agreement(case.reads, service.config.readers).disagree
    shape, words = CALLS[kind]
    return {
        "id": said.id,
        "time": _when(said.time),
        "place": " · ".join([said.site, said.body_region, said.view]),
        "kind": kind,
        "shape": shape,
        "words": words,
        "percent": None if kind in UNSAID else round(said.probability * 100),
        "confidence": UNSAID.get(kind) or confidence(said.probability),
        "left": what_is_left(left) if left else None,
        "settled": left is not None and left.settled,
        "reads": len(case.reads),
        "disagree": disagree,
        "answered": bool(case.reads) and not hidden and not disagree,
    }


def _case_page(request: Request, id: str, *, problem: str | None = None, status: int = 200) -> Response:
    service = _service(request)
    try:
        case = service.log.case(id)
    except DataError:
        return message(request, 404, "There is no such case.")
    hidden, row = service.withheld(case), _row(service, case)
    stands = agreement(case.reads, service.config.readers)
    return _page(
        request,
        "case.html",
        status=status,
        row=row,
        said=case.prediction,
        hidden=hidden,
        mapped=service.picture(case.prediction, overlay=True).is_file(),
        reads=[{"time": _when(r.time), "read": r, "words": LABELS[r.label]} for r in case.reads],
        stands=None if hidden else stands,
        labels=LABELS,
        warnings=caution.warnings(case.prediction.quality, hidden=row["kind"] in UNSAID),
        problem=problem,
    )


def _page(request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
    try:
        current = _service(request).champion.current()
    except OsteoflowError as error:
        current = Off("unavailable", str(error))
    off = current if isinstance(current, Off) else None
    text = request.app.state.pages.get_template(name).render(off=off, here=request.url.path, status=status, **values)
    return HTMLResponse(text, status_code=status)


def pages() -> Environment:
    """The templates, with everything escaped and a missing value an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _alert(entry: Entry) -> dict[str, Any]:
    """An alert of the ledger in words: how bad, why, and on how many cases of when."""
    body = entry.body
    severity = str(body.get("severity", "notice"))
    shape, words = SEVERITIES.get(severity, SEVERITIES["notice"])
    reasons = [str(reason).replace("`", "") for reason in body.get("reasons") or body.get("findings") or []]
    facts = {"cases": body.get("cases"), "from": body.get("since"), "until": body.get("until")}
    facts |= {"bundle": str(body.get("bundle", ""))[:12], "report": body.get("report"), "ledger entry": entry.seq}
    return {
        "time": _iso(entry.time),
        "severity": severity,
        "shape": shape,
        "words": words,
        "reasons": reasons,
        "facts": [(name, value) for name, value in facts.items() if value not in (None, "")],
    }


def _iso(time: str) -> str:
    return _when(datetime.fromisoformat(time))


def _when(time: datetime) -> str:
    return f"{time.astimezone(UTC):%d %b %Y, %H:%M} UTC"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
