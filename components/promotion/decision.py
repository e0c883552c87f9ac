"""Noun: the decision record: what the gate found about a challenger, under which protocol, on which data, and why.

It is canonical JSON in the ledger, and a file beside the version's report in the registry. Its JSON Schema is
docs/decision.schema.json. Records of formats 1 to 3, without what is marked below, stay readable.

Source: FDA guidance on predetermined change control plans (2025); 21 CFR 11.10(e).
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.gate_params import Gate, Signers, SliceColumn
from components.model.evaluation import WEAK, Slice
from components.model.statistics import Estimate
from components.promotion.ledger import canonical

FORMAT: Literal[4] = 4
PAGE = 5000  # MLflow keeps a version's description in a String(5000)
Verdict = Literal["passed", "failed", "inconclusive"]
Found = Literal["passed", "failed", "inconclusive", "warned"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Context(_Part):
    """The circumstances of a build, as the flow knows them.

    Attributes:
        champion_version: None: there is no champion yet.
        lock_sha256: of the environment's lock file.
        data_sha256: of the data pointers.
    """

    name: str
    version: int
    champion_version: int | None
    proposer: str | None
    git_commit: str
    lock_sha256: str
    data_sha256: str


class Check(_Part):
    """One line of the protocol. "warned": not met, or not known, where the protocol asks no more than to say so."""

    name: str
    expected: str
    found: str
    verdict: Found


class Threshold(_Part):
    threshold: float
    source_role: str


class Figures(_Part):
    """One bundle on the sealed test images; sensitivity and specificity by operating point."""

    bundle_hash: str
    thresholds: dict[str, Threshold]
    auroc: Estimate
    brier: Estimate
    sensitivity: dict[str, Estimate]
    specificity: dict[str, Estimate]


class Compared(_Part):
    """One value of one column: the challenger beside the champion on the slice's own images.

    Attributes:
        verdict: "worse": a loss beyond the margin is shown in one of the two rates; "insufficient": not judged.
        sensitivity: at the high-sensitivity point, challenger minus champion (where the champion's trade-off is
            repaired: minus its ROC curve at the challenger's price); without a champion the rate itself.
        specificity: the same at the high-specificity point.
        p_sensitivity, p_specificity: one-sided, of a loss beyond the margin (no champion: of being below the floor);
            the verdict is Holm's over all slices and both rates.
    """

    column: SliceColumn
    value: str
    positives: int
    negatives: int
    verdict: Literal["kept", "worse", "insufficient"]
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    p_sensitivity: float | None = None
    p_specificity: float | None = None


class EarlierProtocol(_Part):
    """The protocol as records of formats 1 and 2 have it."""

    model: str
    auroc_floor: float
    sensitivity_floor: float
    specificity_floor: float
    margin: float
    min_positives: int
    min_negatives: int
    look_budget: int

    @property
    def signers(self) -> Signers:
        """One signature was all there was to ask for."""
        return Signers(reviewer=1)


class Decision(_Part):
    """What goes into the ledger as kind "decision". `name` to `proposer` are what an approval is checked against."""

    format: Literal[1, 2, 3, 4] = FORMAT
    name: str
    version: int
    bundle_hash: str
    verdict: Verdict
    champion_version: int | None
    champion_hash: str | None
    proposer: str | None
    git_commit: str
    lock_sha256: str
    data_sha256: str
    accepted_sha256: str = Field(description="which image has which role, and which are used")
    test_sha256: str = Field(description="the sealed test images and their labels")
    protocol: Gate | EarlierProtocol = Field(description="its signers by role (format 4), or a number of reviewers")
    protocol_sha256: str
    evidence: str = Field(description='"patient grouping" or "weak grouping"')
    images: int
    patients: int
    positives: int
    negatives: int
    retired: int = Field(default=0, description="test images that a refresh took out of deciding (format 2)")
    withdrawn: int = Field(
        default=0, description="patients withdrawn by then, whose images neither model was judged on (format 4)"
    )
    look: int = Field(description="which look at these test patients this was, from 1")
    look_budget: int
    challenger: Figures
    champion: Figures | None
    reference_version: int | None = Field(
        default=None, description="a champion of before, where one beside the present one is compared with (format 4)"
    )
    reference_hash: str | None = Field(default=None, description="its bundle (format 4)")
    reference: Figures | None = Field(default=None, description="its figures on the same images (format 4)")
    slices: tuple[Slice, ...] = Field(default=(), description="of the challenger, as evaluated (format 2)")
    evaluation_sha256: str | None = Field(default=None, description="of the challenger's evaluation.json (format 2)")
    previous_record: str | None = Field(
        default=None, description="hash of the ledger entry with this model's record before; null: the first (format 2)"
    )
    compared: tuple[Compared, ...] = Field(default=(), description="slice by slice, challenger and champion (format 3)")
    crept: tuple[Compared, ...] = Field(default=(), description="slice by slice, challenger and reference (format 4)")
    changed: tuple[str, ...] = Field(
        default=(), description="in what the two releases differ, as params.yaml names it (format 3)"
    )
    latency_ms: float | None = Field(
        default=None, description="median of one prediction on the machine that judged (format 3)"
    )
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    def encode(self) -> bytes:
        """The record as canonical JSON, as the ledger's entry has it."""
        return canonical(self.model_dump(mode="json"))

    def text(self) -> str:
        """The verdict and why, in a few lines."""
        return "\n".join([self._headline(), *(f"  - {reason}" for reason in self.reasons)])

    def markdown(self) -> str:
        """What the reviewer reads on the version's page in the registry: at most 5,000 characters, its column's width.

        Checks that passed give way first, then the last warnings; the ledger has all of them.
        """
        whole = self._markdown(len(self.warnings), passed=True)
        pages = (self._markdown(shown, passed=False) for shown in range(len(self.warnings), -1, -1))
        return next((page for page in (whole, *pages) if len(page) <= PAGE), self._markdown(0, passed=False)[:PAGE])

    def _markdown(self, shown: int, *, passed: bool) -> str:
        lines = [f"## {self._headline()}", "", *(f"- {reason}" for reason in self.reasons), ""]
        lines += self._figures_table()
        lines += ["", "| Check | Expected | Found | Verdict |", "|---|---|---|---|"]
        told = [check for check in self.checks if passed or check.verdict != "passed"]
        lines += [f"| {c.name} | {c.expected} | {c.found} | {c.verdict} |" for c in told]
        if rest := len(self.checks) - len(told):
            lines.append(f"| {rest} more, in the ledger | | | passed |")
        lines += ["", "### Read before approving", ""]
        lines += [f"- {warning}" for warning in self.warnings[:shown]]
        if hidden := len(self.warnings) - shown:
            lines.append(f"- {hidden} more in the ledger and the report.")
        if not self.warnings:
            lines.append("- Nothing stands out.")
        facts = {
            "Test set": f"{self.images} images of {self.patients} patients: {self.positives} with a fracture, "
            f"{self.negatives} without ({self.evidence})"
            + (f"; {self.withdrawn} patients withdrawn before" if self.withdrawn else ""),
            "Look": f"{self.look} of {self.look_budget} at these test patients",
            "Challenger bundle": f"`{self.bundle_hash}`",
            "Champion bundle": f"`{self.champion_hash}`" if self.champion_hash else "none yet",
            "Reference": f"version {self.reference_version}, `{self.reference_hash}`" if self.reference_hash else "-",
            "Changed": ", ".join(self.changed).replace("_", " ") if self.champion_hash and self.changed else "-",
            "Git commit": f"`{self.git_commit}`",
            "Environment lock": f"`{self.lock_sha256}`",
            "Data": f"`{self.data_sha256}`",
            "Split": f"`{self.accepted_sha256}`",
            "Test images": f"`{self.test_sha256}`",
            "Protocol": f"`{self.protocol_sha256}`",
        }
        if self.protocol.signers.total > 1:
            facts["Signatures"] = f"{self.protocol.signers.text()} have to sign this decision"
        lines += ["", "### Versions", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())]
        return "\n".join([*lines, "", "Decision support for research; not a medical device.", ""])

    def _headline(self) -> str:
        beside = f"champion version {self.champion_version}" if self.champion_hash else "no champion yet"
        mark = f"; {WEAK}" if self.evidence == WEAK else ""
        return f"Version {self.version}: {self.verdict} ({beside}{mark})"

    def _figures_table(self) -> list[str]:
        rows = ["| | Challenger | Champion |", "|---|---|---|"]
        champion = self.champion

        def row(name: str, mine: Estimate, other: Estimate | None) -> str:
            return f"| {name} (n = {mine.n}) | {mine} | {other if other else '-'} |"

        rows.append(row("AUROC", self.challenger.auroc, champion.auroc if champion else None))
        for point in self.challenger.thresholds:
            for kind in ("sensitivity", "specificity"):
                mine, other = getattr(self.challenger, kind), getattr(champion, kind) if champion else {}
                rows.append(row(f"{kind.capitalize()}, {point.replace('_', '-')} point", mine[point], other.get(point)))
        rows.append(row("Brier score", self.challenger.brier, champion.brier if champion else None))
        for point, mine_at in self.challenger.thresholds.items():
            other_at = f"{champion.thresholds[point].threshold:.4f}" if champion else "-"
            name = f"Threshold, {point.replace('_', '-')} point (chosen on {mine_at.source_role})"
            rows.append(f"| {name} | {mine_at.threshold:.4f} | {other_at} |")
        return rows


def schema() -> dict[str, Any]:
    """The record's JSON Schema (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Decision.model_json_schema()}


def protocol_hash(protocol: Gate | EarlierProtocol | dict[str, Any]) -> str:
    """Identity of the protocol a decision was taken under; of a record's as it stands there, whatever came in since."""
    plain = protocol if isinstance(protocol, dict) else protocol.model_dump(mode="json")
    return hashlib.sha256(canonical(plain)).hexdigest()
