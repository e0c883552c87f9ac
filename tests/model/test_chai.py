"""The card as XML: the elements of CHAI's schema v0.2, what the evaluation found, and what nobody filled."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from components.model.chai import NAMESPACE, UNFILLED, render
from components.model.evaluation import WEAK, CountFigures, Heads
from components.model.statistics import Estimate
from components.serving.bundle import Backbone, Bundle, Pretrained, Regions
from tests.model.figures import evaluation

# What the schema asks for and in which order, read from it: an element with its children, `?` where it may be missing,
# `+` where it repeats. The same structure was found valid against the schema itself.
METRIC = (
    "MetricGoal", ("Results", ("MetricResult+", "Label", "ValueJson")), "Interpretation", "TestType",
    "TestingDataDescription", "ValidationProcessAndJustification",
)  # fmt: skip
SCHEMA = (
    "AppliedModelCard",
    ("BasicInfo", "ModelName", "ModelDeveloper", "DeveloperContact"),
    ("ReleaseInfo", "ReleaseStage", "ReleaseDate", "ReleaseVersion", "GlobalAvailability",
     ("EHRCompatibility?", "EHR+?"), "RegulatoryApproval?"),
    ("ModelSummary", "Summary", ("Keywords", "Keyword+?")),
    ("UsesAndDirections", "IntendedUseAndWorkflow", "PrimaryIntendedUsers", "HowToUse", "TargetedPatientPopulation",
     "CautionedOutOfScopeSettings"),
    ("Warnings", "KnownRisksAndLimitations", "KnownBiasesOrEthicalConsiderations", "ClinicalRiskLevel"),
    ("TrustIngredients",
     ("AISystemFacts", "OutcomesAndOutputs", "ModelType", "FoundationModels?", "InputDataSource",
      "OutputAndInputDataTypes", "DevelopmentDataCharacterization", "BiasMitigationApproaches", "OngoingMaintenance",
      "Security?", "Transparency?"),
     ("TransparencyInformation", "FundingSource", "ThirdPartyInformation?", "StakeholdersConsulted")),
    ("KeyMetrics",
     ("UsefulnessUsabilityEfficacy", *METRIC), ("FairnessEquity", *METRIC), ("SafetyReliability", *METRIC)),
    ("Resources", "EvaluationReferences?", "ClinicalTrial?", "PeerReviewedPublications", "ReimbursementStatus?",
     "PatientConsentOrDisclosure"),
    "Bibliography",
)  # fmt: skip


COUNTS = CountFigures(error=Estimate(0.2, 0.1, 0.3, 50), on_fractures=None, of_none=0.3, uncounted=0)


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path):
    return Bundle.open(tiny_bundle).manifest


@pytest.fixture(scope="module")
def card(manifest) -> ElementTree.Element:
    return ElementTree.fromstring(render(evaluation(manifest)[0], manifest))


def problems(element: ElementTree.Element, asked) -> list[str]:
    """Where `element` and the schema part: what is missing, out of order or too many."""
    name, *inner = [asked] if isinstance(asked, str) else asked
    children, found = list(element), []
    if not inner:
        return [f"{name} holds elements"] if children else []
    for one in inner:
        label = one if isinstance(one, str) else one[0]
        plain = f"{{{NAMESPACE}}}{label.rstrip('?+')}"
        matched = 0
        while children and children[0].tag == plain and (matched == 0 or "+" in label):
            found += problems(children.pop(0), one)
            matched += 1
        if not matched and "?" not in label:
            found.append(f"{name} lacks {label}")
    return found + [f"{name} has {child.tag} too much" for child in children]


def at(card: ElementTree.Element, path: str) -> str:
    return card.find("/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/"))).text


def test_it_has_the_elements_of_the_schema_in_their_order(card):
    assert card.tag == f"{{{NAMESPACE}}}AppliedModelCard"
    assert problems(card, SCHEMA) == []


def test_results_are_the_evaluation_s_with_interval_and_denominator(card, manifest):
    found = evaluation(manifest)[0]
    results = {at(r, "Label"): json.loads(at(r, "ValueJson")) for r in card.iter(f"{{{NAMESPACE}}}MetricResult")}

    assert results["AUROC"] == {
        "value": found.auroc.value, "low": found.auroc.low, "high": found.auroc.high, "n": found.auroc.n
    }  # fmt: skip
    assert results["Sensitivity of site north <b>"]["n"] == 64
    assert "Sensitivity of site south" not in results


def test_what_nobody_filled_is_said_and_listed(card):
    """Each required element that people have to write, and no other."""
    empty = [e.tag.split("}")[1] for e in card.iter() if e.text == UNFILLED]
    summary = at(card, "ModelSummary/Summary")

    assert {"DeveloperContact", "FundingSource", "ClinicalRiskLevel", "PatientConsentOrDisclosure"} <= set(empty)
    assert f"not filled by anyone ({len(empty)}): " in summary
    assert all(f"/{name}" in summary or f" {name}" in summary for name in empty)
    assert "BasicInfo/DeveloperContact" in summary
    assert "ModelName" not in summary


def test_body_region_and_number_are_named_where_the_bundle_tells_them(manifest):
    """With why its word holds no case back; a bundle that tells neither is silent."""
    regions = Regions(names=("hand", "leg"), accuracy=None, sure=None, heeded=False, reasons=("0 images",))
    outputs = "TrustIngredients/AISystemFacts/OutcomesAndOutputs"
    found = evaluation(manifest)[0]
    plain, told = (
        at(ElementTree.fromstring(render(found.model_copy(update={"heads": heads}), made)), outputs)
        for made, heads in (
            (manifest, None),
            (manifest.model_copy(update={"regions": regions}), Heads(regions=None, counts=COUNTS)),
        )
    )

    assert plain == "A fracture anywhere on the single image: probability, call, prediction set, heat map."
    assert told == (
        f"{plain} It also names the body region (hand, leg): a contradiction holds no case back (0 images). "
        "It also expects a number of fractures, which is reported and decides nothing."
    )


def test_every_backbone_and_its_weights_are_named(manifest):
    origin = Pretrained(name="v2.h5", source="local file", licence="Apache-2.0", sha256="0" * 64)
    model = manifest.model.model_copy(update={"further": (Backbone(name="mobilenet_v2", pretrained=origin),)})
    both = manifest.model_copy(update={"model": model})
    card = ElementTree.fromstring(render(evaluation(both)[0], both))

    facts = "TrustIngredients/AISystemFacts"
    assert at(card, f"{facts}/ModelType").startswith("Convolutional network residual and mobilenet_v2, ")
    assert at(card, f"{facts}/FoundationModels") == (
        f"residual: random weights; mobilenet_v2: v2.h5, from local file, licence Apache-2.0, SHA-256 {'0' * 64}"
    )


def test_lines_of_a_use_become_one(manifest):
    said = manifest.model_copy(update={"intended_use": "for research,\nand no other use\n"})
    card = ElementTree.fromstring(render(evaluation(said)[0], said))

    assert at(card, "UsesAndDirections/IntendedUseAndWorkflow") == "for research, and no other use"


def test_weak_grouping_is_a_known_limitation(manifest):
    weak = evaluation(manifest)[0].model_copy(update={"evidence": WEAK})
    card = ElementTree.fromstring(render(weak, manifest))

    assert "Weak grouping." in at(card, "Warnings/KnownRisksAndLimitations")


def test_without_a_slice_to_judge_fairness_is_not_measured(manifest):
    """One result is required, and it is no figure."""
    none = evaluation(manifest)[0].model_copy(update={"slices": ()})
    card = ElementTree.fromstring(render(none, manifest))

    assert problems(card, SCHEMA) == []
    assert at(card, "KeyMetrics/FairnessEquity/Results/MetricResult/ValueJson") == "null"
