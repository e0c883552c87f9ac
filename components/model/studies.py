"""Noun: the images of one examination as one case: its truth, its patient, and one probability from all its views.

A study shows a fracture when any of its images does. Two rules make one probability of several. The *maximum* is the
most suspicious view: a study is called at a threshold exactly when any of its images is. The *noisy-or*,
1 - (1 - p1)(1 - p2)..., is the chance that at least one view shows a fracture were the views independent; they are not,
so it ranks and calls, but it is no calibrated probability. Neither is learned, and a view that is missing takes no
part: a study of one image has that image's probability, by either rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from components.model.statistics import has_both


@dataclass(frozen=True)
class Studies:
    """Images grouped by examination.

    Attributes:
        member: (n,) which study, 0 to s - 1, each image is of.
        labels: (s,) 1 when any image of the study shows a fracture, else 0.
        patients: (s,) whose study it is.
        images: (s,) how many images it has.
        mixed: how many studies show a fracture on some of their images only.
    """

    member: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    images: np.ndarray
    mixed: int

    @classmethod
    def of(cls, table: pd.DataFrame) -> Studies:
        """Group the rows of `table` (study_id, patient_id, label), every one labelled."""
        _, first, member = np.unique(table["study_id"].astype(str), return_index=True, return_inverse=True)
        images = np.bincount(member)
        positive = np.bincount(member, weights=table["label"].to_numpy(np.float64))
        return cls(
            member=member,
            labels=(positive > 0).astype(np.float64),
            patients=table["patient_id"].astype(str).to_numpy()[first],
            images=images,
            mixed=int(((positive > 0) & (positive < images)).sum()),
        )

    @property
    def judgeable(self) -> bool:
        """Whether there are studies with and studies without a fracture."""
        return has_both(self.labels)

    def maximum(self, probabilities: np.ndarray) -> np.ndarray:
        """(n,) probabilities of the images -> (s,) the largest of each study."""
        found = np.zeros(len(self.images))
        np.maximum.at(found, self.member, probabilities)
        return found

    def noisy_or(self, probabilities: np.ndarray) -> np.ndarray:
        """(n,) probabilities of the images -> (s,) 1 - product of (1 - p) over each study.

        Source: Pearl 1988, section 4.3.2.
        """
        with np.errstate(divide="ignore"):  # a probability of 1 leaves nothing, and its study has 1
            left = np.bincount(self.member, weights=np.log1p(-probabilities.astype(np.float64)))
        return np.where(self.images == 1, self.maximum(probabilities), -np.expm1(left))
