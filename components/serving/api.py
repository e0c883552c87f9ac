"""The clinic service on the web: predictions, their pictures and clinicians' reads as JSON; the pages beside them.

An answer that could not be logged is not given. An audit case shows no AI output until it has been read blind, and no
case shows any while the stop switch is on.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from components.errors import (
    DataError,
    MissingPatient,
    OsteoflowError,
    Unavailable,
    UnknownLabel,
    UnknownReader,
    UnreadableImage,
)
from components.radiograph.labels import Box
from components.serving import caution, review
from components.serving.bundle import PredictionSet
from components.serving.cases import Case, LoggedPrediction, confidence, what_is_left
from components.serving.champion import Off, Serving
from components.serving.door import Door, refuse
from components.serving.service import Service, ServiceConfig

log = logging.getLogger("osteoflow.serving")

AT_ONCE = 2  # decoded images in memory at the same time
WITHHELD = "withheld: this case is being read blind first"


class Answer(BaseModel):
    """As the API shows a prediction. What the model says is null while the case is read blind or AI output is off."""

    id: str
    time: datetime
    image_id: str
    site: str
    view: str
    body_region: str
    version: str
    bundle_hash: str
    probability: float | None = Field(description="calibrated probability of a fracture; null while hidden")
    call: str | None = Field(description="fracture, no_fracture or review; null while hidden")
    confidence: str = Field(description="the probability in words, or why it is hidden")
    prediction_set: PredictionSet | None = Field(
        description="labels that are not ruled out, and the coverage promised for either class; null while hidden, for "
        "a picture that is unlike the bundle's reference, is no radiograph, shows another body region than stated, or "
        "states one, or a view, that the bundle was not checked on; and from a bundle without such sets"
    )
    not_ruled_out: str | None = Field(description="the prediction set in words; null where there is none")
    audit: bool
    inclusion_probability: float
    withheld: bool
    warnings: list[str]
    reads: int


class Read(BaseModel):
    """A clinician's read, as a client sends it."""

    model_config = ConfigDict(extra="forbid")

    reader: str = Field(pattern=r"\S", max_length=80)
    label: str
    blinded: bool | None = None
    adjudicator: bool = False
    boxes: list[Box] = Field(default=[], max_length=100)
    note: str = Field(default="", max_length=2000)


def create_app(config: ServiceConfig) -> FastAPI:
    """The application. Opens the log, the key and the picture folder; a model is loaded once one is approved."""
    app = FastAPI(title="Osteoflow clinic service", docs_url=None, redoc_url=None)
    app.state.service = Service(config)
    app.state.pages = review.pages()
    app.state.turns = asyncio.Semaphore(AT_ONCE)
    app.add_middleware(Door, hosts=config.hosts, max_bytes=config.max_upload_mb << 20)
    app.add_exception_handler(OsteoflowError, _explain)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(RequestValidationError, _explain)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/api/predictions", predict, methods=["POST"], response_model=Answer)
    app.add_api_route("/api/predictions", newest, methods=["GET"], response_model=list[Answer])
    app.add_api_route("/api/predictions/{id}", one, methods=["GET"], response_model=Answer)
    app.add_api_route("/api/predictions/{id}/image.png", image, methods=["GET"])
    app.add_api_route("/api/predictions/{id}/overlay.png", overlay, methods=["GET"])
    app.add_api_route("/api/predictions/{id}/corrections", correct, methods=["POST"], status_code=201)
    app.include_router(review.router)
    return app


def health(request: Request) -> dict[str, Any]:
    """Whether a model answers, which one, and how much is logged. 200 as long as the process and its log live."""
    service = _service(request)
    current = service.champion.current()
    predictions, corrections = service.log.count()
    serving = isinstance(current, Serving)
    return {
        "serving": serving,
        "reason": None if isinstance(current, Serving) else current.reason,
        "detail": None if isinstance(current, Serving) else current.sentence,
        "bundle_hash": current.bundle.hash if isinstance(current, Serving) else None,
        "version": current.version if isinstance(current, Serving) else None,
        "ledger_seq": current.entry.seq if isinstance(current, Serving) else None,
        "candidate": _candidate(current),
        "predictions": predictions,
        "corrections": corrections,
    }


async def predict(request: Request) -> Answer | Response:
    """Judge one DICOM file: the body itself, or the part `file` of a form."""
    service = _service(request)
    current = await run_in_threadpool(service.champion.current)
    if isinstance(current, Off):
        return refuse(503, current.reason, current.sentence)
    data = await _upload(request)
    case = await judge(request, data, current)
    # The switch may have been pressed while this was being judged.
    if off := await run_in_threadpool(service.silence):
        return refuse(503, off.reason, off.sentence)
    return _answer(service, case)


