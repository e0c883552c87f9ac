"""What may change between champion and challenger: every field has an aspect, and what nobody named is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from components.errors import ConfigError
from components.params import load
from components.promotion.changes import ASPECTS, changes, fields
from components.serving.bundle import REFERENCE, Backbone, Bundle, Supported
from tests.protocols import REPOSITORY, protocol_of

PARAMS = protocol_of()


@pytest.fixture(scope="module")
def champion(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def other(bundle: Bundle, **manifest) -> SimpleNamespace:
    """The same bundle, whose manifest says something else: what `changes` reads of a bundle."""
    return SimpleNamespace(folder=bundle.folder, manifest=bundle.manifest.model_copy(update=manifest))


def test_every_field_of_a_bundle_has_an_aspect(champion):
    """And every aspect of the protocol is read off some field."""
    assert set(fields(champion)) == set(ASPECTS)
    assert set(ASPECTS.values()) == set(PARAMS.may_change) | set(PARAMS.must_stay)


def test_a_retrained_model_may_follow(champion):
    """New weights and thresholds are what the protocol is for; the record names them."""
    manifest = champion.manifest
    model = manifest.model.model_copy(update={"weights_sha256": "0" * 64, "seed": 7})
    low = manifest.thresholds.high_sensitivity.model_copy(update={"threshold": 0.01})
    points = manifest.thresholds.model_copy(update={"high_sensitivity": low})
    ruling, changed = changes(other(champion, model=model, thresholds=points), champion, PARAMS)

    assert (ruling.verdict, changed) == ("passed", ("weights", "thresholds"))
    assert ruling.checks[1].found == "weights, thresholds"


def test_a_further_backbone_is_another_backbone(champion):
    """Which the protocol may name; a protocol that does not refuses it."""
    model = champion.manifest.model.model_copy(update={"further": (Backbone(name="mobilenet_v2", pretrained=None),)})
    ruling, changed = changes(other(champion, model=model), champion, PARAMS)
    strict = PARAMS.model_copy(update={"may_change": [name for name in PARAMS.may_change if name != "backbone"]})
    refused, _ = changes(other(champion, model=model), champion, strict)

    assert (ruling.verdict, changed) == ("passed", ("backbone",))
    assert refused.reasons[0].startswith("backbone differs from the champion's (model.further), and the protocol does")


def test_other_supported_cases_are_named(champion):
    """What it makes calls on may change, and whoever decides reads how; a protocol can ask it to stay."""
    legs = other(champion, supported=Supported(body_regions=("leg",), views=("frontal",)))
    limbs = other(champion, supported=Supported(body_regions=("arm", "leg"), views=()))
    ruling, changed = changes(limbs, legs, PARAMS)
    may = [name for name in PARAMS.may_change if name != "supported_cases"]
    refused, _ = changes(limbs, legs, PARAMS.model_copy(update={"may_change": may}))

    assert (ruling.verdict, changed) == ("passed", ("supported_cases",))
    assert "(with arm; with any, without frontal)" in refused.reasons[0]


def test_another_intended_use_is_another_submission(champion):
    """Failed for certain, however few images there are; the reason says what differs and what to do."""
    ruling, changed = changes(other(champion, intended_use="triage without a reader"), champion, PARAMS)

    assert (ruling.verdict, ruling.certain, changed) == ("failed", True, ("intended_use",))
    assert ruling.reasons == (
        "intended use differs from the champion's (decision support for research before, triage without a reader "
        "now), and the protocol asks it to stay: such a model is another submission; give it a name of its own "
        "(`gate.model`), or review the protocol.",
    )


def test_what_is_in_neither_list_is_refused(champion):
    """A closed world: an aspect the protocol forgot does not slip through."""
    silent = protocol_of(may_change=tuple(a for a in PARAMS.may_change if a != "backbone"))
    model = champion.manifest.model.model_copy(update={"backbone": "densenet121"})
    ruling, _ = changes(other(champion, model=model), champion, silent)

    assert [check.verdict for check in ruling.checks] == ["passed", "failed"]
    assert "backbone differs from the champion's" in ruling.reasons[0]
    assert "the protocol does not name it" in ruling.reasons[0]


def test_a_new_label_is_refused_and_a_new_site_is_not(champion, tmp_path):
    """The population may grow by hospitals; what the model may say, and of which bones, may not."""
    folder = Path(shutil.copytree(champion.folder, tmp_path / "bundle"))
    reference = pd.read_parquet(folder / REFERENCE)
    reference.loc[0, "site"] = "south"
    reference.to_parquet(folder / REFERENCE)
    grown = SimpleNamespace(folder=folder, manifest=champion.manifest)
    reference.assign(body_region="skull").to_parquet(tmp_path / REFERENCE)
    elsewhere = SimpleNamespace(folder=tmp_path, manifest=champion.manifest)
    words = other(champion, vocabulary=(*champion.manifest.vocabulary, "dislocation"))

    assert changes(grown, champion, PARAMS)[0].verdict == "passed"
    assert changes(grown, champion, PARAMS)[1] == ("sites",)
    assert "body regions differs from the champion's (with skull" in changes(elsewhere, champion, PARAMS)[0].reasons[0]
    assert "(with dislocation)" in changes(words, champion, PARAMS)[0].reasons[0]


def test_what_a_champion_does_not_state_is_told(champion, tmp_path):
    """It cannot be compared: a person is asked to, and the way up is not closed for ever."""
    ruling, _ = changes(champion, other(champion, intended_use=None), PARAMS)
    reverse, _ = changes(other(champion, intended_use=None), champion, PARAMS)

    unknown = pd.read_parquet(champion.folder / REFERENCE).assign(body_region="unknown")
    unknown.to_parquet(tmp_path / REFERENCE)
    nowhere = SimpleNamespace(folder=tmp_path, manifest=champion.manifest)

    assert (ruling.verdict, reverse.verdict) == ("passed", "failed")
    assert changes(champion, nowhere, PARAMS)[0].verdict == "passed"
    assert changes(nowhere, champion, PARAMS)[0].verdict == "failed"
    assert ruling.warnings == ("intended use: the champion's bundle does not state it; compare by hand.",)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("must_stay: [intended_use", "must_stay: [colour", "gate.must_stay.0"),
        ("must_stay: [intended_use", "must_stay: [weights", "weights: both in may_change and in must_stay"),
        ("calibration: warn", "calibration: perhaps", "gate.calibration"),
        ("{columns: [site, device", "{columns: [ward, device", "gate.slices.columns.0"),
    ],
)
def test_an_unknown_word_is_refused(tmp_path, was, now, said):
    """A protocol that names what does not exist protects nothing."""
    text = (REPOSITORY / "params.yaml").read_text()
    assert was in text
    (tmp_path / "params.yaml").write_text(text.replace(was, now))

    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "params.yaml")
