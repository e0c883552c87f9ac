"""What a detector makes of a beam: photons, blur, noise, a response curve, a collimator, and whole numbers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

TARGET_INDEX = 250.0  # EI_T, IEC 62494-1
WHITE = 3.6  # attenuation that a response curve maps to its top


@dataclass(frozen=True)
class Detector:
    """A detector and the site that uses it.

    Attributes:
        photons: mean count of a pixel in air at the target exposure.
        exposure: mean of the site's exposures relative to the target.
        blur_px: standard deviation of the point spread function, pixels.
        scatter: share of a pixel's signal that comes from everywhere.
        gamma: response = (attenuation / WHITE) ** gamma.
        gain: contrast of that response.
        bits: BitsStored.
        shutter: collimated borders are blackened; without it they stay white.
        pitch_mm: distance of pixel centres, mm.
        open_field: mean share of the area that the collimator leaves open.
    """

    name: str
    site: str
    maker: str
    model: str
    bits: int = 12
    photons: float = 6000.0
    exposure: float = 1.0
    blur_px: float = 0.6
    scatter: float = 0.08
    gamma: float = 0.9
    gain: float = 1.0
    photometric: str = "MONOCHROME2"
    shutter: bool = True
    rows: int = 288
    columns: int = 224
    pitch_mm: float = 0.32
    open_field: float = 0.94


DETECTOR_A = Detector(name="A", site="Phantom Hospital A", maker="Osteoflow Phantoms", model="Drawn DX 1")
DETECTOR_B = Detector(
    name="B",
    site="Phantom Hospital B",
    maker="Second Phantom Works",
    model="Portable 7",
    bits=10,
    photons=1600.0,
    exposure=0.65,
    blur_px=1.3,
    scatter=0.25,
    gamma=1.6,
    gain=1.1,
    photometric="MONOCHROME1",
    shutter=False,
    rows=256,
    columns=208,
    pitch_mm=0.36,
    open_field=0.85,
)


@dataclass(frozen=True)
class Exposure:
    """One picture as a detector stores it.

    Attributes:
        pixels: (rows, columns) uint16, in the detector's own polarity.
        field: x0, y0, x1, y1 of the collimator's opening, pixels.
        index: exposure index EI.
    """

    pixels: np.ndarray
    field: tuple[int, int, int, int]
    index: float


def expose(attenuation: np.ndarray, detector: Detector, rng: np.random.Generator) -> Exposure:
    """Take a picture of line integrals (rows, columns).

    Order: exposure -> Beer-Lambert -> collimator -> scatter -> blur -> photon noise -> logarithm -> response -> bits.
    """
    rows, columns = attenuation.shape
    dose = detector.exposure * float(rng.lognormal(0, 0.2))
    heel = 1 + 0.08 * rng.uniform(-1, 1) * np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    beam = np.exp(-attenuation) * heel
    field = _collimator(rows, columns, detector.open_field, rng)
    shadow = np.full((rows, columns), 0.004, np.float32)
    shadow[field[1] : field[3], field[0] : field[2]] = 1
    beam = beam * shadow
    signal = (1 - detector.scatter) * beam + detector.scatter * cv2.blur(beam, (columns // 2 | 1, columns // 2 | 1))
    signal = cv2.GaussianBlur(signal, (0, 0), detector.blur_px)
    counts = rng.poisson(signal * (detector.photons * dose)).astype(np.float32)
    # The maker's software sets black by the exposure it sees; what is left of an exposure error is a third.
    seen = -np.log(np.maximum(counts, 0.5) / np.float32(detector.photons * dose ** (2 / 3)))
    curve = detector.gain * np.power(np.clip(seen + 0.15, 0, None) / WHITE, detector.gamma)
    top = 2**detector.bits - 1
    stored = np.clip(np.rint(curve * top), 0, top).astype(np.uint16)
    if detector.shutter:
        stored[shadow < 1] = 0
    if detector.photometric == "MONOCHROME1":
        stored = (top - stored).astype(np.uint16)
    return Exposure(stored, field, round(TARGET_INDEX * dose, 1))


def _collimator(rows: int, columns: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Opening of about `share` of the area, off centre by a little."""
    height = min(1.0, share**0.5 * rng.uniform(0.95, 1.05))
    width = min(1.0, share**0.5 * rng.uniform(0.95, 1.05))
    top = int(rows * (1 - height) * rng.uniform(0.3, 0.7))
    left = int(columns * (1 - width) * rng.uniform(0.3, 0.7))
    return left, top, left + int(columns * width), top + int(rows * height)
