"""How far the bundle's word holds: worse pictures, the other polarity, and what is no radiograph at all.

Worse pictures are made of sealed test images, a fixed draw of them, half with a fracture where there are so many, and
go through the bundle like any other. What changes is compared image by image, so the draw may be small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from components.model.evaluation import Foreign, Perturbed, Polarity, Robustness
from components.model.statistics import Estimate, auroc_of, bootstrap, percentile, rate
from components.params import Evaluate
from components.radiograph import quality
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.image import Radiograph
from components.radiograph.twin import twin
from components.serving import caution
from components.serving.bundle import Bundle

Worsen = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def noise(pixels: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """White noise; strength: its standard deviation, of the picture's own range."""
    low, high = _ends(pixels)
    return _as(pixels, pixels + random.normal(0, strength * (high - low), pixels.shape))


def gamma(pixels: np.ndarray, strength: float, _random: np.random.Generator) -> np.ndarray:
    """Another exposure curve; strength: the exponent on the picture's own range."""
    low, high = _ends(pixels)
    return _as(pixels, low + (high - low) * ((pixels - low) / (high - low)) ** strength)


def gain(pixels: np.ndarray, strength: float, _random: np.random.Generator) -> np.ndarray:
    """A detector at its limit; strength: the factor by which the picture outgrows its own range, which cuts it off."""
    low, high = _ends(pixels)
    return _as(pixels, np.minimum(low + strength * (pixels - low), high))


def jpeg(pixels: np.ndarray, strength: float, _random: np.random.Generator) -> np.ndarray:
    """Eight bits through JPEG; strength: the quality, 1 to 100."""
    low, high = _ends(pixels)
    grey = np.rint((pixels - low) * (255 / (high - low))).astype(np.uint8)
    buffer = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, round(strength)])[1]
    return np.asarray(cv2.imdecode(buffer, cv2.IMREAD_GRAYSCALE))


def rotation(pixels: np.ndarray, strength: float, _random: np.random.Generator) -> np.ndarray:
    """Turned about its middle; strength: degrees. Corners that come in are as dark as the darkest pixel."""
    rows, columns = pixels.shape
    turn = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), strength, 1)
    dark = float(pixels.min())
    return np.asarray(cv2.warpAffine(pixels, turn, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=dark))


def resolution(pixels: np.ndarray, strength: float, _random: np.random.Generator) -> np.ndarray:
    """Fewer pixels; strength: the share of each side that is left."""
    rows, columns = (max(1, round(side * strength)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA))


