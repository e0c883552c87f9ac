"""The tables that the suites judge: one row an image, the set, a role, a stratum, a piece of metadata, a shortcut.

In every table the first column is the key that a verdict names.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from components.dataset.places import divided
from components.dataset.shortcuts import shortcuts
from components.dataset.store import read_shard, shards
from components.dataset.usual import Usual
from components.errors import DataError
from components.radiograph.quality import FEATURES

ROLES = ("train", "tune", "calibrate", "test")
AGES = [0, 18, 40, 65, 200]  # years; left edges of the bands
BANDS = ["0-17", "18-39", "40-64", "65+"]
STRATA = ("role", "site", "body_region", "view", "sex", "age", "hardware")
STATED = ("site", "device", "body_region", "view", "laterality", "sex", "age_years", "hour")
UNSAID = ("", "unknown")
NEEDED = ("saturation", "grey_levels", "field_fraction", "sharpness")
JUDGED = (*NEEDED, "noise", "cnr", "motion", "clutter", "deviation_index")


def image_facts(table: pd.DataFrame, features: Path, usual: Mapping[str, Usual]) -> pd.DataFrame:
    """One row an image, in the order of `table`.

    Args:
        usual: as in `measured_facts`.

    Raises:
        DataError: images without features.
    """
    columns = ["image_id", "polarity_ok", *FEATURES, *(["appearance"] if usual else [])]
    parts = [read_shard(path, columns) for path in shards(features)]
    known = pa.concat_tables(parts).to_pandas() if parts else pd.DataFrame(columns=columns)
    places = pd.Index(known["image_id"]).get_indexer(table["image_id"])
    if missing := int((places < 0).sum()):
        raise DataError(f"{features}: {missing} of {len(table)} images lack features; run `inspect`")
    facts = sized(measured_facts(known.take(places), table["site"], usual), table)
    facts["label_agrees"] = ~table["image_id"].isin(_contradicted(table)).to_numpy()
    return facts


def measured_facts(measured: pd.DataFrame, sites: pd.Series, usual: Mapping[str, Usual]) -> pd.DataFrame:
    """What the measurements alone say of every image: the columns of the suite `images`, but for size and label.

    Args:
        measured: image_id, polarity_ok, JUDGED and, where it was measured, appearance; one row an image.
        sites: of the same images, in the same order.
        usual: what the images of a site look like; strangeness is NaN for the other sites.
    """
    facts = measured[["image_id", "polarity_ok", *JUDGED]].reset_index(drop=True)
    facts["measured"] = np.isfinite(facts[list(NEEDED)].to_numpy(dtype=float)).all(axis=1)
    facts["site"] = sites.to_numpy()
    facts["strangeness"] = np.nan
    for site, own in usual.items():
        rows = np.flatnonzero(facts["site"] == site)
        if len(rows) and "appearance" in measured:
            looks = np.stack(measured["appearance"].iloc[rows].tolist())
            if looks.shape[1] == len(own.center):  # else measured by other code: the report says so
                facts.loc[rows, "strangeness"] = own.strangeness(looks)
    return facts


def sized(facts: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """`facts` with what the sizes of the images say; the rows of `table` are in the same order.

    Args:
        table: rows, columns, bits_stored.
    """
    sides = table[["rows", "columns"]].to_numpy(dtype=np.int64)  # narrower ones are judged one by one
    return facts.assign(
        side_px=sides.min(axis=1),
        aspect=sides.min(axis=1) / sides.max(axis=1),
        deep_levels=facts["grey_levels"].where(table["bits_stored"].to_numpy() > 8),
    )


def set_facts(table: pd.DataFrame, *, min_stratum: int) -> dict[str, pd.DataFrame]:
    """Everything that is judged about more than one image: whole, roles, strata, metadata, shortcuts.

    Args:
        table: every image, with `accepted`.
        min_stratum: labelled images below which a stratum says nothing.
    """
    used = table[table["accepted"] & table["label"].notna() & table["role"].isin(ROLES)]
    roles = pd.DataFrame(
        [(role, *classes(used.loc[used["role"] == role, ["label"]])) for role in ROLES],
        columns=["role", "positives", "negatives"],
    )
    strata = pd.DataFrame(
        [
            (f"{column} {part['value']}", part["positives"] / known)
            for column, parts in balance(used).items()
            for part in parts
            if (known := part["positives"] + part["negatives"]) >= min_stratum
        ],
        columns=["stratum", "prevalence"],
    )
    accepted = table[table["accepted"]]
    missing = [float((accepted[name].isna() | accepted[name].isin(UNSAID)).mean()) for name in STATED]
    return {
        "whole": _whole(table, used, roles),
        "roles": roles,
        "strata": strata.astype({"prevalence": float}),
        "metadata": pd.DataFrame({"name": STATED, "missing": missing}).fillna(0.0),
        "shortcuts": shortcuts(used),
    }


def balance(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Images, positives and negatives by role, site, region, view, sex, age band and hardware."""
    bands = pd.cut(rows["age_years"].astype(float), AGES, right=False, labels=BANDS)
    found = {}
    for column in STRATA:
        codes, names = pd.factorize(bands if column == "age" else rows[column])
        words, word_of = np.unique([*map(str, names), "not stated"], return_inverse=True)
        place = word_of[codes]  # of what is missing the code is -1, and "not stated" stands last
        counts = [
            np.bincount(place, weights=chosen, minlength=len(words)).astype(int).tolist()
            for chosen in (None, rows["label"] == 1, rows["label"] == 0)
        ]
        found[column] = [
            {"value": value, "images": images, "positives": positives, "negatives": negatives}
            for value, images, positives, negatives in zip(words.tolist(), *counts, strict=True)
            if images
        ]
    return found


