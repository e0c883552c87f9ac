"""Why the model of the current build says what it says of some images: a panel and a line of JSON for each.

It is for whoever judges the model, not for whoever reads the case: the maps are drawn even where the release hides
its heat map from readers, and the answer says that it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from components.dataset.store import atomic_path, read_catalog, read_pixels
from components.errors import DataError
from components.model import explain, network
from components.model.training import MODEL
from components.params import Intake, Params
from components.radiograph import dicom
from components.radiograph.burned_in import clean
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.image import Radiograph, stated_window
from components.radiograph.raster import format_of, read_raster
from components.serving import overlay
from components.serving.bundle import Bundle, Prediction
from components.settings import Settings
from flows import clients


class Explained(BaseModel):
    """One image: what the bundle says, where its evidence peaks, and the panel's name; or why there is none.

    `number` counts the images from 1, in the order given; names of files identify people and stay out.

    Attributes:
        peak: (x, y) of the heat map's highest point, pixels of the image; None where nothing speaks for a fracture.
        size: (columns, rows) of the image.
        heat_map_shown: whether readers are shown the bundle's heat map; `heat_map_reasons` say why not.
    """

    number: int
    image_id: str | None = None
    probability: float | None = None
    call: str | None = None
    peak: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    panel: str | None = None
    bundle_hash: str | None = None
    heat_map_shown: bool | None = None
    heat_map_reasons: tuple[str, ...] = ()
    refused: str | None = None

    def text(self) -> str:
        """One line."""
        if self.probability is None or self.size is None:
            return f"image {self.number}: refused: {self.refused}"
        where = f"peak at x {self.peak[0]:.0f}, y {self.peak[1]:.0f}" if self.peak else "nothing speaks for a fracture"
        hidden = "" if self.heat_map_shown else f" (heat map hidden from readers: {'; '.join(self.heat_map_reasons)})"
        return (
            f"image {self.number}: {(self.call or '').replace('_', ' ')}, probability {self.probability:.3f}, {where} "
            f"of {self.size[0]} x {self.size[1]}, image {self.image_id}; written: {self.panel}{hidden}"
        )


@dataclass(frozen=True)
class Look:
    """The model of the current build, as the network that was trained and as the bundle that is served."""

    model: Any
    bundle: Bundle

    @classmethod
    def open(cls, settings: Settings, params: Params) -> Look:
        """Bring the build's model from DVC's cache or remote where it is not checked out, and load it.

        Raises:
            DataError: this revision has no model, or its bundle was made from another one.
            BundleCorrupt: the bundle does not match its manifest.
        """
        paths, root = params.paths, settings.workspace
        missing = [path for path in (paths.trained, paths.bundle) if not (root / path).is_dir()]
        if missing:
            try:
                clients.workspace(settings).bring(missing)
            except DataError:
                raise DataError(
                    f"{' and '.join(map(str, missing))}: this revision has no trained model; run `osteoflow retrain`"
                ) from None
        bundle, model = Bundle.open(root / paths.bundle), network.load(root / paths.trained / MODEL)
        if network.weights_sha256(model) != bundle.manifest.model.weights_sha256:
            raise DataError(f"{paths.trained} and {paths.bundle} are of two trainings; run `dvc checkout`")
        return cls(model, bundle)


def explain_images(settings: Settings, images: list[str], out: Path) -> list[Explained]:
    """Explain each of `images` in `out`: <image_id>.png, and <image_id>.json with the answer in one line.

    Args:
        images: paths of DICOM, PNG, JPEG or TIFF files, or image ids of the archive.
        out: made when missing.

    Raises:
        DataError: there is no trained model.
    """
    params = clients.params(settings)
    look = Look.open(settings, params)
    archive = _of_archive(settings, params, [name for name in images if not Path(name).is_file()])
    pseudonyms = clients.pseudonyms(settings)
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for number, name in enumerate(images, start=1):
        try:
            if Path(name).is_file():
                image = _of_file(Path(name).read_bytes(), pseudonyms, params.intake)
                found.append(_one(number, image.meta.image_id, image.pixels, image.window, look, out))
            elif name in archive:
                found.append(_one(number, name, *archive[name], look, out))
            else:
                found.append(Explained(number=number, refused="neither a file here nor an image id of the archive"))
        except DataError as error:
            found.append(Explained(number=number, refused=str(error)))
    return found


def _of_archive(
    settings: Settings, params: Params, ids: list[str]
) -> dict[str, tuple[np.ndarray, tuple[float, float] | None]]:
    """Pixels and the sender's window by image id, of those that the archive has."""
    if not ids:
        return {}
    catalog = read_catalog(settings.workspace / params.paths.catalog).set_index("image_id")
    rows = catalog.loc[catalog.index.intersection(ids)]
    studies = settings.workspace / params.paths.studies
    absent = [f"{shard}.parquet" for shard in rows["shard"].unique() if not (studies / f"{shard}.parquet").is_file()]
    if absent:
        clients.workspace(settings).fetch(params.paths.studies, absent)
    looks = dict(zip(rows.index, rows[["window_center", "window_width"]].to_numpy(float), strict=True))
    return {
        name: (pixels, stated_window(center, width))
        for name, pixels in read_pixels(studies, rows.index)
        for center, width in [looks[name]]
    }


