"""How well a label can be told without looking at the picture: what a network would learn instead of fractures."""

from __future__ import annotations

import numpy as np
import pandas as pd

NUMBERS = ("hardware", "rows", "columns", "aspect", "bits_stored", "age_years", "hour")
NAMES = ("site", "device", "body_region", "view", "sex")
TOGETHER = "all together"
KINDS = {"hardware": "hardware", "rows": "resolution", "columns": "resolution", "aspect": "resolution"}  # of shortcut
FOLDS = 5
BINS = 20  # quantiles of a number
LARGEST = 40  # values of a name that are told apart
SOME = 20_000  # images that tell an AUC to a hundredth; what all facts together say is fitted on no more
SEED = 0


def shortcuts(rows: pd.DataFrame) -> pd.DataFrame:
    """How well metadata alone tell `label`, each fact alone and all of them together, on patients not fitted on.

    Each fact alone is asked on every image, all together on SOME of them.

    Args:
        rows: labelled images: label (0 or 1), group_id, the metadata of the catalog.

    Returns:
        fact, auc (mean over folds of groups; NaN where too few groups hold both labels), kind (of shortcut).
    """
    facts = _facts(rows)
    label = rows["label"].to_numpy(dtype=float)
    groups = pd.factorize(rows["group_id"])[0]
    fold = np.random.default_rng(SEED).permutation(groups.max(initial=-1) + 1)[groups] % FOLDS
    folds = [fold == number for number in range(FOLDS)]
    bins = {name: _bins(facts[name]) for name in facts}
    found = [(name, _alone(codes, label, folds) if _usable(label, folds) else np.nan) for name, codes in bins.items()]
    some = _some(rows["group_id"])
    label, folds = label[some], [part[some] for part in folds]
    every = np.column_stack(list(bins.values()))[some]
    found.append((TOGETHER, _together(every, label, folds) if _usable(label, folds) else np.nan))
    table = pd.DataFrame(found, columns=["fact", "auc"])
    table["auc"] = table["auc"].round(4)
    table["kind"] = table["fact"].map(lambda name: KINDS.get(name, name))
    return table


def _facts(rows: pd.DataFrame) -> pd.DataFrame:
    """The metadata as numbers, NaN where not stated; of names only the most frequent are told apart."""
    table = rows.assign(aspect=rows["columns"] / rows["rows"])
    facts = {name: pd.to_numeric(table[name].astype("float64")) for name in NUMBERS}
    for name in NAMES:
        frequent = table[name].value_counts().index[:LARGEST]
        codes = pd.Series(pd.Categorical(table[name], categories=frequent).codes, index=table.index, dtype="float64")
        facts[name] = codes.where(codes >= 0)
    return pd.DataFrame(facts)


def _bins(values: pd.Series) -> np.ndarray:
    """(n,) small integers: a bin for every value where they are few, else quantiles; and one for what is missing."""
    known = values.dropna()
    edges = np.unique(known)
    if len(edges) > LARGEST:  # else a rare value would hide among frequent ones
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.where(values.isna(), len(edges) + 1, np.searchsorted(edges, values.fillna(0), side="right"))


def _usable(label: np.ndarray, folds: list[np.ndarray]) -> bool:
    return all(np.unique(label[part]).size == 2 and np.unique(label[~part]).size == 2 for part in folds)


def _some(groups: pd.Series) -> np.ndarray:
    """(n,) whether the trees see an image: whole groups, by a hash of their names, until there are SOME images.

    So an archive that grows keeps most of what it saw, and what trees cost does not grow with it.
    """
    place = pd.util.hash_array(groups.to_numpy())
    last = min(SOME, len(place))
    return place <= np.partition(place, last - 1)[last - 1] if last else np.zeros(0, dtype=bool)


def _alone(codes: np.ndarray, label: np.ndarray, folds: list[np.ndarray]) -> float:
    """AUC of the share of fractures among images of the same bin in the other folds."""
    scores, bins = [], int(codes.max()) + 1
    for part in folds:
        positives, negatives = _counted(codes[~part], label[~part], bins)
        # A bin nobody is in says no more than the whole.
        share = (positives + label[~part].mean()) / (positives + negatives + 1)
        scores.append(_auc(share, *_counted(codes[part], label[part], bins)))
    return float(np.mean(scores))


def _counted(codes: np.ndarray, label: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives by bin."""
    positives = np.bincount(codes, weights=label, minlength=bins)
    return positives, np.bincount(codes, minlength=bins) - positives


def _auc(score: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> float:
    """AUC of bins with a score each: of all pairs, those where the positive has the higher score, half where equal."""
    higher = (score[:, None] > score) + (score[:, None] == score) / 2
    return float(positives @ higher @ negatives / (positives.sum() * negatives.sum()))


def _together(table: np.ndarray, label: np.ndarray, folds: list[np.ndarray]) -> float:
    """AUC of small boosted trees. table: (n, facts) bins."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits  # what scikit-learn itself limits threads by

    scores = []
    # One thread: so little is done between two points where threads meet that on a busy machine they mostly wait.
    with threadpool_limits(1, "openmp"):
        for part in folds:
            model = HistGradientBoostingClassifier(max_iter=40, max_depth=4, early_stopping=False, random_state=SEED)
            model.fit(table[~part], label[~part])
            scores.append(roc_auc_score(label[part], model.predict_proba(table[part])[:, 1]))
    return float(np.mean(scores))
