"""A site learns its own thresholds: its images are judged by them, and nobody else's are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset.findings import of_other_code
from components.dataset.keys import write_keyed
from components.dataset.limits import SiteLimits, learn, read_limits, record_limits
from components.dataset.rows import write_rows
from components.dataset.validate import validate
from components.errors import ConfigError, DataError, ExpectationsFailed
from components.params import load

ROLES = ("train", "tune", "calibrate", "test")
OWN = SiteLimits(images=200, max_saturation=0.5, min_grey_levels=20, min_field_fraction=0.1, min_sharpness=0.25)


class Archive:
    """300 images of site `sharp`, then 300 of `soft`, whose detector blurs; every third shows a fracture.

    Sharpness is 50 at the one; at the other it rises from 0.5 to 0.799, below the default limit of 6.
    """

    def __init__(self, folder: Path, params, squares) -> None:
        n, self.squares = 600, squares
        ids = [f"image-{k:03d}" for k in range(n)]
        self.folder, self.params, self.limits = folder, params, folder / "limits.yaml"
        self.code = "0a0a0a0a0a0a"  # that measured
        self.limits.write_text("sites: {}\n")
        self.splits = pd.DataFrame(
            {
                "image_id": ids, "patient_id": ids, "site": ["sharp"] * 300 + ["soft"] * 300, "view": "frontal",
                "body_region": "hand", "sex": "F", "age_years": 30.0, "hardware": None, "device": "d",
                "laterality": "L", "hour": 9.0, "bits_stored": 8, "grouping": "patient", "rows": 300, "columns": 200,
                "label_provenance": "archive", "ai_visible": False, "label": [float(k % 3 == 0) for k in range(n)],
                "role": [ROLES[k % 4] for k in range(n)], "group_id": ids, "near_duplicate_of": None,
                "likeness": np.nan, "picture_id": ids, "withdrawn": False, "shard": "000001-a-0000",
            }
        )  # fmt: skip
        self.features = pd.DataFrame(
            {
                "image_id": ids, "exposure_median": 0.5, "exposure_p1": 0.1, "exposure_p99": 0.9, "saturation": 0.01,
                "grey_levels": 200.0, "field_fraction": 0.9, "noise": 0.01, "cnr": 20.0, "motion": 1.0, "clutter": 1.0,
                "sharpness": [50.0] * 300 + [0.5 + k / 1000 for k in range(300)], "deviation_index": np.nan,
                "polarity_ok": True, "phash": "0" * 16,
            }
        )  # fmt: skip

    def write(self) -> None:
        """Features in two shards, in the order of `features`; `splits` may stand in any."""
        (self.folder / "features").mkdir(exist_ok=True)
        write_rows(self.folder / "splits", self.splits)
        for name, part in (("000001-a", self.features[:400]), ("000002-b", self.features[400:])):
            path = self.folder / "features" / f"{name}-0000.parquet"
            write_keyed(path, pa.Table.from_pandas(part, preserve_index=False), f"{self.code}:{name}")

    def learn(self, site: str = "soft", *, older: bool = False) -> SiteLimits:
        """`older`: the first of the shards was measured before there was an appearance, the second since."""
        self.write()
        if older:
            path = self.folder / "features" / "000002-b-0000.parquet"
            looks = [[float(k), 1.0] for k in range(200)]
            write_keyed(path, pq.read_table(path).append_column("appearance", pa.array(looks)), "new")
        return learn(
            splits=self.folder / "splits", features=self.folder / "features", site=site,
            params=self.params.images,
        )  # fmt: skip

    def validate(self) -> pd.DataFrame:
        self.write()
        validate(
            splits=self.folder / "splits", features=self.folder / "features",
            prepared=self.squares(self.folder / "prepared", self.splits), batches=self.folder / "batches",
            limits=self.limits,
            accepted=self.folder / "accepted", validation=self.folder / "validation", params=self.params,
        )  # fmt: skip
        return pd.read_parquet(self.folder / "accepted")

    @property
    def results(self) -> dict:
        return json.loads((self.folder / "validation" / "results.json").read_text())


@pytest.fixture
def archive(tmp_path, request, make):
    return Archive(tmp_path, load(request.config.rootpath / "params.yaml").validate_, make.squares)


def test_a_site_that_was_refused_as_a_whole_is_judged_by_what_it_learned(archive):
    with pytest.raises(ExpectationsFailed, match=r"max_quarantined expected at most 0.25, found 0.5"):
        archive.validate()
    before = archive.results["quarantined"]["by_reason"]
    record_limits(archive.limits, "soft", archive.learn(), again=False)
    accepted = archive.validate()

    assert before == {"min_sharpness": 300}
    assert list(accepted.loc[~accepted["accepted"], "image_id"]) == ["image-300", "image-301"]  # half a percent


def test_the_others_keep_the_limits_they_had(archive):
    """0.9 is sharp enough for the one site only."""
    record_limits(archive.limits, "soft", archive.learn(), again=False)
    archive.features.loc[[7, 307], "sharpness"] = 0.9
    accepted = archive.validate().set_index("image_id")

    assert accepted.loc["image-007", "reasons"] == "min_sharpness"
    assert accepted.loc["image-307", "accepted"]


def test_the_report_says_which_limits_applied_to_whom(archive):
    record_limits(archive.limits, "soft", archive.learn(), again=False)
    archive.validate()
    told = [
        (v["check"]["site"], v["expected"], v["found"])
        for v in archive.results["verdicts"]
        if v["check"]["name"] == "min_sharpness"
    ]
    page = (archive.folder / "validation" / "index.html").read_text()

    assert told == [
        ("", "at least 6", "0 of 300 images fail"),
        ("soft", "at least 0.5014", "2 of 300 images fail"),
    ]
    assert "<code>min_sharpness</code> of soft</td><td>at least 0.5014</td>" in page
    assert "<code>min_sharpness</code> elsewhere</td><td>at least 6</td>" in page


def test_limits_of_measurements_that_mean_something_else_by_now_are_named(archive):
    record_limits(archive.limits, "soft", archive.learn(), again=False)
    archive.code = "1b1b1b1b1b1b"
    archive.validate()
    found = {finding["name"]: finding["found"] for finding in archive.results["findings"]}

    assert found["limits of other code: soft"] == (
        "learned from measurements of version 0a0a0a0a0a0a, these are of 1b1b1b1b1b1b; "
        "run `osteoflow data limits --site soft --again`"
    )


@pytest.mark.parametrize(
    ("learned", "now", "named"),
    [("0a", "0a", False), ("0a", "1b", True), (None, "1b", True), ("0a", None, False)],
)
def test_limits_are_named_where_it_is_known_that_other_code_measured(learned, now, named):
    sites = {"soft": OWN.model_copy(update={"measured_by": learned})}

    assert bool(of_other_code(sites, now)) == named


def test_limits_of_a_site_without_images_change_nothing(archive):
    archive.features["sharpness"] = 50.0
    record_limits(archive.limits, "nowhere/../else", OWN, again=False)

    assert archive.validate()["accepted"].all()


def test_learned_limits_are_percentiles_rounded_outwards(archive):
    rng = np.random.default_rng(3)
    archive.features["saturation"] = rng.random(600) / 3
    archive.features["grey_levels"] = rng.integers(100, 1000, 600).astype(float)
    learned = archive.learn()
    soft = archive.features.iloc[300:]

    assert learned.images == 300
    assert 0 <= learned.max_saturation - np.percentile(soft["saturation"], 99.5) < 1e-4
    assert 0 <= np.percentile(soft["grey_levels"], 0.5) - learned.min_grey_levels < 1


def test_a_picture_unlike_its_site_is_told_and_shown_and_stays(archive):
    """One of 300 that taught it is far from the others; the same numbers are nothing strange at the other site."""
    looks = np.random.default_rng(1).normal(size=(600, 4)).astype(np.float32)
    looks[[7, 307]] = 9
    archive.features["appearance"] = list(looks)
    record_limits(archive.limits, "soft", archive.learn(), again=False)

    accepted = archive.validate().set_index("image_id")

    assert archive.results["strange"] == ["image-307"]
    assert accepted.loc["image-307", ["accepted", "reasons"]].tolist() == [True, ""]
    assert "strangeness" not in archive.results["quarantined"]["by_reason"]
    found = {finding["name"]: finding["found"] for finding in archive.results["findings"]}
    assert found["strange pictures"] == "1 images look unlike the others of their site; told, not refused"
    assert "image-307" in (archive.folder / "validation" / "index.html").read_text()


def test_what_images_look_like_is_not_asked_where_other_code_measured_it(archive):
    archive.features["appearance"] = list(np.random.default_rng(1).normal(size=(600, 4)).astype(np.float32))
    record_limits(archive.limits, "soft", archive.learn(), again=False)
    archive.features["appearance"] = list(np.full((600, 5), 1e6, np.float32))
    archive.validate()

    assert archive.results["strange"] == []


def test_what_other_checks_refuse_teaches_nothing(archive):
    archive.features.loc[300:309, ["sharpness", "polarity_ok"]] = [0.01, False]
    archive.splits.loc[310:319, "columns"] = 90
    archive.features.loc[310:319, "sharpness"] = 0.01
    learned = archive.learn()

    assert (learned.images, learned.min_sharpness) == (280, 0.5213)


def test_withdrawn_images_teach_nothing(archive):
    archive.splits.loc[300:349, "withdrawn"] = True  # those of the lowest sharpness at this site

    assert archive.learn().images == 250
    assert archive.learn().min_sharpness == 0.5512


def test_a_split_of_before_there_were_withdrawals_teaches(archive):
    archive.splits = archive.splits.drop(columns="withdrawn")

    assert archive.learn().images == 300


def test_learning_again_from_the_same_images_learns_the_same(archive):
    """Limits that were learned do not narrow the next ones."""
    first = archive.learn()
    record_limits(archive.limits, "soft", first, again=False)
    archive.validate()

    assert archive.learn() == first


def test_the_first_thousand_to_arrive_decide(archive):
    """Later images, and the order of the rows in `splits`, do not count."""
    n = 1500
    archive.splits = pd.concat([archive.splits.iloc[:1]] * n).assign(image_id=[f"i{k:04d}" for k in range(n)])
    archive.splits["picture_id"] = archive.splits["image_id"]
    archive.features = pd.concat([archive.features.iloc[:1]] * n, ignore_index=True)
    archive.features["image_id"] = archive.splits["image_id"].to_numpy()[::-1]  # i1499 arrived first
    archive.features["sharpness"] = [8.0] * 1000 + [2.0] * 500
    learned = archive.learn("sharp")
    archive.splits = archive.splits.sample(frac=1, random_state=1)

    assert (learned.images, learned.min_sharpness) == (1000, 8.0)
    assert archive.learn("sharp") == learned


@pytest.mark.parametrize(
    ("site", "said"),
    [("soft", r"'soft': 199 usable image\(s\), it takes 200 .* sharp 401, soft 199"), ("other", "'other': 0 usable")],
)
def test_too_few_images_teach_nothing(archive, site, said):
    archive.splits.loc[:400, "site"] = "sharp"

    with pytest.raises(DataError, match=said):
        archive.learn(site)


@pytest.mark.parametrize("site", ["sharp", "soft"])
def test_half_a_measurement_teaches_nothing(archive, site):
    """A build that was stopped leaves features of old code beside new ones: of the one site all, of the other some."""
    with pytest.raises(DataError, match="measured by code of two versions; run `dvc repro inspect`"):
        archive.learn(site, older=True)


def test_tables_that_are_not_here_name_what_brings_them(archive):
    with pytest.raises(DataError, match="not here; run `dvc pull`, or `dvc repro split`"):
        learn(splits=archive.folder / "splits", features=archive.folder, site="soft", params=archive.params.images)


def test_limits_are_learned_once(archive):
    record_limits(archive.limits, "soft", OWN, again=False)
    before = archive.limits.read_bytes()
    other = OWN.model_copy(update={"min_sharpness": 0.5})

    with pytest.raises(DataError, match="'soft' has limits already, of 200 images; --again replaces them"):
        record_limits(archive.limits, "soft", other, again=False)
    assert archive.limits.read_bytes() == before
    record_limits(archive.limits, "soft", other, again=True)
    assert read_limits(archive.limits).sites == {"soft": other}


def test_another_site_is_added(archive):
    record_limits(archive.limits, "soft", OWN, again=False)
    record_limits(archive.limits, "hôpital", OWN, again=False)

    assert read_limits(archive.limits).sites == {"soft": OWN, "hôpital": OWN}


def test_the_repository_starts_with_no_limits(request):
    assert read_limits(request.config.rootpath / "data" / "limits.yaml").sites == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sites: {}\nplaces: {}\n", "places: Extra inputs are not permitted"),
        ("sites: {a: {images: 200, max_saturation: 0.5, min_grey_levels: 9, min_field_fraction: 0.1, "
         "min_sharpness: 1, min_noise: 3}}\n", "sites.a.min_noise: Extra inputs"),
        ("sites: {a: {images: 200}}\n", "sites.a.max_saturation: Field required"),
        ("", r"\(top\): Input should be"),
        ("sites: {", r"cannot be read \(ParserError\); run `git checkout"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(archive, text, said):
    archive.limits.write_text(text)

    with pytest.raises(ConfigError, match=said):
        archive.validate()
