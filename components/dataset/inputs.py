"""The suite `images` on pictures as they come in, before any build: tonight's batch, and what production is asked of.

Whether one picture was filed under opposite labels is not asked here: it takes all pictures to know (`match`).
Nothing is refused by it: an image of a batch stays in the archive, where `validate` keeps it from training, and a
prediction has been given. It is for knowing tonight, and not at the next build.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.dataset.expectations import STRANGENESS, Check, image_checks, judge, reasons_of, version
from components.dataset.facts import JUDGED, measured_facts, sized
from components.dataset.inspect import measured
from components.dataset.limits import Limits
from components.dataset.store import read_catalog, shards
from components.dataset.workers import ordered
from components.params import ImageExpectations


class Failure(BaseModel):
    """An image that the suite would quarantine, and the checks it fails."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: str
    reasons: tuple[str, ...]


class Asked(BaseModel):
    """One check, as it was asked, and how many images fail it. site: as in Check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    site: str | None
    expected: str
    failing: int
    remedy: str


class Inputs(BaseModel):
    """What the suite `images` says of some images.

    Attributes:
        suite: version of the checks that were asked, 12 hex digits.
        images: that were judged.
        failures: in the order of the images.
        strange: image_ids that look unlike the others of their site, which fails nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    images: int
    checks: tuple[Asked, ...]
    failures: tuple[Failure, ...]
    strange: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the images that fail, 0 to 1; 0 of none."""
        return len(self.failures) / self.images if self.images else 0.0

    def by_check(self) -> dict[str, int]:
        """Failing images by check, over all sites, in the order of the suite; only checks that some image fails."""
        counts: dict[str, int] = {}
        for check in self.checks:
            if check.failing:
                counts[check.name] = counts.get(check.name, 0) + check.failing
        return counts

    def text(self) -> str:
        """A sentence or two with their numbers."""
        told = f" {len(self.strange)} look unlike the others of their site: look at them." if self.strange else ""
        if not self.failures:
            return f"Quality: none of {self.images} images fails the suite `images`.{told}"
        listed = ", ".join(f"{name} {count}" for name, count in self.by_check().items())
        return f"Quality: {len(self.failures)} of {self.images} images fail the suite `images` ({listed}).{told}"


def judge_batch(*, studies: Path, batch: str, limits: Limits, params: ImageExpectations) -> Inputs:
    """Measure and judge the images of one batch, in processes of their own when they are many.

    Raises:
        DataError: a process died.
    """
    mine = shards(studies, batch)
    sizes = {shard: pq.read_metadata(shard) for shard in mine}
    tasks = [(shard, group) for shard in mine for group in range(sizes[shard].num_row_groups)]
    parts = ordered(measured, None, tasks, images=sum(meta.num_rows for meta in sizes.values()))
    columns = ["image_id", "polarity_ok", *JUDGED, "appearance"]
    known = pd.DataFrame([row for part in parts for row in part], columns=columns).set_index("image_id", drop=False)
    table = read_catalog(studies, batch)
    facts = sized(measured_facts(known.loc[table["image_id"]], table["site"], limits.usual), table)
    return _judged(facts, limits, params)


def judge_predictions(window: pd.DataFrame, *, limits: Limits, params: ImageExpectations) -> Inputs:
    """Judge the images of a window of production by the measurements that were logged with their predictions.

    Args:
        window: as PredictionLog.frame gives it; an image that several bundles judged counts once.
    """
    cases = window.drop_duplicates("image_id", keep="last").reset_index(drop=True)
    # A log without any prediction has no columns for what was measured; a measurement that failed is None.
    known = cases.reindex(columns=["image_id", "polarity_ok", *JUDGED])
    known[list(JUDGED)] = known[list(JUDGED)].apply(pd.to_numeric, errors="coerce")
    return _judged(measured_facts(known, cases["site"], {}), limits, params)


def _judged(facts: pd.DataFrame, limits: Limits, params: ImageExpectations) -> Inputs:
    asked = (check for check in image_checks(params, limits.sites) if check.severity == "critical")
    checks = [check for check in asked if check.column in facts]
    verdicts = judge(checks, {"images": facts}) if len(facts) else []
    reasons = reasons_of(facts["image_id"], verdicts)
    return Inputs(
        suite=version(checks),
        images=len(facts),
        checks=tuple(_asked(verdict.check, len(verdict.failing)) for verdict in verdicts),
        failures=tuple(_failures(facts["image_id"], reasons)),
        strange=tuple(facts.loc[facts[STRANGENESS] > 1, "image_id"]),
    )


def _asked(check: Check, failing: int) -> Asked:
    return Asked(name=check.name, site=check.site, expected=check.expected, failing=failing, remedy=check.remedy)


def _failures(image_ids: pd.Series, reasons: pd.Series) -> Iterable[Failure]:
    for image_id, said in zip(image_ids, reasons, strict=True):
        if said:
            yield Failure(image_id=image_id, reasons=tuple(said.split(";")))
