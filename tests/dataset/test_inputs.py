"""The suite `images` on what comes in says tonight what the next build will say, and nothing about labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.dataset.expectations import image_checks, judge, reasons_of
from components.dataset.facts import image_facts
from components.dataset.inputs import judge_batch, judge_predictions
from components.dataset.inspect import inspect
from components.dataset.limits import Limits, SiteLimits
from components.dataset.usual import Usual
from components.radiograph.appearance import LENGTH
from tests.dataset.tables import OPEN

IMAGES = OPEN.model_copy(
    update={"min_side_px": 64, "max_saturation": 0.6, "min_grey_levels": 16, "min_field_fraction": 0.05}
)


@pytest.fixture
def batch(home, make, tmp_path):
    """Six images, one of them with a side of 40 pixels, behind another batch of two."""
    earlier = [make.shot(n, make.jpeg(make.picture(n, rows=40, columns=40))) for n in (21, 22)]
    home.take_in(make.fracatlas(tmp_path / "earlier", earlier))
    shots = [make.shot(n, make.jpeg(make.picture(n)), "01"[n % 2]) for n in range(1, 7)]
    shots[2].data = make.jpeg(make.picture(3, rows=60, columns=40))
    return home.take_in(make.fracatlas(tmp_path / "source", shots)).batch


def judged(home, batch, limits=None):
    return judge_batch(studies=home.studies, batch=batch, limits=limits or Limits(), params=IMAGES)


def test_an_image_that_fails_is_named_with_its_reason(home, batch):
    found = judged(home, batch)

    assert (found.images, found.by_check()) == (6, {"min_side_px": 1})
    assert [failure.reasons for failure in found.failures] == [("min_side_px",)]
    assert found.text() == "Quality: 1 of 6 images fail the suite `images` (min_side_px 1)."


def test_the_next_build_will_say_the_same(home, batch):
    """Every image and reason, on the features that the build measures; pictures of opposite labels aside."""
    inspect(catalog=home.entries(), studies=home.studies, features=home.folder / "features")
    table = home.catalog()
    table = table[table["batch"] == batch].assign(label=np.nan, picture_id=table["image_id"])
    checks = [check for check in image_checks(IMAGES, {}) if check.name != "label_conflict"]
    verdicts = judge(checks, {"images": image_facts(table, home.folder / "features", {})})
    reasons = reasons_of(table["image_id"], verdicts)

    assert [(f.image_id, ";".join(f.reasons)) for f in judged(home, batch).failures] == [
        (image_id, said) for image_id, said in zip(table["image_id"], reasons, strict=True) if said
    ]


def test_a_site_is_asked_by_the_limits_it_learned(home, batch):
    own = SiteLimits(images=200, max_saturation=1.0, min_grey_levels=0, min_field_fraction=0.0, min_sharpness=1e9)

    found = judged(home, batch, Limits(sites={"fracatlas": own}))

    assert found.by_check() == {"min_side_px": 1, "min_sharpness": 6}


def test_pictures_unlike_those_of_their_site_are_told_tonight(home, batch):
    """They fail nothing."""
    usual = Usual(center=(9.0,) * LENGTH, axes=tuple((0.0,) * k + (1.0,) for k in range(LENGTH)))
    own = {"max_saturation": 1.0, "min_grey_levels": 0, "min_field_fraction": 0.0, "min_sharpness": 0.0}

    found = judged(home, batch, Limits(sites={"fracatlas": SiteLimits(images=200, **own, usual=usual)}))

    assert (len(found.strange), len(found.failures)) == (6, 1)
    assert found.text().endswith("(min_side_px 1). 6 look unlike the others of their site: look at them.")


def test_a_batch_without_new_images_says_nothing(home, batch):
    found = judged(home, "000009-nothing")

    assert (found.images, found.checks, found.failures) == (0, (), ())


def window(n: int = 10, **columns) -> pd.DataFrame:
    good = {"saturation": 0.01, "grey_levels": 200, "field_fraction": 0.9, "sharpness": 50.0, "polarity_ok": True}
    return pd.DataFrame({"image_id": [f"image-{k}" for k in range(n)], "site": "a"} | good | columns)


def predicted(table: pd.DataFrame):
    return judge_predictions(table, limits=Limits(), params=IMAGES)


def test_production_images_that_no_training_set_would_have_are_named():
    found = predicted(window(saturation=[0.9] * 3 + [0.01] * 7))

    assert found.by_check() == {"max_saturation": 3}
    assert [failure.image_id for failure in found.failures] == ["image-0", "image-1", "image-2"]
    assert found.share == pytest.approx(0.3)


def test_noise_is_refused_where_the_log_has_it():
    """A log of before noise had a limit is asked for nothing that it does not hold."""
    limits = IMAGES.model_copy(update={"max_noise": 0.08})
    noisy = judge_predictions(window(noise=[0.1] + [0.01] * 9), limits=Limits(), params=limits)

    assert noisy.by_check() == {"max_noise": 1}
    assert judge_predictions(window(), limits=Limits(), params=limits).failures == ()


def test_an_image_of_before_a_feature_was_measured_does_not_fail_by_it():
    """Old and new predictions in one window: clutter is asked of the new ones."""
    limits = IMAGES.model_copy(update={"max_clutter": 50.0})
    found = judge_predictions(window(4, clutter=[60.0, 1.0, None, None]), limits=Limits(), params=limits)

    assert [failure.image_id for failure in found.failures] == ["image-0"]


def test_what_the_suite_only_warns_of_is_no_failure():
    warn = IMAGES.warn.model_copy(update={"min_cnr": 3.0})
    found = judge_predictions(window(cnr=1.0), limits=Limits(), params=IMAGES.model_copy(update={"warn": warn}))

    assert found.failures == ()
    assert "cnr" not in [check.name for check in found.checks]


def test_a_measurement_that_failed_is_a_failure():
    """The log holds None where a measurement was no number."""
    assert predicted(window(sharpness=[None] + [50.0] * 9)).by_check()["measured"] == 1


def test_an_image_that_was_judged_twice_counts_once():
    table = pd.concat([window(saturation=0.9), window(saturation=0.9)])

    assert (predicted(table).images, len(predicted(table).failures)) == (10, 10)


def test_an_empty_log_is_no_failure():
    found = predicted(pd.DataFrame(columns=["image_id", "site", "probability"]))

    assert (found.images, found.share, found.failures) == (0, 0.0, ())