async def judge(request: Request, data: bytes, serving: Serving) -> Case:
    """Predict without blocking the loop, at most two at a time."""
    service = _service(request)
    async with request.app.state.turns:
        prediction = await run_in_threadpool(service.predict, data, serving)
    return await run_in_threadpool(service.log.case, prediction.id)


def newest(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Answer]:
    """The newest predictions, newest first."""
    service = _service(request)
    return [_answer(service, case) for case in service.log.cases(limit)]


def one(request: Request, id: str) -> Answer:
    """One prediction."""
    service = _service(request)
    return _answer(service, _case(service, id))


def image(request: Request, id: str) -> Response:
    """The radiograph, rendered for a screen."""
    service = _service(request)
    return _picture(service.picture(_case(service, id).prediction))


def overlay(request: Request, id: str) -> Response:
    """The radiograph with its heat map."""
    service = _service(request)
    case = _case(service, id)
    if off := service.silence():
        return refuse(503, off.reason, off.sentence)
    if service.withheld(case):
        return refuse(403, "withheld", f"The heat map is {WITHHELD}.")
    return _picture(service.picture(case.prediction, overlay=True), "This case has no heat map, or it is gone.")


def correct(request: Request, id: str, read: Read) -> dict[str, Any]:
    """Log a clinician's read; the answer says whether it counts as blinded."""
    service = _service(request)
    _case(service, id)
    correction = service.correct(
        id,
        reader=read.reader,
        label=read.label,
        blinded=read.blinded,
        adjudicator=read.adjudicator,
        boxes=tuple(box.model_dump() for box in read.boxes),
        note=read.note,
    )
    return correction.model_dump(include={"id", "prediction_id", "reader", "label", "blinded", "adjudicator", "time"})


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _candidate(current: Serving | Off) -> dict[str, Any] | None:
    """The version on its way and its stage; `opened` is false where its files are missing or altered."""
    if isinstance(current, Off) or current.candidate is None:
        return None
    found = current.candidate
    return {"version": found.version, "stage": found.stage, "opened": found.bundle is not None}


def _case(service: Service, id: str) -> Case:
    try:
        return service.log.case(id)
    except DataError:
        raise HTTPException(404, "There is no such case.") from None


def _answer(service: Service, case: Case) -> Answer:
    said: LoggedPrediction = case.prediction
    off = service.silence()
    hidden = off is not None or service.withheld(case)
    left = None if hidden else said.prediction_set
    return Answer(
        **said.model_dump(include=set(Answer.model_fields) - {"probability", "call", "prediction_set"}),
        probability=None if hidden else said.probability,
        call=None if hidden else said.call,
        prediction_set=left,
        not_ruled_out=what_is_left(left) if left else None,
        confidence=off.sentence if off else WITHHELD if hidden else confidence(said.probability),
        withheld=hidden,
        warnings=caution.warnings(said.quality, hidden=hidden),
        reads=len(case.reads),
    )


def _picture(path: Path, absent: str = "The picture of this case is no longer kept.") -> Response:
    if not path.is_file():
        raise HTTPException(404, absent)
    return FileResponse(path, media_type="image/png")


async def _upload(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1, max_fields=4) as form:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise HTTPException(422, "The form has no part named `file`.")
        return await part.read()


async def _explain(request: Request, error: Exception) -> Response:
    """Every refusal is a code and a sentence; on the pages, a page."""
    status, reason, sentence = _meaning(error)
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error)
    if request.url.path.startswith(("/api", "/health")):
        return refuse(status, reason, sentence)
    return review.message(request, status, sentence)


def _meaning(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, UnreadableImage):
        return 422, error.reason, str(error)
    if isinstance(error, MissingPatient):
        return 422, "missing_patient", str(error)
    if isinstance(error, UnknownLabel):
        return 422, "label", str(error)
    if isinstance(error, UnknownReader):
        return 422, "reader", str(error)
    if isinstance(error, DataError):
        return 500, "storage", "The answer could not be stored, so there is none; the service's log says more."
    if isinstance(error, Unavailable):
        return 503, "unavailable", "The prediction log does not answer, and nothing is answered unlogged; try again."
    if isinstance(error, RequestValidationError):
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors())
        return 422, "request", problems
    if isinstance(error, HTTPException):
        reasons = {404: "not_found", 405: "method", 413: "too_large", 422: "request"}
        return error.status_code, reasons.get(error.status_code, "request"), str(error.detail)
    return 500, "configuration", "The service is not set up correctly; its log says more."


__all__ = ["Answer", "Read", "ServiceConfig", "create_app", "judge"]
