"""What the images of a site usually look like, learned once; and how strange another picture is beside them.

Strangeness is the squared Mahalanobis distance of appearances, in units of what one in two hundred of the site's own
images exceeds when it was not learned from. It knows nothing of photographs: it was never shown one.

Source: Mahalanobis 1936; shrunk covariance, Ledoit and Wolf 2004.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

BEYOND = 99.5  # percentile of the site's own images that is strangeness 1
FOLDS = 5
DIGITS = 6  # of a number that is kept
FLAT = 1e-3  # standard deviation below which a number counts as one that never varies
TINY = 1e-9


class Usual(BaseModel):
    """Strangeness of x is |A (x - center)|^2.

    Attributes:
        center: (n,) the mean appearance.
        axes: A, lower triangular (n, n): row k holds its first k + 1 numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    center: tuple[float, ...]
    axes: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _triangular(self) -> Self:
        n = len(self.center)
        if [len(row) for row in self.axes] != list(range(1, n + 1)):
            raise ValueError(f"axes: expected rows of 1 number to {n} numbers")
        return self

    @classmethod
    def of(cls, appearances: np.ndarray) -> Usual:
        """Learn from (m, n) appearances, in order of arrival; m at least 200.

        Each fifth is measured by what the others teach; in one piece, because images of a patient arrive together.
        """
        fold = np.arange(len(appearances)) * FOLDS // len(appearances)
        beside = [_distances(appearances[fold == k], *_learned(appearances[fold != k])) for k in range(FOLDS)]
        center, axes = _learned(appearances)
        axes /= np.sqrt(max(float(np.percentile(np.concatenate(beside), BEYOND, method="higher")), TINY))
        rows = tuple(tuple(_short(number) for number in row[: k + 1]) for k, row in enumerate(axes))
        return cls(center=tuple(map(_short, center)), axes=rows)

    def strangeness(self, appearances: np.ndarray) -> np.ndarray:
        """(m, n) -> (m,) float64; above 1: unlike the site's images."""
        n = len(self.center)
        axes = np.zeros((n, n))
        axes[np.tril_indices(n)] = np.concatenate(self.axes)
        return _distances(appearances, np.array(self.center), axes)


def _learned(appearances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(center, axes) of (m, n) appearances."""
    from sklearn.covariance import LedoitWolf

    center, spread = appearances.mean(axis=0), np.maximum(appearances.std(axis=0), FLAT)
    covariance = LedoitWolf().fit((appearances - center) / spread).covariance_
    return center, np.linalg.inv(np.linalg.cholesky(covariance + TINY * np.eye(len(center)))) / spread


def _distances(appearances: np.ndarray, center: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.asarray((((appearances - center) @ axes.T) ** 2).sum(axis=1))


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
