"""model_card.xml beside the report: the CHAI applied model card, in the element order of its schema v0.2.

It says what the bundle's manifest and its evaluation on the sealed test images say, and nothing else. The schema asks
for more than a pipeline knows; such an element says UNFILLED, and the summary lists them all, so that whoever releases
the model finds them.

Source: Coalition for Health AI, applied model card, schema v0.2 (https://mc.chai.org/v0.2/schema.xsd).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from components.model.evaluation import WEAK, WEAK_NOTE, Evaluation
from components.model.regions import besides
from components.model.statistics import Estimate
from components.serving.bundle import Manifest

FILE = "model_card.xml"
NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
UNFILLED = "Not filled: for whoever releases this model to write."

_SUMMARY = (
    "One number per radiograph, the calibrated probability that it shows a fracture, and a heat map. Between two "
    "frozen thresholds the call is left to a person."
)
_KEYWORDS = ("radiograph", "fracture", "classification")

# An element holds text, or further elements in the schema's order; a list repeats the element.
Content = str | Mapping[str, "Content"] | list["Content"]


def render(found: Evaluation, manifest: Manifest) -> bytes:
    """The card as XML, UTF-8; the same evaluation of the same bundle is the same bytes.

    Args:
        found: of the bundle whose manifest is `manifest`.
    """
    card: dict[str, Content] = {
        "BasicInfo": {"ModelName": "osteoflow-fracture", "ModelDeveloper": UNFILLED, "DeveloperContact": UNFILLED},
        "ReleaseInfo": {
            "ReleaseStage": "Research. Not a medical device.",
            "ReleaseDate": UNFILLED,
            "ReleaseVersion": found.bundle_hash,
            "GlobalAvailability": UNFILLED,
        },
        "ModelSummary": {},  # says what is left empty, so it is written last
        "UsesAndDirections": _uses(manifest),
        "Warnings": _warnings(found, manifest),
        "TrustIngredients": {
            "AISystemFacts": _facts(found, manifest),
            "TransparencyInformation": {"FundingSource": UNFILLED, "StakeholdersConsulted": UNFILLED},
        },
        "KeyMetrics": _metrics(found),
        "Resources": {"PeerReviewedPublications": UNFILLED, "PatientConsentOrDisclosure": UNFILLED},
        "Bibliography": UNFILLED,
    }
    empty = list(_unfilled(card))
    asked = f"Required by the schema and not filled by anyone ({len(empty)}): {', '.join(empty)}."
    card["ModelSummary"] = {"Summary": f"{_SUMMARY} {asked}", "Keywords": {"Keyword": [*_KEYWORDS]}}
    root = ElementTree.Element("AppliedModelCard", xmlns=NAMESPACE)
    for name, content in card.items():
        _grow(root, name, content)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _uses(manifest: Manifest) -> dict[str, Content]:
    points = manifest.thresholds
    low, high = sorted((points.high_sensitivity.threshold, points.high_specificity.threshold))
    return {
        "IntendedUseAndWorkflow": manifest.intended_use or UNFILLED,
        "PrimaryIntendedUsers": "Clinicians who read radiographs themselves, and researchers.",
        "HowToUse": (
            f"Below probability {low:.4f} the call is no fracture, at or above {high:.4f} fracture, between them a "
            "person decides. Every call can be overridden, and a correction is kept."
        ),
        "TargetedPatientPopulation": UNFILLED,
        "CautionedOutOfScopeSettings": (
            "Triage without a reader; images other than projection radiographs; body regions and devices that the "
            "slices of the evaluation do not show; follow-up of known fractures."
            + (f" {manifest.supported.sentence}" if manifest.supported else "")
        ),
    }


def _warnings(found: Evaluation, manifest: Manifest) -> dict[str, Content]:
    shown = manifest.heat_map.shown
    risks = [
        "The probability holds for the prevalence and the devices of the calibration images.",
        "The heat map is relative within one image."
        if shown
        else f"The heat map is hidden from readers: {'; '.join(manifest.heat_map.reasons)}.",
        "Metal, casts and printed markers travel with fractures in many archives; a network can learn them instead.",
    ]
    risks += [WEAK_NOTE] if found.evidence == WEAK else []
    flagged = [f"{s.column} {s.value}" for s in found.slices if s.flagged]
    unseen = sum(s.verdict == "insufficient" for s in found.slices)
    return {
        "KnownRisksAndLimitations": " ".join(risks),
        "KnownBiasesOrEthicalConsiderations": (
            f"Served differently from the rest (false discovery rate 5%): {', '.join(flagged) or 'no slice'}. "
            f"Too few images to tell: {unseen} of {len(found.slices)} slices."
        ),
        "ClinicalRiskLevel": UNFILLED,
    }


def _facts(found: Evaluation, manifest: Manifest) -> dict[str, Content]:
    model = manifest.model
    backbones = " and ".join(backbone.name for backbone in model.backbones)
    return {
        "OutcomesAndOutputs": (
            "A fracture anywhere on the single image: probability, call, prediction set, heat map."
            f"{besides(manifest.regions, counts=bool(found.heads and found.heads.counts))}"
        ),
        "ModelType": (
            f"Convolutional network {backbones}, {model.size} x {model.size} pixels, LiteRT {model.variant}, mean of "
            f"{model.networks}; weights SHA-256 {model.weights_sha256}"
        ),
        "FoundationModels": "; ".join(backbone.started for backbone in model.backbones),
        "InputDataSource": "Pixels of one DICOM projection radiograph; no metadata enters the network.",
        "OutputAndInputDataTypes": "Grey-level image in; number, category, set of labels and image out.",
        "DevelopmentDataCharacterization": (
            f"{manifest.data.training_images} training images; calibrated on {manifest.calibration.n} further ones. "
            "Sites and regions: model_card.md of the bundle."
        ),
        "BiasMitigationApproaches": (
            "Patients are split for life and near-duplicates share a side; slices by site, device, view, region, age, "
            "sex and hour are reported, and what is too small to judge is named."
        ),
        "OngoingMaintenance": UNFILLED,
    }


def _metrics(found: Evaluation) -> dict[str, Content]:
    high, measured = found.points, [s for s in found.slices if s.verdict == "measured"]
    useful = {
        "AUROC": found.auroc,
        "Sensitivity at the high-sensitivity point": high.high_sensitivity.sensitivity,
        "Specificity at the high-sensitivity point": high.high_sensitivity.specificity,
        "Sensitivity at the high-specificity point": high.high_specificity.sensitivity,
        "Specificity at the high-specificity point": high.high_specificity.specificity,
    }
    fair = {
        f"{name} of {s.column} {s.value}": value
        for s in measured
        for name, value in (("Sensitivity", s.sensitivity), ("Specificity", s.specificity))
        if value is not None
    }
    safe = {"Brier score": found.reliability.brier, "Share left to a person": found.review.share}
    if found.sets:
        promised = f"promised {1 - found.sets.alpha:g}"
        safe[f"Prediction sets that hold a fracture ({promised})"] = found.sets.fracture_covered
        safe[f"Prediction sets that hold a non-fracture ({promised})"] = found.sets.no_fracture_covered
    return {
        "UsefulnessUsabilityEfficacy": _metric(found, "Tell fractures from non-fractures.", useful),
        "FairnessEquity": _metric(found, "Serve no group of patients worse than the rest.", fair),
        "SafetyReliability": _metric(found, "Say how sure it is, and leave the rest to a person.", safe),
    }


def _metric(found: Evaluation, goal: str, figures: Mapping[str, Estimate]) -> dict[str, Content]:
    """One of the schema's three; it wants one result at least, and says so where nothing could be measured."""
    results: list[Content] = [{"Label": name, "ValueJson": _json(value)} for name, value in figures.items()]
    return {
        "MetricGoal": goal,
        "Results": {"MetricResult": results or [{"Label": "not measured: too few images", "ValueJson": "null"}]},
        "Interpretation": "Intervals are of 95% and over patients; n counts images.",
        "TestType": "Internal: sealed test patients of the same archive.",
        "TestingDataDescription": (
            f"{found.images} images of {found.patients} patients, {found.positives} with and {found.negatives} without "
            f"a fracture; SHA-256 {found.test_sha256}; {found.evidence}."
        ),
        "ValidationProcessAndJustification": (
            "The released bundle itself judged the archive's own pixels at thresholds that were frozen before; see "
            "evaluation.json and report.html beside this card."
        ),
    }


def _json(value: Estimate) -> str:
    return json.dumps({"value": value.value, "low": value.low, "high": value.high, "n": value.n}, allow_nan=False)


def _unfilled(content: Content, path: str = "") -> Iterator[str]:
    """Paths of the elements that say UNFILLED."""
    if isinstance(content, str):
        if content == UNFILLED:
            yield path
    elif isinstance(content, Mapping):
        for name, inner in content.items():
            yield from _unfilled(inner, f"{path}/{name}".strip("/"))


def _grow(parent: ElementTree.Element, name: str, content: Content) -> None:
    for one in content if isinstance(content, list) else [content]:
        element = ElementTree.SubElement(parent, name)
        if isinstance(one, str):
            # A site's name may hold what XML forbids; lines of a use become one.
            element.text = "".join(c for c in " ".join(one.split()) if c.isprintable())
        elif isinstance(one, Mapping):
            for inner, value in one.items():
                _grow(element, inner, value)
