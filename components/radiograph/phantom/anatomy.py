"""A piece of limb as an X-ray beam sees it: how much soft tissue, cortex and marrow lies on each pixel's line.

Bones are tubes: an outer and an inner radius along a bowed axis. Lengths are millimetres; `u` runs along the limb
from the proximal end of the field, `v` across it; attenuation is the exponent of Beer and Lambert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from components.radiograph.phantom.fracture import Break, fragments

# Effective linear attenuation at about 55 kVp, 1/mm, rounded from NIST XCOM tables at 40 keV.
SOFT, CORTEX, MARROW = 0.024, 0.072, 0.027
ADULT = 16  # years at which growth plates are closed
# DICOM body part -> bones as (distance from the axis, outer radius), half width and half depth of the limb; mm.
LIMBS = {
    "FOREARM": (((-9.0, 7.2), (9.5, 6.2)), 33.0, 26.0),
    "LEG": (((-6.0, 12.0), (17.0, 6.0)), 44.0, 42.0),
    "ARM": (((0.0, 11.0),), 40.0, 38.0),
}


@dataclass(frozen=True)
class Bone:
    """A tube of cortex around marrow.

    Attributes:
        offset: of its axis from the limb's, mm.
        radius: outer radius of the shaft, mm.
        cortex: share of the radius that is cortex.
        bow: sideways deviation of the axis at 60 mm from the middle, mm.
        flare: `u` at which the shaft widens towards a joint, mm (may lie outside the field).
        plate: `u` of an open growth plate, or None.
        vessel: (`u`, side) of the canal of the nutrient artery, or None.
    """

    offset: float
    radius: float
    cortex: float
    bow: float
    flare: float
    plate: float | None
    vessel: tuple[float, float] | None

    def axis(self, u: np.ndarray) -> np.ndarray:
        """`v` of the bone's middle at `u`."""
        return self.offset + self.bow * np.square(u / 60)

    def outer(self, u: np.ndarray) -> np.ndarray:
        """Outer radius at `u`, mm."""
        return self.radius * (1 + 0.55 * np.exp(-np.square((u - self.flare) / 17)))

    def attenuation(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """What the bone attenuates beyond the soft tissue it displaces; 0 outside it."""
        across = np.square(v - self.axis(u))
        outer = self.outer(u)
        # Towards the joint the same bone spreads over a wider, thinner shell.
        inner = outer * (1 - self.cortex * np.square(self.radius / outer))
        whole = 2 * np.sqrt(np.maximum(np.square(outer) - across, 0))
        marrow = 2 * np.sqrt(np.maximum(np.square(inner) - across, 0))
        total = (CORTEX - SOFT) * (whole - marrow) + (MARROW - SOFT) * marrow
        if self.plate is not None:
            wave = 1.2 * np.sin((v - self.offset) / (0.45 * self.radius))
            total = total * (1 - 0.6 * np.exp(-np.square((u - self.plate - wave) / 1.0)))
        if self.vessel is not None:
            place, side = self.vessel
            local = v - self.axis(u) - side * 0.45 * self.radius
            canal = np.exp(-np.square((u - place - 2.6 * side * local) / 1.6))
            total = total * (1 - 0.28 * canal * (np.abs(local) < 0.45 * self.radius))
        return np.asarray(total)


@dataclass(frozen=True)
class Limb:
    """One patient's limb, before any view of it is taken."""

    part: str
    side: str
    age: int
    sex: str
    bones: tuple[Bone, ...]
    half_width: float
    half_depth: float


def grow(rng: np.random.Generator) -> Limb:
    """Invent a patient's limb: region, side, age and sex, and the bones that go with them."""
    part = str(rng.choice(list(LIMBS)))
    age, sex = int(np.clip(rng.gamma(3.2, 14), 4, 96)), str(rng.choice(["F", "M"]))
    tubes, half_width, half_depth = LIMBS[part]
    size = (0.62 + 0.38 * min(age, ADULT) / ADULT) * (1.04 if sex == "M" else 0.96) * rng.uniform(0.93, 1.07)
    cortex = _cortex(age, sex) * rng.uniform(0.9, 1.1)
    flare = float(rng.choice([-1.0, 1.0])) * rng.uniform(40, 75)
    bones = []
    for offset, radius in tubes:
        end = flare + rng.normal(0, 2)
        bones.append(
            Bone(
                offset=offset * size,
                radius=radius * size * rng.uniform(0.95, 1.05),
                cortex=cortex,
                bow=rng.normal(0, 2.0),
                flare=end,
                plate=end - np.sign(end) * rng.uniform(8, 11) if age < ADULT else None,
                vessel=(rng.uniform(-40, 40), float(rng.choice([-1.0, 1.0]))) if rng.random() < 0.5 else None,
            )
        )
    fat = rng.uniform(0.85, 1.25)
    return Limb(
        part, str(rng.choice(["L", "R"])), age, sex, tuple(bones), half_width * size * fat, half_depth * size * fat
    )


def _cortex(age: int, sex: str) -> float:
    """Share of a long bone's radius that is cortex: grows to 25 years, thins from 50, faster in women."""
    peak = 0.34 + 0.12 * min(age, 25) / 25
    return peak - max(0, age - 50) * (0.0042 if sex == "F" else 0.0025)


@dataclass(frozen=True)
class Pose:
    """How a limb lies under the tube.

    Attributes:
        tilt: angle of the limb against the image's long axis, radians.
        shift: of the limb's middle from the image's, mm (along, across).
        turn: rotation about the limb's own axis, radians; pi/2 is a lateral view.
    """

    tilt: float
    shift: tuple[float, float]
    turn: float

    def coordinates(self, rows: int, columns: int, pitch: float) -> tuple[np.ndarray, np.ndarray]:
        """(u, v) of every pixel centre, each (rows, columns) float32, mm."""
        y = ((np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * pitch - self.shift[0])[:, None]
        x = ((np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * pitch - self.shift[1])[None, :]
        cosine, sine = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        return cosine * y + sine * x, cosine * x - sine * y

    def pixel(
        self, u: np.ndarray, v: np.ndarray, rows: int, columns: int, pitch: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) in pixels of limb coordinates; the inverse of `coordinates`."""
        y = np.cos(self.tilt) * u - np.sin(self.tilt) * v + self.shift[0]
        x = np.sin(self.tilt) * u + np.cos(self.tilt) * v + self.shift[1]
        return x / pitch + (columns - 1) / 2, y / pitch + (rows - 1) / 2


def project(
    limb: Limb, pose: Pose, broken: Break | None, rng: np.random.Generator, *, rows: int, columns: int, pitch: float
) -> np.ndarray:
    """Line integrals of attenuation, (rows, columns) float32: 0 in air.

    Args:
        broken: which bone is broken, and how; None leaves all whole.
        pitch: distance of pixel centres in the limb, mm.
    """
    u, v = pose.coordinates(rows, columns, pitch)
    width, depth = _turned(limb.half_width, limb.half_depth, pose.turn)
    contour = width * (1 + 0.08 * np.sin(u / 37 + limb.age) - 0.0015 * u)
    flesh = 2 * depth * np.sqrt(np.maximum(1 - np.square(v / contour), 0))
    muscle = 1 + 0.05 * _texture(rng, rows, columns, 24)
    total = np.asarray(SOFT * flesh * muscle, np.float32)
    trabeculae = 1 + 0.05 * _texture(rng, rows, columns, 2)
    for index, bone in enumerate(limb.bones):
        seen = turned(bone, pose)
        own = broken if broken is not None and broken.bone == index else None
        # Only pixels that the bone, or its moved part, can cover: a quarter of the picture.
        covered = np.abs(v - seen.offset) < 1.6 * seen.radius + 2 * abs(seen.bow) + (own.reach(u.max()) if own else 0)
        along, across = u[covered], v[covered]
        shade = seen.attenuation(along, across) if own is None else fragments(own, seen, along, across, pose.turn)
        total[covered] += trabeculae[covered] * shade
    return total


def turned(bone: Bone, pose: Pose) -> Bone:
    """The bone as a rotated view shows it: side by side bones come to lie over each other."""
    return replace(bone, offset=bone.offset * float(np.cos(pose.turn) * 0.85 + 0.15))


def _turned(width: float, depth: float, turn: float) -> tuple[float, float]:
    """Half axes of a rotated ellipse, along and across the detector."""
    across = float(np.hypot(width * np.cos(turn), depth * np.sin(turn)))
    return across, width * depth / across


def _texture(rng: np.random.Generator, rows: int, columns: int, grain: int) -> np.ndarray:
    """Smooth noise of unit variance with features of about `grain` pixels."""
    coarse = rng.standard_normal((rows // grain + 3, columns // grain + 3), np.float32)
    return np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC))
