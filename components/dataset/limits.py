"""The thresholds of single images that a site has learned from its own first images; a small file, in git."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.dataset.facts import image_facts
from components.dataset.keys import key_of
from components.dataset.store import atomic_path, read_shard, shards
from components.dataset.usual import Usual
from components.errors import ConfigError, DataError
from components.gate_params import Share
from components.params import ImageExpectations

FIRST = 1000  # images of a site that teach its limits
LEAST = 200  # below these, half a percent is nobody
TAIL = 0.5  # percent beyond a limit
HEAD = (
    "# Thresholds that sites have learned; written by `osteoflow data limits`, which replaces params.yaml's for them.\n"
)


class SiteLimits(BaseModel):
    """What replaces the same names of `validate.images` for the images of one site.

    Attributes:
        images: how many taught it.
        measured_by: version of the code that measured them; None: learned before it was recorded.
        usual: what they look like; None: learned before that was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(ge=LEAST, le=FIRST)
    measured_by: str | None = None
    max_saturation: Share
    min_grey_levels: int = Field(ge=0)
    min_field_fraction: Share
    min_sharpness: float = Field(ge=0)
    max_noise: Share | None = None  # None: learned before there was such a limit; that of params.yaml holds
    max_clutter: float | None = Field(default=None, ge=0)
    usual: Usual | None = None


class Limits(BaseModel):
    """The whole file: limits by site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: dict[str, SiteLimits] = {}

    @property
    def usual(self) -> dict[str, Usual]:
        """What images look like, of the sites that know."""
        return {site: own.usual for site, own in self.sites.items() if own.usual}


def read_limits(path: Path) -> Limits:
    """The file `path`.

    Raises:
        ConfigError: it is missing or no YAML, or a key is unknown, missing or out of range; each named, dotted.
    """
    try:
        return Limits.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__}); run `git checkout -- {path}`") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {error.error_count()} problem(s): {problems}") from None


def record_limits(path: Path, site: str, learned: SiteLimits, *, again: bool) -> None:
    """Write `learned` into the file `path`.

    Args:
        again: replace what the site has learned before.

    Raises:
        ConfigError: the file is damaged.
        DataError: the site has limits already, and `again` is False.
    """
    known = read_limits(path).sites
    if site in known and not again:
        raise DataError(f"{path}: {site!r} has limits already, of {known[site].images} images; --again replaces them")
    document = Limits(sites=known | {site: learned}).model_dump()
    with atomic_path(path) as draft:
        draft.write_text(
            HEAD + yaml.safe_dump(document, allow_unicode=True, default_flow_style=None, width=120), encoding="utf-8"
        )


def learn(*, splits: Path, features: Path, site: str, params: ImageExpectations) -> SiteLimits:
    """The limits of `site`: percentiles over its first thousand images that nothing but these limits could refuse.

    Images that the present limits refuse are among them: without those, limits could only ever become narrower, and
    a site that was refused as a whole could teach nothing.

    Args:
        splits: every image with its metadata.
        features: one file a shard, so that sorting by name is sorting by arrival.
        params: for the smallest side.

    Raises:
        DataError: a table is missing, images lack features or some have those of older code, or there are too few
            images of this site.
    """
    if not splits.exists():
        raise DataError(f"{splits}: not here; run `dvc pull`, or `dvc repro split` where the last build stopped")
    table = pd.read_parquet(splits)
    facts = image_facts(table, features, {})
    good = facts["measured"] & facts["polarity_ok"] & facts["label_agrees"] & (facts["side_px"] >= params.min_side_px)
    good &= table["site"].to_numpy() == site
    if "withdrawn" in table:  # a split of before there were withdrawals has no such column
        good &= ~table["withdrawn"].to_numpy(dtype=bool)
    arrived = [read_shard(path, ["image_id", "appearance"]).to_pandas() for path in shards(features)]
    looks = pd.concat(arrived).set_index("image_id")
    order = looks.index
    mine = facts[good].set_index("image_id")
    first = mine.loc[order[order.isin(mine.index)][:FIRST]]
    if len(first) < LEAST:
        sites = ", ".join(f"{name} {count}" for name, count in table["site"].value_counts().sort_index().items())
        raise DataError(
            f"{site!r}: {len(first)} usable image(s), it takes {LEAST} to learn limits from; images by site: {sites}"
        )
    low = {name: float(np.percentile(first[name].astype(float), TAIL)) for name in ("field_fraction", "sharpness")}
    highs = ("saturation", "noise", "clutter")
    high = {name: float(np.percentile(first[name].astype(float), 100 - TAIL)) for name in highs}
    return SiteLimits(
        images=len(first),
        measured_by=measured_by(features),
        max_saturation=min(1.0, _outward(high["saturation"], np.ceil)),
        min_grey_levels=int(np.floor(np.percentile(first["grey_levels"].astype(float), TAIL))),
        min_field_fraction=_outward(low["field_fraction"], np.floor),
        min_sharpness=_outward(low["sharpness"], np.floor),
        max_noise=min(1.0, _outward(high["noise"], np.ceil)),
        max_clutter=_outward(high["clutter"], np.ceil),
        usual=_usual(looks.loc[first.index, "appearance"], features) if "appearance" in looks else None,
    )


def _usual(looks: pd.Series, features: Path) -> Usual:
    if looks.isna().any() or looks.map(len).nunique() > 1:  # a build was stopped while it measured anew
        raise DataError(f"{features}: measured by code of two versions; run `dvc repro inspect`")
    return Usual.of(np.stack(looks.tolist()))


def measured_by(features: Path) -> str | None:
    """Version of the code that measured `features`, which are all of one; None where they do not say."""
    keys = (key_of(path) for path in shards(features)[:1])
    return next((key.partition(":")[0] for key in keys if key), None)


def _outward(value: float, rounded: np.ufunc) -> float:
    """To four places, so that people can read it, never inwards."""
    return float(rounded(value * 1e4) / 1e4)
