"""What is asked beside accuracy: each condition met, not met and not known, as a demand and as a warning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.model.evaluation import Foreign, Polarity, Reliability
from components.model.statistics import Estimate
from components.promotion import conditions
from components.serving.bundle import Bundle, Parity
from tests.protocols import protocol_of

PARAMS = protocol_of()
SLOPE = Estimate(1.0, 0.9, 1.1, 400)
LINE = Reliability(
    brier=Estimate(0.1, 0.08, 0.12, 400), slope=SLOPE, intercept=SLOPE, ece=0.03, ece_null_mean=0.03, ece_null_95=0.05,
    consistent=True,
)  # fmt: skip


def blank(*, abstained: bool) -> Foreign:
    return Foreign(picture="blank film", probability=0.9, call="fracture", abstained=abstained, warnings=())


def test_calibration():
    """Near 1 and within chance passes; an error beyond chance does not; where no line fits, nothing is known."""
    strict = protocol_of(calibration="require")
    off = LINE.model_copy(update={"ece": 0.2, "consistent": False})
    separated = LINE.model_copy(update={"slope": None, "intercept": None, "consistent": False})

    assert conditions.calibration(LINE, strict).verdict == "passed"
    assert conditions.calibration(off, strict).verdict == "failed"
    assert conditions.calibration(separated, strict).verdict == "inconclusive"
    told = conditions.calibration(off, PARAMS)
    assert (told.verdict, told.checks[0].verdict) == ("passed", "warned")
    assert told.warnings == ("Probabilities are not shown to be calibrated on the test set.",)


@pytest.mark.parametrize(
    ("parity", "verdict"),
    [
        (Parity(difference=1e-6, flips=0, images=64), "passed"),
        (Parity(difference=0.02, flips=0, images=64), "failed"),
        (Parity(difference=0.005, flips=4, images=64), "failed"),
        (None, "inconclusive"),
    ],
)
def test_the_released_graph_is_held_to_what_export_measured(tiny_bundle, parity, verdict):
    """A difference, flipped calls, and a bundle that does not say."""
    manifest = Bundle.open(tiny_bundle).manifest.model_copy(update={"parity": parity})

    assert conditions.released(manifest, PARAMS).verdict == verdict


def test_a_hidden_heat_map_is_told_or_refused(tiny_bundle):
    """With the reason it is hidden for."""
    manifest = Bundle.open(tiny_bundle).manifest
    hidden = manifest.heat_map.model_copy(update={"shown": False, "reasons": ("it points nowhere",)})
    bundle = manifest.model_copy(update={"heat_map": hidden})

    assert conditions.released(bundle, PARAMS).checks[1].found == "hidden: it points nowhere"
    assert conditions.released(bundle, PARAMS).verdict == "passed"
    assert conditions.released(bundle, protocol_of(heat_map="require")).verdict == "failed"


def test_polarity_must_not_matter():
    """A tenth of a probability between the two is a reader that misreads; no twin was scored: not known."""
    assert conditions.polarity(Polarity(images=60, largest_difference=0.0), PARAMS).verdict == "passed"
    assert conditions.polarity(Polarity(images=60, largest_difference=0.1), PARAMS).verdict == "failed"
    assert conditions.polarity(Polarity(images=0, largest_difference=0.0), PARAMS).verdict == "inconclusive"


def test_what_is_no_radiograph_gets_no_call():
    """It is named, with the call it got."""
    strict = protocol_of(foreign="require")
    ruling = conditions.foreign([blank(abstained=False)], strict)

    assert conditions.foreign([blank(abstained=True)], strict).verdict == "passed"
    assert conditions.foreign([], strict).verdict == "inconclusive"
    assert ruling.reasons == ("Not turned away: blank film (fracture); the protocol requires it.",)


def test_a_slow_machine_is_told():
    """A clock of this machine: a warning by default."""
    assert conditions.latency(900, PARAMS).checks[0].verdict == "passed"
    assert conditions.latency(1500, PARAMS).checks[0].verdict == "warned"
    assert conditions.latency(1500, protocol_of(latency={"demand": "require", "max_ms": 1000})).verdict == "failed"


def archive(images: int, *, leak: float) -> pd.DataFrame:
    """Images whose site tells the label in a share `leak` of them."""
    random = np.random.default_rng(0)
    label = (np.arange(images) % 2).astype(float)
    told = np.where(random.random(images) < leak, label, random.integers(0, 2, images))
    return pd.DataFrame(
        {
            "label": label, "patient_id": [f"p{n}" for n in range(images)], "hardware": False, "rows": 100,
            "columns": 100, "bits_stored": 8, "age_years": np.nan, "hour": np.nan, "device": "A", "body_region": "hand",
            "view": "frontal", "sex": "F", "site": np.where(told == 1, "north", "south"),
        }
    )  # fmt: skip


def test_a_label_that_the_site_tells_is_told_of():
    """Half of the images: AUROC about .75; none: chance; too few: not known."""
    strict = protocol_of(shortcut={"demand": "require", "max_auroc": 0.7})

    assert conditions.shortcut(archive(400, leak=0.5), strict).verdict == "failed"
    assert conditions.shortcut(archive(400, leak=0.0), strict).verdict == "passed"
    assert conditions.shortcut(archive(4, leak=0.0), strict).verdict == "inconclusive"
    assert conditions.shortcut(archive(400, leak=0.0)[["label", "site"]], strict).verdict == "inconclusive"


def matched(table: pd.DataFrame, scores: np.ndarray):
    return conditions.matched(
        table, table["label"].to_numpy(), scores, table["patient_id"].to_numpy(), PARAMS,
        least=30, resamples=300, seed=0,
    )  # fmt: skip


def test_a_network_that_reads_the_site_fails():
    """It scores .85 over all, and chance among images of one site; one that sees the bone keeps what it has."""
    table, random = archive(400, leak=0.7), np.random.default_rng(1)
    site = (table["site"] == "north") + random.normal(0, 0.1, 400)
    bone = table["label"] + random.normal(0, 0.7, 400)

    assert matched(table, np.asarray(site)).verdict == "failed"
    assert matched(table, np.asarray(bone)).verdict == "passed"


def test_sites_of_one_class_each_cannot_be_told_from_fractures():
    """Positives of one source and negatives of another: what was learned is not known, and that is no pass."""
    table = archive(400, leak=1.0)

    assert matched(table, np.asarray(table["label"] * 0.5)).verdict == "inconclusive"
