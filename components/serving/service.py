"""The clinic service without its web: DICOM bytes in, one logged prediction and two de-identified pictures out."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from components.dataset.store import atomic_path
from components.errors import LedgerCorrupt, UnknownReader
from components.promotion.roles import Roll
from components.radiograph import dicom, labels, quality
from components.radiograph.burned_in import Policy, clean
from components.radiograph.deidentify import Pseudonyms
from components.serving import caution, overlay
from components.serving.candidate import Trial
from components.serving.cases import Case, Correction, LoggedPrediction, drawn
from components.serving.champion import Champion, Off, Serving
from components.serving.store import PredictionLog


@dataclass(frozen=True)
class ServiceConfig:
    """Everything the service is told; it reads no settings itself.

    Attributes:
        log_url: prediction log, SQLAlchemy URL.
        ledger: the decision ledger's file.
        bundles: folder with one folder a bundle, named by its hash; the promote flow fills it.
        images: folder for the de-identified pictures; made owner-only.
        key_dir: the pseudonym key that intake uses, so that corrections meet their images; and whose word counts.
        model: registered name of the model that serves.
        audit_share: share of cases that readers see without the AI output first.
        readers: agreeing readers that settle a case.
        max_megapixels: larger images are refused before they are decoded.
        burned_in: what happens to text in the pixels, as at intake: the model sees what it learned from.
        max_upload_mb: larger requests are refused while they arrive.
        hosts: names this service answers to (Host header), without port.
        registry_url: the registry's page, linked from `/model`.
    """

    log_url: str
    ledger: Path
    bundles: Path
    images: Path
    key_dir: Path
    model: str
    audit_share: float
    readers: int
    max_megapixels: int = 100
    burned_in: Policy = "mask"
    max_upload_mb: int = 64
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")
    registry_url: str | None = None


class Service:
    """Opens the log, the key and the picture folder; loads a model when one is approved."""

    def __init__(self, config: ServiceConfig, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.config = config
        self.log = PredictionLog(config.log_url)
        self.log.create()
        self.champion = Champion(
            ledger=config.ledger, bundles=config.bundles, name=config.model, key_dir=config.key_dir
        )
        self._pseudonyms = Pseudonyms.open(config.key_dir)
        self._clock = clock
        self._trial: Trial | None = None
        self._trying = threading.Lock()
        self._reading = threading.Lock()  # while it decodes, pydicom's warnings are silenced process-wide
        config.images.mkdir(parents=True, exist_ok=True)
        config.images.chmod(0o700)

    def predict(self, data: bytes, serving: Serving) -> LoggedPrediction:
        """Judge one radiograph; the answer exists only once it is logged. The same image again is the same answer.

        While a candidate is in canary it answers its share of the patients, where it can and in time; else the champion
        does. Whichever does not answer judges new images in silence.

        Args:
            data: a DICOM file; it is not kept.
            serving: what `champion.current()` gave.

        Raises:
            UnreadableImage, MissingPatient: the file cannot be judged; `reason` says why.
            Unavailable: the log does not answer.
        """
        with self._reading:
            image = dicom.read(data, self._pseudonyms, max_megapixels=self.config.max_megapixels)
        image = clean(image, self.config.burned_in)
        meta, earlier, trial = image.meta, self.log.of_image(image.meta.image_id), self._beside(serving)
        theirs = trial is not None and trial.candidate.answers(self._pseudonyms, meta.patient_id)
        if known := self._known(earlier, serving, theirs):
            return known
        measured = {name: _plain(value) for name, value in quality.measure(image).items()}
        word = trial.ask(image.pixels) if trial and theirs else None
        bundle, version, found = serving.bundle, serving.version, word.said if word else None
        if trial and trial.candidate.bundle and found:
            bundle, version = trial.candidate.bundle, trial.candidate.version
        said = caution.abstain(found or bundle.predict(image.pixels), measured, meta.body_region, meta.view)
        measured[caution.FAMILIAR] = said.familiar
        if lacking := caution.unsupported(said, meta.body_region, meta.view):
            measured[caution.UNSUPPORTED] = lacking
        if seen := caution.other_region(said, meta.body_region):
            measured[caution.REGION_SEEN] = seen
        prediction = LoggedPrediction(
            id=LoggedPrediction.key(meta.image_id, bundle.hash),
            time=self._clock(),
            image_id=meta.image_id,
            patient_id=meta.patient_id,
            study_id=meta.study_id,
            site=meta.site,
            device=meta.device,
            view=meta.view,
            body_region=meta.body_region,
            bundle_hash=bundle.hash,
            version=version,
            probability=said.probability,
            logit=said.logit,
            call=said.call,
            # Once drawn, or seen with its AI output, a case stays so under every later model.
            audit=earlier[0].audit if earlier else self.drawn(meta.image_id),
            inclusion_probability=earlier[0].inclusion_probability if earlier else self.config.audit_share,
            quality=measured,
            embedding=tuple(float(x) for x in said.embedding),
            prediction_set=said.prediction_set,
        )
        grey = overlay.display(image.pixels, image.window)
        self._keep(self.picture(prediction), overlay.png(grey))
        if bundle.manifest.heat_map.shown:  # one that failed its checks is not drawn: nobody can see it by mistake
            self._keep(self.picture(prediction, overlay=True), overlay.png(overlay.paint(grey, said.heat_map)))
        answer = self.log.add_prediction(prediction)
        if trial:
            trial.note(answer, image.pixels, word)
        return answer

    def drawn(self, image_id: str) -> bool:
        """Whether this image is an audit case."""
        return drawn(self._pseudonyms, "audit", image_id, self.config.audit_share)

    def correct(
        self,
        prediction_id: str,
        *,
        reader: str,
        label: str,
        blinded: bool | None = None,
        adjudicator: bool = False,
        boxes: tuple[dict[str, float], ...] = (),
        note: str = "",
    ) -> Correction:
        """Log a clinician's read. It counts as blinded only when the service still withheld its output.

        Args:
            blinded: False where the reader saw an AI result elsewhere; None or True leave it to the service.

        Raises:
            UnknownLabel: `label` is outside the vocabulary.
            UnknownReader: readers are named in the ledger, and this is none of them.
            DataError: no such prediction.
        """
        labels.to_value(label)
        reader = self._named(" ".join(reader.split()))
        hidden = self.withheld(self.log.case(prediction_id))
        return self.log.add_correction(
            prediction_id,
            reader=reader,
            label=label,
            time=self._clock(),
            blinded=hidden and blinded is not False,
            adjudicator=adjudicator,
            boxes=boxes,
            note=note.strip(),
        )

    def withheld(self, case: Case) -> bool:
        """Whether the AI output of `case` is still hidden from readers because it is read blind."""
        return case.withheld(self.config.readers)

    def _named(self, reader: str) -> str:
        """`reader` as the ledger spells the name: one who is spelt in two ways would agree with themselves."""
        try:
            readers = Roll(self.champion.ledger.entries()).holders("reader")
        except LedgerCorrupt:  # takes the AI's word away, not the clinician's
            return reader
        found = [name for name in readers if name.casefold() == reader.casefold()]
        if readers and not found:
            raise UnknownReader(f"{reader!r} is no reader here; `osteoflow users` names them.")
        return found[0] if found else reader

    def silence(self) -> Off | None:
        """Why no AI output may be shown at this moment, earlier answers included; None where it may."""
        current = self.champion.current()
        return current if isinstance(current, Off) and current.silences else None

    def picture(self, prediction: LoggedPrediction, *, overlay: bool = False) -> Path:
        """Where a case's rendering lies, or its heat-map overlay; there is none of a bundle that hides its map."""
        name = f"{prediction.id}.overlay.png" if overlay else f"{prediction.image_id}.png"
        return self.config.images / name

    def _known(self, earlier: list[LoggedPrediction], serving: Serving, theirs: bool) -> LoggedPrediction | None:
        """The answer that this image has. In canary the candidate's patients keep what the champion said before it."""
        hashes = [serving.candidate.hash] if serving.candidate and theirs else []
        for wanted in [*hashes, serving.bundle.hash]:
            for known in earlier:
                bundle = serving.bundles.get(wanted) if known.bundle_hash == wanted else None
                if bundle and self.picture(known, overlay=bundle.manifest.heat_map.shown).exists():
                    return known
        return None

    def _beside(self, serving: Serving) -> Trial | None:
        """The trial of the candidate that is on its way now; one that is over ends here."""
        wanted = serving.candidate
        with self._trying:
            if self._trial and self._trial.candidate != wanted:
                self._trial.end()
                self._trial = None
            if wanted and self._trial is None:
                self._trial = Trial(wanted, serving.bundle, store=self.log, clock=self._clock)
            return self._trial

    def _keep(self, path: Path, content: bytes) -> None:
        with atomic_path(path) as part:
            part.write_bytes(content)


def _plain(value: float | int | bool | str | None) -> float | int | bool | str | None:
    """A measurement as JSON can hold it: numpy scalars become Python's, NaN becomes None."""
    plain: float | int | bool | str | None = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
