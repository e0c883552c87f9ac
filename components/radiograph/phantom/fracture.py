"""Broken bones: where the line runs, where the far part went, and the box that a reader would draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from components.radiograph.phantom.anatomy import Bone

KINDS = ("transverse", "oblique", "comminuted")
EDGE = 0.25  # mm over which a fragment's edge fades


@dataclass(frozen=True)
class Break:
    """A fracture of one bone; lengths in mm, angles in radians.

    Attributes:
        bone: index of the broken bone in its limb.
        place: `u` of the line on the bone's axis.
        slope: of the line across the bone; 0 is transverse.
        gap: opening of the line; negative where the parts overlap.
        displacement: of the distal part across the bone, in its own direction `heading`.
        heading: direction of the displacement about the bone's axis: a view along it does not show it.
        angle: between the two parts' axes.
        wedge: length of the fragment between two lines; 0 where there is one line.
        phases: of the line's teeth.
    """

    kind: str
    bone: int
    place: float
    slope: float
    gap: float
    displacement: float
    heading: float
    angle: float
    wedge: float
    phases: tuple[float, float, float]

    def line(self, across: np.ndarray) -> np.ndarray:
        """`u` of the line at a distance `across` from the bone's axis."""
        first, second, third = self.phases
        teeth = (
            0.5 * np.sin(across / 1.3 + first)
            + 0.35 * np.sin(across / 0.7 + second)
            + 0.6 * np.sin(across / 3.1 + third)
        )
        return np.asarray(self.place + self.slope * across + teeth)

    def reach(self, length: float) -> float:
        """How far across the limb the far part may come to lie, at most, `length` mm from the middle."""
        return 2 * abs(self.displacement) + 2 * abs(self.angle) * (length + abs(self.place)) + 4

    def seen(self, turn: float) -> float:
        """The displacement as a view at `turn` shows it; a view along it still shows a third."""
        shown = float(np.cos(self.heading - turn))
        return self.displacement * (1.0 if shown >= 0 else -1.0) * max(abs(shown), 0.33)


def break_bone(rng: np.random.Generator, kind: str, bones: int, reach: float) -> Break:
    """Invent a fracture of `kind`, within `reach` mm of the field's middle. Some are hard to see, as in life."""
    severity = rng.beta(1.8, 1.3)
    slope = {
        "transverse": rng.uniform(-0.2, 0.2),
        "oblique": rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 1.5),
        "comminuted": rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0),
    }[kind]
    return Break(
        kind=kind,
        bone=int(rng.integers(bones)) if rng.random() < 0.4 else 0,
        place=rng.uniform(-reach, reach),
        slope=float(slope),
        gap=(1.2 + 3.8 * severity) * (1.0 if rng.random() < 0.8 else -1.2),
        displacement=float(rng.choice([-1.0, 1.0])) * (0.5 + 9.0 * severity * rng.uniform(0.5, 1)),
        heading=rng.uniform(0, np.pi),
        angle=rng.normal(0, 0.05 + 0.17 * severity),
        wedge=rng.uniform(9, 18) if kind == "comminuted" else 0.0,
        phases=(rng.uniform(0, 6.3), rng.uniform(0, 6.3), rng.uniform(0, 6.3)),
    )


def fragments(broken: Break, bone: Bone, u: np.ndarray, v: np.ndarray, turn: float) -> np.ndarray:
    """Attenuation of a broken bone: the near part, the far part moved and bent, and what lies between."""
    moved = v - broken.seen(turn) - float(np.tan(broken.angle)) * (u - broken.place)
    half = broken.gap / 2
    along_near = u - broken.line(v - bone.axis(u))
    along_far = u - broken.line(moved - bone.axis(u))
    near = _edge(-along_near - half) * bone.attenuation(u, v)
    far = _edge(along_far - broken.wedge - half) * bone.attenuation(u, moved)
    if not broken.wedge:
        return np.asarray(near + far)
    # The wedge turns out of the shaft, the other way than the far part.
    drawn = (
        v + 0.6 * broken.seen(turn) + float(np.tan(1.5 * broken.angle + 0.08)) * (u - broken.place - broken.wedge / 2)
    )
    along = u - broken.line(drawn - bone.axis(u))
    between = _edge(along - half) * _edge(broken.wedge - along - half)
    return np.asarray(near + far + 0.8 * between * bone.attenuation(u, drawn))


def outline(broken: Break, bone: Bone, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of points around the fracture, mm: what its box must hold."""
    margin = 2.5
    radius = float(bone.outer(np.array(broken.place)))
    across = np.linspace(-radius, radius, 9)
    shift = broken.seen(turn)
    lines = [broken.line(across)] + ([broken.line(across) + broken.wedge] if broken.wedge else [])
    u = np.concatenate([line + side for line in lines for side in (-margin, margin)])
    v = np.tile(across, 2 * len(lines)) + float(bone.axis(np.array(broken.place)))
    return np.concatenate([u, u]), np.concatenate([v, v + shift])


def _edge(distance: np.ndarray) -> np.ndarray:
    """1 inside, 0 outside, a smooth step of EDGE mm between."""
    return np.asarray(0.5 * (1 + np.tanh(distance / EDGE)))
