"""Step: compare a window of production with what the champion was made on, and say in plain words what moved.

A column drifted when the shift is both unlikely (Benjamini-Hochberg over everything tested) and large (the effect
floor): with many cases every difference is significant, with few every difference is large.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from components import params
from components.dataset.inputs import Inputs
from components.dataset.store import atomic_folder
from components.errors import DataError
from components.model.statistics import benjamini_hochberg
from components.monitoring.shift import MAX_CASES, Distance, comparable, domain_auc, mix, stratified_ks
from components.monitoring.verdict import EMBEDDING, MIXES, SCORE, Drift, Feature, Site, sentence
from components.radiograph.quality import FEATURES

MIN_VALUES = 20  # values a column needs on both sides to be tested
PERMUTATIONS = 999


def drift(
    *,
    reference: Path,
    current: pd.DataFrame,
    report: Path,
    params: params.Monitor,
    inputs: Inputs | None = None,
    max_failing: float = 1.0,
    seed: int = 0,
) -> Drift:
    """Judge `current` against `reference`; write `report`/drift.json and drift.html.

    Args:
        reference: the bundle's reference.parquet.
        current: the window, as PredictionLog.frame gives it, of one bundle. Never changed.
        report: folder to make; an earlier one is replaced.
        params: window, floors and rates.
        inputs: what the suite `images` says of the same window.
        max_failing: share of its images that may fail it.
        seed: of the embedding test's folds and permutations.

    Raises:
        DataError: the reference is missing or empty, or `current` lacks columns or mixes bundles.
    """
    from components.monitoring.report import render

    known = _reference(reference)
    cases = _window(current)
    found = _with(inputs, max_failing, _judge(known, cases, params, seed))
    with atomic_folder(report) as folder:
        (folder / "drift.json").write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "drift.html").write_text(render(found, known, cases, params), encoding="utf-8")
    return found


def _with(inputs: Inputs | None, max_failing: float, found: Drift) -> Drift:
    """The verdict, and what is to be said of the images themselves."""
    if inputs is None:
        return found
    unusable = found.status != "insufficient" and inputs.share > max_failing
    limit = f" A data set may have {max_failing:.0%}." if unusable else ""
    said = (f"{inputs.text()}{limit}",) if inputs.failures else ()
    return found.model_copy(update={"inputs": inputs, "unusable": unusable, "reasons": (*found.reasons, *said)})


def _reference(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no reference; a bundle without one cannot be watched; export it again")
    table = pd.read_parquet(path)
    needed = {SCORE, EMBEDDING, "site", *MIXES}
    if table.empty or not needed <= set(table.columns):
        missing = sorted(needed - set(table.columns))
        raise DataError(f"{path}: {len(table)} cases, missing columns {missing}; fix `export`")
    return table


def _window(current: pd.DataFrame) -> pd.DataFrame:
    needed = {"image_id", "patient_id", SCORE, EMBEDDING, "site", *MIXES}
    if missing := sorted(needed - set(current.columns)):
        raise DataError(
            f"window: {len(current)} predictions without columns {missing}; read it with PredictionLog.frame"
        )
    bundles = current["bundle_hash"].nunique() if "bundle_hash" in current else 1
    if bundles > 1:
        raise DataError(f"window: expected predictions of one bundle, found {bundles}; keep the champion's")
    return current.drop_duplicates("image_id", keep="last").reset_index(drop=True)


def _judge(known: pd.DataFrame, cases: pd.DataFrame, params: params.Monitor, seed: int) -> Drift:
    quality = [name for name in FEATURES if name in known]
    new = {column: _new(known, cases, column) for column in ("site", "device")}
    enough = len(cases) >= params.min_cases
    tested: dict[str, tuple[Distance, int]] = {}
    untested: list[str] = []
    if enough:
        tested, untested = _test(known, cases, [*quality, SCORE], params, seed)
    rejected = benjamini_hochberg([distance.p for distance, _ in tested.values()], params.q)
    verdicts = {
        name: _feature(name, distance, bool(reject), count, known, cases, params.effect_floor)
        for (name, (distance, count)), reject in zip(tested.items(), rejected, strict=True)
    }
    drifted = any(feature.drifted for feature in verdicts.values())
    times = cases["time"].dropna() if "time" in cases else pd.Series(dtype=object)
    return Drift(
        status="insufficient" if not enough else "drifted" if drifted else "stable",
        cases=len(cases),
        patients=int(cases["patient_id"].nunique()),
        reference_cases=len(known),
        since=times.min().isoformat() if len(times) else None,
        until=times.max().isoformat() if len(times) else None,
        features=tuple(verdicts[name] for name in quality if name in verdicts),
        scores=verdicts.get(SCORE),
        embeddings=verdicts.get(EMBEDDING),
        mix=tuple(verdicts[name] for name in MIXES if name in verdicts),
        sites=tuple(_site(site, known, cases, quality) for site in sorted(cases["site"].astype(str).unique())),
        new_sites=new["site"],
        new_devices=new["device"],
        untested=tuple(untested),
        reasons=_reasons(verdicts, new, cases, params),
    )


def _test(
    known: pd.DataFrame, cases: pd.DataFrame, columns: list[str], params: params.Monitor, seed: int
) -> tuple[dict[str, tuple[Distance, int]], list[str]]:
    """The distance of every column that can be tested with the cases behind it, and why the others cannot."""
    old, new = comparable(_stratum(known), _stratum(cases), at_least=params.min_cases)
    tested: dict[str, tuple[Distance, int]] = {}
    untested = []
    for name in columns:
        before, now = _numbers(known, name), _numbers(cases, name)
        has, had = np.isfinite(now) & (new != ""), np.isfinite(before) & (old != "")
        has &= np.isin(new, old[had])
        if min(has.sum(), had.sum()) < MIN_VALUES:
            untested.append(f"`{name}`: {has.sum()} comparable values in the window, {had.sum()} in the reference")
            continue
        distance = stratified_ks(
            before[had],
            now[has],
            reference_strata=old[had],
            current_strata=new[has],
            reference_patients=_patients(known[had], like=cases),
            current_patients=_patients(cases[has]),
        )
        tested[name] = (distance, int(has.sum()))
    embedding = _embedding(known[old != ""], cases[new != ""], old[old != ""], new[new != ""], seed)
    if embedding is None:
        untested.append("`embedding`: missing, or of another size than the reference's")
    else:
        tested[EMBEDDING] = (embedding, int((new != "").sum()))
    for name in MIXES:
        independent = _patients(cases) / len(cases)
        sides = [side[name].astype(str).to_numpy() for side in (known, cases)]
        tested[name] = (mix(sides[0], sides[1], patients_per_case=independent), len(cases))
    return tested, untested


def _embedding(
    known: pd.DataFrame, cases: pd.DataFrame, old: np.ndarray, new: np.ndarray, seed: int
) -> Distance | None:
    picks = [np.linspace(0, len(side) - 1, min(len(side), MAX_CASES)).astype(int) for side in (known, cases)]
    sides = [side.iloc[pick] for side, pick in zip((known, cases), picks, strict=True)]
    vectors = [np.asarray(v, dtype=np.float64) if v is not None else np.empty(0) for s in sides for v in s[EMBEDDING]]
    if not vectors or len({v.shape for v in vectors}) > 1 or not vectors[0].size:
        return None
    points = np.stack(vectors)
    if min(map(len, sides)) < MIN_VALUES or not np.isfinite(points).all():
        return None
    patients = [
        prefix + (side["patient_id"] if "patient_id" in side else side["image_id"]).astype(str).to_numpy()
        for prefix, side in zip(("reference ", "current "), sides, strict=True)
    ]
    auc, p = domain_auc(
        points,
        np.repeat([False, True], [len(side) for side in sides]),
        patients=np.concatenate(patients),
        strata=np.concatenate([old[picks[0]], new[picks[1]]]),
        resamples=PERMUTATIONS,
        seed=seed,
    )
    return Distance(max(0.0, 2 * auc - 1), p)


def _feature(
    name: str, distance: Distance, rejected: bool, count: int, known: pd.DataFrame, cases: pd.DataFrame, floor: float
) -> Feature:
    medians = [_median(side, name) if name not in (EMBEDDING, *MIXES) else None for side in (known, cases)]
    return Feature(
        name=name,
        statistic=distance.statistic,
        p=distance.p,
        q_rejected=rejected,
        drifted=rejected and distance.statistic >= floor,
        reference=medians[0],
        current=medians[1],
        cases=count,
    )


def _site(site: str, known: pd.DataFrame, cases: pd.DataFrame, quality: list[str]) -> Site:
    """Plain KS distances, to point at a site; the verdict is the window's."""
    here = cases[cases["site"].astype(str) == site]
    distances = {}
    for name in quality:
        before, now = (v[np.isfinite(v)] for v in (_numbers(known, name), _numbers(here, name)))
        if min(len(before), len(now)) >= MIN_VALUES:
            one = [np.full(len(v), "all") for v in (before, now)]
            found = stratified_ks(before, now, reference_strata=one[0], current_strata=one[1],
                                  reference_patients=len(before), current_patients=len(now))  # fmt: skip
            distances[name] = found.statistic
    furthest = max(distances, key=lambda name: distances[name]) if distances else None
    return Site(
        site=site,
        cases=len(here),
        reference_cases=int((known["site"].astype(str) == site).sum()),
        furthest=furthest,
        distance=distances[furthest] if furthest else None,
    )


