"""The candidate beside the champion during a roll-out: silent in shadow, answering its share in canary.

It runs on a thread of its own. In shadow nobody waits for it; in canary an answer waits for it no longer than the plan
allows, and then the champion gives it. So a candidate that fails, hangs or is slow costs time, never an answer; what
it cost is on record, and the flow that reads it takes the version back.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from components.errors import BundleCorrupt, OsteoflowError
from components.params import RollOut
from components.promotion.ledger import Entry
from components.promotion.stages import Stage, cases_of, stage_of
from components.radiograph.deidentify import Pseudonyms
from components.serving import caution
from components.serving.bundle import Bundle, Prediction
from components.serving.cases import Comparison, LoggedPrediction, drawn
from components.serving.store import PredictionLog

log = logging.getLogger("osteoflow.serving")

WAITING = 4  # pictures that are kept in memory for a model that has not come to them yet
STUCK = 60.0  # seconds over one picture after which those that find no place count as failures


@dataclass(frozen=True)
class Candidate:
    """An approved version on its way, as the ledger's `stage` entry has it. `bundle` is None when it does not open."""

    bundle: Bundle | None
    version: str
    entry: Entry
    plan: RollOut

    @property
    def stage(self) -> Stage:
        return stage_of(self.entry)

    @property
    def needed(self) -> int:
        """How many cases its stage takes at least."""
        return cases_of(self.plan, self.stage)

    @property
    def patience(self) -> float:
        """Seconds that an answer waits for it at most."""
        return self.plan.max_latency_ms / 1000

    def answers(self, pseudonyms: Pseudonyms, patient_id: str) -> bool:
        """Whether it, not the champion, answers this patient: a keyed draw of its own for each candidate."""
        share = self.plan.canary_share if self.stage == "canary" else 0.0
        return drawn(pseudonyms, "canary", f"{self.hash}/{patient_id}", share)

    @property
    def hash(self) -> str:
        return str(self.entry.body["bundle_hash"])

    def predict(self, pixels: np.ndarray) -> Prediction:
        """Its word on a radiograph, as `Bundle.predict`; BundleCorrupt where it did not open."""
        if self.bundle is None:
            raise BundleCorrupt("the candidate's bundle does not open")
        return self.bundle.predict(pixels)


@dataclass(frozen=True)
class Word:
    """What a model says of a picture and how long that took; `error`: it says nothing, but raised this."""

    said: Prediction | None
    milliseconds: float
    error: str | None = None


TOO_LATE = Word(None, 0.0, "TimeoutError")


class Beside:
    """One thread, and at most `WAITING` pictures before it."""

    def __init__(self) -> None:
        self._work: queue.Queue[tuple[Future[Word], Callable[[], Word]] | None] = queue.Queue(WAITING)
        self._since: float | None = None
        # A daemon: the service can stop while a model hangs.
        threading.Thread(target=self._run, name="candidate", daemon=True).start()

    @property
    def stuck(self) -> bool:
        """Whether one picture has taken so long that the thread may never come back."""
        since = self._since
        return since is not None and time.monotonic() - since > STUCK

    def submit(self, act: Callable[[], Word]) -> Future[Word] | None:
        """Do `act` when its turn comes; None: too many are waiting."""
        future: Future[Word] = Future()
        try:
            self._work.put_nowait((future, act))
        except queue.Full:
            return None
        return future

    def end(self) -> None:
        """Drop what waits, and finish after what is at work."""
        with suppress(queue.Empty):
            while True:
                self._work.get_nowait()
        with suppress(queue.Full):
            self._work.put_nowait(None)

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            future, act = job
            if not future.set_running_or_notify_cancel():
                continue
            self._since = time.monotonic()
            try:
                future.set_result(act())
            except Exception as error:  # noqa: BLE001  (whatever a candidate raises is its failure, not the service's)
                future.set_exception(error)
            self._since = None


