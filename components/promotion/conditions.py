"""Noun: what is asked beside accuracy: probabilities, the released graph, polarity, foreign pictures, shortcuts, time.

Each is asked with a demand of its own. `require`: what is not met fails, and what is not known holds the model back
(inconclusive). `warn`: either is told to the reviewer, and no more. Which is the default, and why: docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from components.dataset.shortcuts import NAMES, NUMBERS, TOGETHER, shortcuts
from components.gate_params import Demand, Gate
from components.model.evaluation import Foreign, Polarity, Reliability
from components.model.statistics import Estimate, auroc_of, bootstrap, has_both, percentile
from components.promotion.decision import Check, Found
from components.promotion.protocol import Ruling
from components.serving.bundle import Manifest

# What a network may have learned instead of a fracture, as far as it is a name: images alike in all of it are compared.
MATCHED = ("site", "device", "view", "body_region", "hardware")


def calibration(found: Reliability, params: Gate) -> Ruling:
    """Slope near 1, and no more calibration error than chance gives; no line fits where the classes are separated."""
    slope = f"slope {found.slope}" if found.slope else "no line fits: the probabilities separate the classes"
    settled = found.slope is not None or found.ece > found.ece_null_95
    return _held(
        "calibration",
        expected="slope touches 0.8-1.2, error within chance",
        found=f"{slope}; error {found.ece:.3f}, chance up to {found.ece_null_95:.3f}",
        met=found.consistent if settled else None,
        sentence="Probabilities are not shown to be calibrated on the test set",
        demand=params.calibration,
        certain=False,
    )


def released(manifest: Manifest, params: Gate) -> Ruling:
    """The graph says what the trained network says, and its heat map passed its own checks."""
    rules, alike, shown = params.parity, manifest.parity, manifest.heat_map
    share = alike.flips / alike.images if alike else 0.0
    parity = _held(
        "released graph beside the trained network",
        expected=f"probability within {rules.max_difference:g}, calls within {rules.max_flips:g}",
        found=f"{alike.difference:.1e}, {alike.flips} of {alike.images} calls differ" if alike else "not recorded",
        met=alike.difference <= rules.max_difference and share <= rules.max_flips if alike else None,
        sentence="The released graph is not shown to say what the trained network says"
        + ("" if alike else ": the bundle is older than the record, run `export` again"),
        demand=rules.demand,
    )
    return parity + _held(
        "heat map",
        expected="passed its checks",
        found="shown to readers" if shown.shown else "hidden: " + "; ".join(shown.reasons),
        met=shown.shown,
        sentence="The heat map is hidden from readers, as its checks did not pass",
        demand=params.heat_map,
    )


def polarity(found: Polarity, params: Gate) -> Ruling:
    """The same picture, told the other way round, scores the same."""
    rules = params.polarity
    return _held(
        "polarity",
        expected=f"probability within {rules.max_difference:g}",
        found=f"{found.largest_difference:.1e} on {found.images} images" if found.images else "not measured",
        met=found.largest_difference <= rules.max_difference if found.images else None,
        sentence="MONOCHROME1 and MONOCHROME2 are not shown to score the same",
        demand=rules.demand,
    )


def foreign(pictures: Sequence[Foreign], params: Gate) -> Ruling:
    """A picture that is no radiograph gets no call, by a rule and not by a probability that happens to lie between."""
    called = [f"{picture.picture} ({picture.call})" for picture in pictures if not picture.abstained]
    return _held(
        "pictures that are no radiographs",
        expected="none is judged",
        found=f"{len(called)} of {len(pictures)} judged" if pictures else "not measured",
        met=not called if pictures else None,
        sentence=f"Not turned away: {', '.join(called)}" if called else "No foreign picture was tried",
        demand=params.foreign,
    )


def shortcut(learned: pd.DataFrame, params: Gate) -> Ruling:
    """How well the label can be told without a picture, on images that the network may learn from.

    Args:
        learned: accepted, labelled images of other roles than test, with the metadata of the catalog.
    """
    rules, auroc = params.shortcut, _metadata_auroc(learned)
    return _held(
        "metadata alone",
        expected=f"AUROC at most {rules.max_auroc:g}",
        found=f"{auroc:.3f} on {len(learned)} images to learn from" if auroc is not None else "not known",
        met=auroc <= rules.max_auroc if auroc is not None else None,
        sentence=f"Metadata alone tells the label with AUROC {auroc:.3f}: a network can learn that instead of fractures"
        if auroc is not None
        else "What metadata alone tells of the label is not known: too few images to learn from, or no metadata",
        demand=rules.demand,
    )


def matched(
    table: pd.DataFrame,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    params: Gate,
    *,
    least: int,
    resamples: int,
    seed: int,
) -> Ruling:
    """What the AUROC loses when only images alike in site, device, view, region and hardware are compared.

    A network that reads those instead of the bone loses it all. A loss fails when its whole interval
    is beyond the bound.

    Args:
        table, labels, probabilities, patients: (n,) of the sealed test images.
        least: fractures, and non-fractures, among comparable images below which nothing is said.
    """
    rules = params.matched
    drop = matched_drop(table, labels, probabilities, patients, least=least, resamples=resamples, seed=seed)
    return _held(
        "AUROC lost among images of equal metadata",
        expected=f"interval reaches {rules.max_drop:g} or less",
        found=f"{drop}, n = {drop.n}" if drop else "not known",
        met=drop.low <= rules.max_drop if drop else None,
        sentence=f"Among images of equal metadata the AUROC is lower by {drop}: the network reads more than the bone"
        if drop
        else f"Fewer than {least} fractures or non-fractures have images of equal metadata of the other kind beside "
        "them: what the network owes to metadata is not known",
        demand=rules.demand,
        certain=False,
    )


def matched_drop(
    table: pd.DataFrame,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    least: int,
    resamples: int,
    seed: int,
) -> Estimate | None:
    """AUROC over all pairs minus that over pairs within a stratum of MATCHED, n the images of strata with both classes.

    None: too few images of either class are in such strata.

    Source: stratified (covariate-adjusted) AUC, Janes and Pepe 2009.
    """
    keys = table[[name for name in MATCHED if name in table]].astype(str)
    codes = pd.factorize(pd.MultiIndex.from_frame(keys))[0] if len(keys.columns) else np.zeros(len(table), int)
    strata = [member for code in np.unique(codes) if has_both(labels[member := np.flatnonzero(codes == code)])]
    inside = np.concatenate(strata) if strata else np.zeros(0, int)
    if min((labels[inside] == 1).sum(), (labels[inside] == 0).sum()) < least:
        return None
    overall = auroc_of(labels, probabilities)
    areas = [(member, labels[member] == 1, auroc_of(labels[member], probabilities[member])) for member in strata]

    def drop(weights: np.ndarray) -> np.ndarray:
        won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for member, positive, area in areas:
            drawn = weights[:, member]
            these = drawn[:, positive].sum(axis=1) * drawn[:, ~positive].sum(axis=1)
            won += np.where(these > 0, np.nan_to_num(area(drawn)[:, 0]) * these, 0.0)
            pairs += these
        within = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return overall(weights) - within[:, None]

    draws = bootstrap(patients, drop, resamples=resamples, seed=seed)
    return percentile(float(drop(np.ones((1, len(labels))))[0, 0]), draws[:, 0], len(inside))


def latency(milliseconds: float, params: Gate) -> Ruling:
    """A clock: it speaks of the machine that judges, under whatever else ran there."""
    rules = params.latency
    return _held(
        "time of one prediction",
        expected=f"median at most {rules.max_ms:g} ms",
        found=f"{milliseconds:.0f} ms on the machine that judged",
        met=milliseconds <= rules.max_ms,
        sentence=f"One prediction took {milliseconds:.0f} ms on the machine that judged; {rules.max_ms:g} are allowed",
        demand=rules.demand,
    )


def _metadata_auroc(rows: pd.DataFrame) -> float | None:
    """Of all facts together, or of the one that tells most; None where that cannot be asked."""
    stated = rows if "group_id" in rows or "patient_id" not in rows else rows.assign(group_id=rows["patient_id"])
    needed = {*NUMBERS, *NAMES, "label", "group_id"} - {"aspect"}
    if not needed <= set(stated.columns) or not has_both(stated["label"].to_numpy(float)):
        return None
    found = shortcuts(stated.reset_index(drop=True)).set_index("fact")["auc"].dropna()
    return float(found.max()) if TOGETHER in found.index else None


def _held(
    name: str, *, expected: str, found: str, met: bool | None, sentence: str, demand: Demand, certain: bool = True
) -> Ruling:
    """One condition.

    Args:
        met: None: not known.
        sentence: what is wrong, without a full stop.
        certain: more test images would not change it.
    """
    if met:
        return Ruling((Check(name=name, expected=expected, found=found, verdict="passed"),))
    if demand == "warn":
        return Ruling((Check(name=name, expected=expected, found=found, verdict="warned"),), warnings=(f"{sentence}.",))
    verdict: Found = "inconclusive" if met is None else "failed"
    check = Check(name=name, expected=expected, found=found, verdict=verdict)
    return Ruling((check,), (f"{sentence}; the protocol requires it.",), certain=certain and met is False)
