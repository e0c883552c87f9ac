"""Noun: the images of one examination as one case: its truth, its patient, and one probability from all its views.

A study shows a fracture when any of its images does. Two rules make one probability of several. The *maximum* is the
most suspicious view: a study is called at a threshold exactly when any of its images is. The *noisy-or*,
1 - (1 - p1)(1 - p2)..., is the chance that at least one view shows a fracture were the views independent; they are not,
so it ranks and calls, but it is no calibrated probability. Neither is learned, and a view that is missing takes no
part: a study of one image has that image's probability, by either rule.

A third rule, *attention*, is learned from studies of role `tune`: the logit of a study is a mean of its images' logits,
weighted by softmax(sharpness * logit + confidence * |logit|), plus `views` times the logarithm of their number. It has
the mean and the maximum in it, knows nothing of an image but its logit, and leaves a study of one image as it is. It is
reported beside the others and serves nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from components.model.statistics import has_both

Rule = tuple[float, float, float]  # sharpness, confidence, views
ENOUGH = 30  # studies of several images, with and without a fracture: ten a number that is fitted
PLAIN = np.array([1.0, 0.0, 0.0])
RIDGE = 3.0  # spread of each number around the plain rule before any study is seen


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

    def attention(self, probabilities: np.ndarray, rule: Rule) -> np.ndarray:
        """(n,) probabilities of the images -> (s,) by a learned rule.

        Args:
            rule: sharpness, confidence and views.

        Source: Ilse, Tomczak and Welling 2018, "Attention-based deep multiple instance learning".
        """
        logits = self._attended(_logit(probabilities), rule)
        return np.where(self.images == 1, self.maximum(probabilities), 0.5 * (1 + np.tanh(0.5 * logits)))

    def fit(self, probabilities: np.ndarray) -> Rule | str:
        """The rule of `attention`, or why there are too few studies to fit them.

        Most likely, with a ridge that leaves it at a plain softmax of the logits where the studies say little; only
        studies of several images tell. The same studies give the same numbers.

        Args:
            probabilities: (n,) of the images.
        """
        from scipy.optimize import minimize

        several = self.images > 1
        positives = int(self.labels[several].sum())
        negatives = int(several.sum()) - positives
        if min(positives, negatives) < ENOUGH:
            return (
                f"`tune` has {positives} studies of several images with and {negatives} without a fracture; attention "
                f"needs {ENOUGH} of each"
            )
        logits, sign = _logit(probabilities), np.where(self.labels[several] == 1, 1.0, -1.0)

        def loss(rule: np.ndarray) -> float:
            pooled = self._attended(logits, (rule[0], rule[1], rule[2]))[several]
            return float(np.sum(np.logaddexp(0, -sign * pooled)) + ((rule - PLAIN) ** 2).sum() / (2 * RIDGE**2))

        found = minimize(loss, PLAIN, method="L-BFGS-B", bounds=[(-20, 20)] * 3).x
        return float(found[0]), float(found[1]), float(found[2])

    def _attended(self, logits: np.ndarray, rule: Rule) -> np.ndarray:
        """(n,) logits of the images -> (s,) logits of the studies."""
        sharpness, confidence, views = rule
        score = sharpness * logits + confidence * np.abs(logits)
        largest = np.full(len(self.images), -np.inf)
        np.maximum.at(largest, self.member, score)
        weight = np.exp(score - largest[self.member])
        mean = np.bincount(self.member, weights=weight * logits) / np.bincount(self.member, weights=weight)
        return np.asarray(mean + views * np.log(self.images))


def _logit(probabilities: np.ndarray) -> np.ndarray:
    """Finite, also at probabilities of 0 and 1."""
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)))