class Trial:
    """One stage of one candidate, beside one champion; what both say of a case goes into `store`."""

    def __init__(
        self, candidate: Candidate, champion: Bundle, *, store: PredictionLog, clock: Callable[[], datetime]
    ) -> None:
        self.candidate = candidate
        self._champion = champion
        self._store = store
        self._clock = clock
        self._beside = Beside()

    def ask(self, pixels: np.ndarray) -> Word | None:
        """The candidate's word within its time, or its failure; None: it has too much to do, and that is no failure."""
        started = time.monotonic()
        future = self._beside.submit(partial(_word, self.candidate.predict, pixels))
        if future is None:
            return TOO_LATE if self._beside.stuck else None
        try:
            return future.result(timeout=self.candidate.patience)
        except TimeoutError:
            future.cancel()
            return Word(None, 1000 * (time.monotonic() - started), "TimeoutError")

    def note(self, answer: LoggedPrediction, pixels: np.ndarray, word: Word | None) -> None:
        """Have the model that did not give `answer` judge the picture too, in silence, and log both.

        Args:
            word: what the candidate said when it was asked for the answer; None: it was not asked.
        """
        if word is not None and word.error is not None:
            self._log(answer, word, None)
        elif word is not None:
            self._beside.submit(partial(self._with_champion, answer, pixels, word))
        elif self.candidate.stage == "shadow":
            future = self._beside.submit(partial(self._with_candidate, answer, pixels))
            if future is None and self._beside.stuck:
                self._log(answer, TOO_LATE, None)

    def end(self) -> None:
        """Nothing is asked of it any more."""
        self._beside.end()

    def _with_champion(self, answer: LoggedPrediction, pixels: np.ndarray, word: Word) -> Word:
        return self._log(answer, word, _word(self._champion.predict, pixels))

    def _with_candidate(self, answer: LoggedPrediction, pixels: np.ndarray) -> Word:
        return self._log(answer, _word(self.candidate.predict, pixels), None)

    def _log(self, answer: LoggedPrediction, word: Word, champion: Word | None) -> Word:
        """One comparison. `champion`: what it said in silence; None: the answer is its word."""
        mine = _call(word, answer)
        other = _call(champion, answer) if champion else (answer.probability, answer.call)
        row = Comparison(
            stage=self.candidate.entry.hash,
            image_id=answer.image_id,
            patient_id=answer.patient_id,
            time=self._clock(),
            champion_hash=self._champion.hash,
            candidate_hash=self.candidate.hash,
            answered=champion is not None,
            champion_probability=other[0],
            champion_call=other[1],
            probability=mine[0],
            call=mine[1],
            milliseconds=word.milliseconds,
            error=word.error,
        )
        try:
            self._store.add_comparison(row)
        except OsteoflowError as error:
            log.warning("a comparison of champion and candidate is lost: %s", error)
        return word


def _word(predict: Callable[[np.ndarray], Prediction], pixels: np.ndarray) -> Word:
    started = time.monotonic()
    try:
        said = predict(pixels)
        _sound(said, pixels)
    except Exception as error:  # noqa: BLE001  (see Beside)
        log.warning("a model under comparison fails on a case: %s", type(error).__name__)
        return Word(None, 1000 * (time.monotonic() - started), type(error).__name__)
    return Word(said, 1000 * (time.monotonic() - started))


def _sound(said: Prediction, pixels: np.ndarray) -> None:
    """Refuse what could not be logged or drawn.

    Raises:
        ValueError: a figure is out of range or not finite, or the heat map is of another size.
    """
    figures = np.concatenate([[said.logit], np.ravel(said.embedding), np.ravel(said.heat_map)])
    if not (0 <= said.probability <= 1 and np.isfinite(figures).all() and said.heat_map.shape == pixels.shape):
        raise ValueError("what the model says of a case cannot be logged")


def _call(word: Word, answer: LoggedPrediction) -> tuple[float | None, Any]:
    if word.said is None:
        return None, None
    return word.said.probability, caution.abstain(word.said, answer.quality, answer.body_region, answer.view).call
