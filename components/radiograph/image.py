"""An X-ray image: pixels as a person would look at them, and what is known about them under pseudonyms."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

VIEWS = ("frontal", "lateral", "oblique", "unknown")


class ImageMeta(BaseModel):
    """What is known about one image. Identities are keyed pseudonyms; None and "unknown" mean not stated.

    Attributes:
        grouping: "patient" where the source names patients, "weak" where neighbouring images stand in for one.
        hour: hour of day of the acquisition, 0 to 23; kept when dates are shifted.
        study_day: ISO date, shifted by a constant per patient.
        photometric: as it came; `Radiograph.pixels` are always MONOCHROME2.
        bits_stored: depth of the full range of `Radiograph.pixels`.
        window_center: middle of the sender's linear window, in units of `Radiograph.pixels`, which keep the
            whole range: it is for whoever looks.
        window_width: from its black to its white, same units.
        deviation_index: as the device states it, dB; some state nothing else of the exposure.
        pixel_spacing_mm: distance of pixel centres at the detector, mm.
        hardware: metal in the image; None where nobody said.
        masked: areas painted over because text stood there, a JSON list of {x, y, width, height} in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: str = Field(min_length=1)
    patient_id: str = Field(min_length=1)
    study_id: str = Field(min_length=1)
    source: str
    grouping: Literal["patient", "weak"]
    site: str
    device: str
    view: str
    body_region: str
    laterality: str | None = None
    sex: Literal["F", "M", "O"] | None = None
    age_years: int | None = Field(default=None, ge=0, le=130)
    hour: int | None = Field(default=None, ge=0, le=23)
    study_day: str | None = None
    photometric: str
    bits_stored: int = Field(ge=1, le=16)
    rows: int = Field(gt=0)
    columns: int = Field(gt=0)
    window_center: float | None = None
    window_width: float | None = Field(default=None, gt=0)
    exposure_index: float | None = None
    target_exposure_index: float | None = None
    deviation_index: float | None = None
    pixel_spacing_mm: float | None = None
    hardware: bool | None = None
    masked: str | None = None


@dataclass(frozen=True)
class Radiograph:
    """A de-identified radiograph.

    Attributes:
        pixels: (rows, columns) uint8 or uint16, after every lookup table, MONOCHROME2 (bone is bright).
        burned_in: the sender says that text is burned into them.
    """

    meta: ImageMeta
    pixels: np.ndarray
    burned_in: bool = False

    @classmethod
    def plain(cls, pixels: np.ndarray, bits_stored: int, **known: Any) -> Radiograph:
        """A picture that came without a DICOM header.

        Args:
            pixels: (rows, columns) uint8 or uint16, bone bright.
            known: what else `ImageMeta` is to say; site, device, view and body region are unknown where it does not.
        """
        rows, columns = pixels.shape
        unknown = dict.fromkeys(("site", "device", "view", "body_region"), "unknown")
        facts = {"photometric": "MONOCHROME2", "bits_stored": bits_stored, "rows": rows, "columns": columns}
        return cls(ImageMeta.model_validate(unknown | known | facts), pixels)

    @property
    def window(self) -> tuple[float, float] | None:
        """(center, width) of the sender's linear window in units of `pixels`; None where none is stated."""
        return stated_window(self.meta.window_center, self.meta.window_width)

    @property
    def sha256(self) -> str:
        """Identity of the picture itself: hex SHA-256 over shape, type and pixels."""
        head = f"{self.pixels.shape}{self.pixels.dtype.str}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


def stated_window(center: float | None, width: float | None) -> tuple[float, float] | None:
    """(center, width) of a window as a table or a header has it; None where it is None or NaN."""
    if center is None or width is None or not width > 0:
        return None
    return float(center), float(width)
