"""The champion's word on files, for a terminal: the service's own path, without its log."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from components.errors import DataError, PromotionRefused
from components.params import Intake
from components.radiograph import dicom, quality
from components.radiograph.burned_in import clean
from components.radiograph.deidentify import Pseudonyms
from components.serving import caution
from components.serving.bundle import PredictionSet
from components.serving.cases import confidence, what_is_left
from components.serving.champion import Champion, Serving
from components.serving.results import write_results
from components.settings import Settings
from flows import clients


class FileResult(BaseModel):
    """One file: a score, or why there is none. The file's name stays out of it: names identify people.

    `number` counts the files from 1, in the order given.
    """

    number: int
    image_id: str | None = None
    probability: float | None = None
    call: str | None = None
    why: caution.Reason | None = None
    prediction_set: PredictionSet | None = None
    version: str | None = None
    refused: str | None = None
    written: list[str] = []

    def text(self) -> str:
        """One line."""
        if self.probability is None:
            return f"file {self.number}: refused: {self.refused}"
        left = f"; {what_is_left(self.prediction_set)}" if self.prediction_set else ""
        saved = f"; written: {', '.join(self.written)}" if self.written else ""
        why = f" ({caution.WHY[self.why].lower()})" if self.why else ""
        return (
            f"file {self.number}: {(self.call or '').replace('_', ' ')}{why}, probability {self.probability:.3f} "
            f"({confidence(self.probability)}), version {self.version}, image {self.image_id}{left}{saved}"
        )


def predict_files(settings: Settings, files: list[Path], out: Path | None) -> list[FileResult]:
    """Score `files` with the champion; with `out`, write DICOM results beside each other there.

    Raises:
        PromotionRefused: no model may serve; the message says why.
    """
    params = clients.params(settings)
    bundles, name = settings.state / "bundles", params.gate.model
    serving = Champion(ledger=settings.ledger_path, bundles=bundles, name=name, key_dir=settings.key_dir).current()
    if not isinstance(serving, Serving):
        raise PromotionRefused(serving.sentence)
    pseudonyms = clients.pseudonyms(settings)
    return [
        _one(number, file.read_bytes(), serving, pseudonyms, params.intake, out) for number, file in enumerate(files, 1)
    ]


def _one(
    number: int, data: bytes, serving: Serving, pseudonyms: Pseudonyms, limits: Intake, out: Path | None
) -> FileResult:
    try:
        image = clean(dicom.read(data, pseudonyms, max_megapixels=limits.max_megapixels), limits.burned_in)
        stated = image.meta.body_region, image.meta.view
        judged = serving.bundle.predict(image.pixels), quality.measure(image)
        said, why = caution.abstain(*judged, *stated), caution.reason(*judged, *stated)
        written = write_results(data, image, said, serving.bundle.manifest, out, why=why) if out else []
    except DataError as error:
        return FileResult(number=number, refused=str(error))
    return FileResult(
        number=number,
        image_id=image.meta.image_id,
        probability=said.probability,
        call=said.call,
        why=why,
        prediction_set=said.prediction_set,
        version=serving.version,
        written=[path.name for path in written],
    )
