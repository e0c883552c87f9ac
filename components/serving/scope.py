"""Noun: is a picture like anything the bundle was checked on? What is not gets no call: a person reads it.

A picture is out of scope when its embedding lies farther from its third-nearest reference case than that of any
reference case does from the others. One of the same kind as the n reference cases fails with probability 1 / (n + 1).

Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors"; Vovk et al. 2005 (conformal p).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOUR = 3
FEWEST = 100  # reference cases below which a p-value cannot fall under .01: nothing is turned away
BLOCK = 1024


@dataclass(frozen=True)
class Scope:
    """The reference, as (n, d) `units` of length 1, and the `least` likeness that is in scope; None: everything is."""

    units: np.ndarray
    least: float | None

    @classmethod
    def of(cls, embeddings: np.ndarray, least: float | None = None) -> Scope:
        """The scope of (n, d) reference embeddings.

        Args:
            least: as `export` found it by this very function and the manifest keeps it; None: found now, which compares
                every case with every other.
        """
        units = unit(embeddings)
        if len(units) < FEWEST or least is not None:
            return cls(units, least)
        likeness = []
        for start in range(0, len(units), BLOCK):
            alike = units[start : start + BLOCK] @ units.T
            alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -np.inf
            likeness.append(_third(alike))
        return cls(units, float(np.concatenate(likeness).min()))

    def holds(self, embedding: np.ndarray) -> bool:
        """Whether a picture with this (d,) embedding is like the reference."""
        if self.least is None:
            return True
        return bool(_third(unit(embedding[None]) @ self.units.T)[0] >= self.least)


def _third(likeness: np.ndarray) -> np.ndarray:
    """(b, n) -> (b,) the likeness of the NEIGHBOUR-th nearest."""
    kth = min(NEIGHBOUR, likeness.shape[1])
    return np.asarray(np.partition(likeness, -kth, axis=1)[:, -kth])


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d) any real dtype -> (n, d) float64, each of length 1; a zero vector stays zero."""
    values = np.asarray(vectors, np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(float).tiny))