def classes(rows: pd.DataFrame) -> tuple[int, int]:
    """(images with a fracture, images without one)."""
    return int((rows["label"] == 1).sum()), int((rows["label"] == 0).sum())


def effect(shares: list[float]) -> float:
    """The largest Cohen's h between two of `shares`: 0.2 is small, 0.5 medium, 0.8 large.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., 6.2.
    """
    angles = 2 * np.arcsin(np.sqrt(shares))
    return float(max((abs(one - other) for one, other in combinations(angles, 2)), default=0.0))


def _contradicted(table: pd.DataFrame) -> set[str]:
    """Every image of a picture that was filed under opposite labels, unlabelled ones with it."""
    return set(table.loc[table["picture_id"].isin(divided(table["picture_id"], table["label"])), "image_id"])


def _whole(table: pd.DataFrame, used: pd.DataFrame, roles: pd.DataFrame) -> pd.DataFrame:
    placed = table[table["role"].isin(ROLES)]
    role_of = placed.set_index("image_id")["role"]
    twins = placed[placed["near_duplicate_of"].isin(role_of.index)]
    torn = int((twins["role"].to_numpy() != role_of.loc[twins["near_duplicate_of"]].to_numpy()).sum())
    counted = roles[roles["positives"] + roles["negatives"] > 0]
    positives, negatives = classes(used)
    fact = {
        "set": "all",
        "positives": positives,
        "negatives": negatives,
        "prevalence": positives / max(1, positives + negatives),
        "quarantined": 1 - float(table["accepted"].mean()) if len(table) else 0.0,
        "unattributed": int(used["label_provenance"].isna().sum()),
        "ai_visible": float(used["ai_visible"].astype(bool).mean()) if len(used) else 0.0,
        "weak_grouping": float((placed["grouping"] == "weak").mean()) if len(placed) else 0.0,
        "patient_overlap": len(divided(placed["patient_id"], placed["role"])),
        "near_duplicate_overlap": torn + len(divided(placed["group_id"], placed["role"])),
        "prevalence_effect": effect((counted["positives"] / (counted["positives"] + counted["negatives"])).tolist()),
    }
    return pd.DataFrame([fact])