def _reasons(
    verdicts: dict[str, Feature], new: dict[str, tuple[str, ...]], cases: pd.DataFrame, params: params.Monitor
) -> tuple[str, ...]:
    lines = [sentence(f) for f in sorted(verdicts.values(), key=lambda f: (-f.statistic, f.name)) if f.drifted]
    for column, names in new.items():
        lines += [
            f"{column} {name} is not in the reference ({count} of {len(cases)} cases)"
            for name in names
            if (count := int((cases[column].astype(str) == name).sum()))
        ]
    if len(cases) < params.min_cases:
        lines.append(f"only {len(cases)} cases in the window; {params.min_cases} are needed to judge drift")
    return tuple(lines)


def _new(known: pd.DataFrame, cases: pd.DataFrame, column: str) -> tuple[str, ...]:
    if column not in known or column not in cases:
        return ()
    return tuple(sorted(set(cases[column].astype(str)) - set(known[column].astype(str))))


def _stratum(table: pd.DataFrame) -> np.ndarray:
    return (table["body_region"].astype(str) + " " + table["view"].astype(str)).to_numpy(dtype=str)


def _numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    """(cases,) float64; what is missing, or no number, is NaN."""
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _median(table: pd.DataFrame, name: str) -> float | None:
    values = _numbers(table, name)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _patients(table: pd.DataFrame, *, like: pd.DataFrame | None = None) -> int:
    """Distinct patients; a reference that does not say has as many images a patient as the cases it is `like`."""
    if "patient_id" in table:
        return int(table["patient_id"].nunique())
    return len(table) if like is None or like.empty else max(1, round(len(table) * _patients(like) / len(like)))