def blur(pixels: np.ndarray, strength: float, _random: np.random.Generator) -> np.ndarray:
    """Gaussian; strength: standard deviation, thousandths of the longer side."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), strength * max(pixels.shape) / 1000))


WORSEN: dict[str, Worsen] = {
    "noise": noise,
    "blur": blur,
    "gamma": gamma,
    "gain": gain,
    "jpeg": jpeg,
    "rotation": rotation,
    "resolution": resolution,
}


@dataclass
class Sweep:
    """Scores worse copies of the drawn images, each while its pixels are in memory."""

    bundle: Bundle
    params: Evaluate
    rows: np.ndarray
    bits: np.ndarray
    scores: dict[tuple[str, float], dict[int, float]] = field(default_factory=dict)
    twins: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, bundle: Bundle, labels: np.ndarray, bits: np.ndarray, params: Evaluate) -> Sweep:
        """Draw the images: half with a fracture, as far as there are any.

        Args:
            labels: (n,).
            bits: (n,) depth of the full range of each image's pixels.
        """
        random = np.random.default_rng(params.seed)
        ill, well = (random.permutation(np.flatnonzero(labels == kind)) for kind in (1, 0))
        most = params.robustness.images
        share = max(min(len(ill), most // 2), most - len(well))
        return cls(bundle, params, np.sort(np.concatenate([ill[:share], well[: most - share]])), bits)

    def offer(self, row: int, pixels: np.ndarray) -> None:
        """Score the worse copies of an image, and its MONOCHROME1 twin, if it is one of those drawn."""
        if row not in self.rows:
            return
        random = np.random.default_rng((self.params.seed, row))
        for name, strength in steps(self.params):
            worse = WORSEN[name](pixels, strength, random)
            self.scores.setdefault((name, strength), {})[row] = self._probability(worse)
        told = [twin(pixels, int(self.bits[row]), inverted=inverted) for inverted in (False, True)]
        seen = [self._probability(read(file, Pseudonyms(bytes(32))).pixels) for file in told]
        self.twins.append(abs(seen[1] - seen[0]))

    def found(
        self, labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, familiar: np.ndarray
    ) -> Robustness:
        """The table.

        Args:
            labels, probabilities, patients, familiar: (n,) of all sealed images, as they are.
        """
        rows = self.rows
        given = (labels[rows], probabilities[rows], patients[rows])
        area, _ = _areas(*given, probabilities[rows], self.params)
        perturbed = []
        for (name, strength), scores in self.scores.items():
            worse = np.array([scores[int(row)] for row in rows])
            auroc, drop = _areas(*given, worse, self.params)
            changed = [self.bundle.call(a) != self.bundle.call(b) for a, b in zip(given[1], worse, strict=True)]
            flips = rate(np.array(changed, dtype=bool), given[2])
            perturbed.append(Perturbed(name=name, strength=strength, auroc=auroc, drop=drop, flips=flips))
        return Robustness(
            turned_away=rate(~familiar, patients),
            images=len(rows),
            positives=int(given[0].sum()),
            auroc=area,
            perturbed=tuple(perturbed),
            polarity=Polarity(images=len(self.twins), largest_difference=max(self.twins, default=0.0)),
            foreign=tuple(foreign(self.bundle)),
        )

    def _probability(self, pixels: np.ndarray) -> float:
        return self.bundle.graph.run(self.bundle.transform.apply(pixels)).probability


def steps(params: Evaluate) -> Iterator[tuple[str, float]]:
    """(perturbation, strength), in the order of the table."""
    for name in WORSEN:
        for strength in getattr(params.robustness, name):
            yield name, strength


def foreign(bundle: Bundle) -> Iterator[Foreign]:
    """What the service answers to a blank film, a drawn page of text, and two photographs."""
    for name, pixels in _pictures():
        nobody = {"image_id": name, "patient_id": name, "study_id": name, "source": "drawn", "grouping": "weak"}
        measured = quality.measure(Radiograph.plain(pixels, 8, **nobody))
        said = bundle.predict(pixels)
        yield Foreign(
            picture=name,
            probability=said.probability,
            call=caution.abstain(said, measured).call,
            abstained=caution.no_radiograph(measured) or not said.familiar,
            warnings=tuple(caution.warnings({**measured, "familiar": said.familiar})),
        )


def _pictures() -> Iterator[tuple[str, np.ndarray]]:
    """(name, (rows, columns) uint8)."""
    from sklearn.datasets import load_sample_image

    yield "blank film", np.full((1024, 768), 128, np.uint8)
    page = np.full((1024, 768), 245, np.uint8)
    for line in range(28):
        place = (60, 90 + 32 * line)
        cv2.putText(page, "A page of text is no radiograph.", place, cv2.FONT_HERSHEY_SIMPLEX, 1.1, 20, 2, cv2.LINE_AA)
    yield "page of text", page
    for name, file in (("photograph of a temple", "china.jpg"), ("photograph of a flower", "flower.jpg")):
        yield name, np.asarray(cv2.cvtColor(load_sample_image(file), cv2.COLOR_RGB2GRAY))


def _areas(
    labels: np.ndarray, before: np.ndarray, patients: np.ndarray, after: np.ndarray, params: Evaluate
) -> tuple[Estimate | None, Estimate | None]:
    """AUROC of `after`, and how much it lies below that of `before` on the same images."""
    first, second = auroc_of(labels, before), auroc_of(labels, after)

    def both(weights: np.ndarray) -> np.ndarray:
        area = second(weights)
        return np.hstack([area, first(weights) - area])

    value = both(np.ones((1, len(labels))))[0]
    draws = bootstrap(patients, both, resamples=params.resamples, seed=params.seed)
    return percentile(value[0], draws[:, 0], len(labels)), percentile(value[1], draws[:, 1], len(labels))


def _ends(pixels: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value, apart by at least one."""
    low = float(pixels.min())
    return low, max(float(pixels.max()), low + 1.0)


def _as(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` in the type of `pixels`, held at its ends."""
    return np.clip(np.rint(values), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
