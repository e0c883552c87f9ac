"""What is wrong with a data set, in sentences with counts: what a reader of its metrics has to know."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from components.dataset.batches import BatchRecord
from components.dataset.expectations import STRANGENESS, Verdict, failing
from components.dataset.limits import SiteLimits


def at_intake(records: Iterable[BatchRecord]) -> list[dict[str, str]]:
    """name and found, of what never reached the archive: refusals, most frequent first, copies, contradictions.

    Args:
        records: of every batch; a copy or a contradiction counts in every batch that offers it.
    """
    records = list(records)
    refused: dict[str, Counter[str]] = {}
    for record in records:
        for reason, labels in record.refused.items():
            refused.setdefault(reason, Counter()).update(labels)
    found = {}
    for reason, labels in sorted(refused.items(), key=lambda entry: (-entry[1].total(), entry[0])):
        listed = ", ".join(f"{label.replace('_', ' ')} {count}" for label, count in sorted(labels.items()))
        found[f"refused at intake: {reason}"] = f"{labels.total()} files ({listed})"
    if copies := sum(record.copies for record in records):
        found["exact duplicates"] = f"{copies} images under another name, dropped at intake"
    if torn := sum(record.disagreements for record in records):
        found["source contradicts itself"] = f"{torn} images, their label is unknown"
    return [{"name": name, "found": sentence} for name, sentence in found.items()]


def of_other_code(sites: Mapping[str, SiteLimits], version: str | None) -> list[dict[str, str]]:
    """name and found, of sites that are judged by numbers of other code than measured their images.

    Args:
        version: of the code that measured; None where nobody knows, and nothing can be said.
    """
    return [
        {
            "name": f"limits of other code: {site}",
            "found": f"learned from measurements of version {own.measured_by or 'unknown'}, these are of {version}; "
            f"run `osteoflow data limits --site {shlex.quote(site)} --again`",
        }
        for site, own in sorted(sites.items())
        if version and own.measured_by != version
    ]


def findings(table: pd.DataFrame, verdicts: list[Verdict], facts: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    """name and found, in a fixed order; only what was found.

    Args:
        table: every image of `splits`, with picture_id, near_duplicate_of, withdrawn, grouping.
        verdicts: on `facts` (dataset/facts.py).
    """
    found = {}
    if gone := int(table["withdrawn"].sum()):
        found["withdrawn"] = f"{gone} images of withdrawn patients, and copies of them under other ids; excluded"
    twins = table[table["near_duplicate_of"].notna()]
    if len(twins):
        excluded = int(((twins["role"] == "excluded") & ~twins["withdrawn"]).sum())
        found["near-duplicates"] = (
            f"{len(twins)} images repeat an earlier one; {excluded} excluded, to keep roles apart"
        )
    failed = {verdict.check.name: verdict for verdict in verdicts if not verdict.success}
    if torn := failed.get("label_conflict"):
        pictures = table.loc[table["image_id"].isin(torn.failing), "picture_id"].nunique()
        found["contradicting labels"] = f"{pictures} pictures filed under opposite labels ({len(torn.failing)} images)"
    if strange := failing(verdicts, STRANGENESS):
        found["strange pictures"] = f"{len(strange)} images look unlike the others of their site; told, not refused"
    if unknown := int(table["label"].isna().sum()):
        found["no label"] = f"{unknown} of {len(table)} images: nobody said, or the sources contradict themselves"
    if weak := int((table["grouping"] == "weak").sum()):
        found["missing patient ids"] = f"{weak} of {len(table)} images (weak grouping: metrics may be flattered)"
    if "shortcut_auc" in failed:
        hits = facts["shortcuts"][facts["shortcuts"]["fact"].isin(failed["shortcut_auc"].failing)]
        for kind, rows in hits.sort_values("auc", ascending=False).groupby("kind", sort=False):
            listed = ", ".join(f"{name} {auc:.3f}" for name, auc in zip(rows["fact"], rows["auc"], strict=True))
            name = "metadata shortcut" if kind == "all together" else f"{kind} shortcut"
            found[name] = f"AUC without the picture: {listed}"
    if "balance_by_stratum" in failed:
        strata = facts["strata"].set_index("stratum")["prevalence"]
        for stratum in failed["balance_by_stratum"].failing:
            found[f"one-sided: {stratum}"] = f"{100 * strata[stratum]:.1f}% of its images show a fracture"
    if "missing_metadata" in failed:
        found["missing metadata"] = failed["missing_metadata"].found
    return [{"name": name, "found": sentence} for name, sentence in found.items()]
