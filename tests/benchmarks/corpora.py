"""The pictures that benchmarks of picture quality are about: drawn and real radiographs, in two halves.

Choices are made on `tune`, figures are those of `report`.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from components.radiograph import dicom
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, DETECTOR_B, Detector, draw

SEED = 20261123
REAL = Path(os.environ.get("OSTEOFLOW_REAL_DATA", "../shared/data")) / "fracatlas"


def phantoms(count: int, half: str, detectors: tuple[Detector, ...] = (DETECTOR_A, DETECTOR_B)) -> list[np.ndarray]:
    """`count` drawn limbs of both sites as 8-bit pictures; each half has patients of its own."""
    first = 1 if half == "tune" else 10_001
    pictures = []
    for number in range(count):
        detector = detectors[number % len(detectors)]
        phantom = draw(SEED, patient=first + number, detector=detector, fracture=number % 5 < 2, image=number // 2 % 2)
        image = dicom.read(phantom.dicom, Pseudonyms(bytes(32)))
        pictures.append((image.pixels >> (image.meta.bits_stored - 8)).astype(np.uint8))
    return pictures


def radiographs(count: int, half: str) -> list[np.ndarray]:
    """Up to `count` real ones, evenly over the archive: even positions tune, odd ones report. Each picture once."""
    files = sorted(REAL.rglob("*.jpg"), key=lambda path: path.stem)[half == "report" :: 2]
    order = np.random.default_rng(SEED).permutation(len(files))
    pictures: dict[bytes, np.ndarray] = {}
    for place in order:
        pixels = cv2.imread(str(files[place]), cv2.IMREAD_GRAYSCALE)
        if pixels is not None and files[place].read_bytes().endswith(b"\xff\xd9"):  # some are truncated
            pictures.setdefault(pixels.tobytes(), pixels)
        if len(pictures) == count:
            break
    return list(pictures.values())