def _of_file(data: bytes, pseudonyms: Pseudonyms, limits: Intake) -> Radiograph:
    """A file as intake would take it: text in the pixels painted over, or refused."""
    if format_of(data) is None:
        return clean(dicom.read(data, pseudonyms, max_megapixels=limits.max_megapixels), limits.burned_in)
    raster = read_raster(data, max_megapixels=limits.max_megapixels)
    name = pseudonyms.of("image", f"file:{sha256(data).hexdigest()}")
    nobody = {"image_id": name, "patient_id": name, "study_id": name, "source": "file", "grouping": "weak"}
    return clean(Radiograph.plain(raster.pixels, raster.bits_stored, **nobody), limits.burned_in)


def _one(
    number: int, image_id: str, pixels: np.ndarray, window: tuple[float, float] | None, look: Look, out: Path
) -> Explained:
    said = look.bundle.predict(pixels)
    rows, columns = pixels.shape
    found = Explained(
        number=number,
        image_id=image_id,
        probability=said.probability,
        call=said.call,
        peak=explain.peak(said.heat_map),
        size=(columns, rows),
        panel=f"{image_id}.png",
        bundle_hash=look.bundle.hash,
        heat_map_shown=look.bundle.manifest.heat_map.shown,
        heat_map_reasons=look.bundle.manifest.heat_map.reasons,
    )
    with atomic_path(out / f"{image_id}.png") as part:
        part.write_bytes(overlay.png(overlay.side_by_side(list(_tiles(pixels, window, said, look)))))
    with atomic_path(out / f"{image_id}.json") as part:
        part.write_text(json.dumps(found.model_dump(exclude={"number"}), sort_keys=True) + "\n", encoding="utf-8")
    return found


def _tiles(
    pixels: np.ndarray, window: tuple[float, float] | None, said: Prediction, look: Look
) -> Iterator[tuple[str, np.ndarray]]:
    transform, grey = look.bundle.transform, overlay.display(pixels, window)
    square = transform.apply(pixels)
    hidden = "" if look.bundle.manifest.heat_map.shown else " (hidden from readers)"
    maps = {
        f"heat map{hidden}": said.heat_map,
        "Grad-CAM": transform.place(explain.grad_cam(look.model, square), *pixels.shape),
        "SmoothGrad": transform.place(explain.smooth_grad(look.model, square), *pixels.shape),
    }
    yield f"{said.call.replace('_', ' ')}, probability {said.probability:.2f}", grey
    for words, heat in maps.items():
        yield words, overlay.paint(grey, heat)
