"""Registering: everything about a build is in MLflow once, and a repeat or a kill changes nothing."""

from __future__ import annotations

import os

import pytest

from components.errors import BundleCorrupt, ConfigError, DataError, Unavailable
from components.promotion.register import Registry

NAME = "osteoflow-fracture"


@pytest.fixture
def first(registry, propose):
    """The registry after one build."""
    assert propose(registry, "one") == 1
    return registry


def test_a_version_says_where_it_came_from(first):
    """Proposer, commit, data, build key and bundle hash are on the version; no verdict yet."""
    (version,) = first.versions(NAME)

    assert (version.proposer, version.git_commit, version.data_sha256) == ("engineer", "c" * 40, "d" * 64)
    assert (version.build_key, version.verdict, version.aliases) == ("one", None, ("challenger",))
    assert version.bundle_hash == "34a45580983d15c4891fd5c10cf7bdd1362f4d5f6a237c544ab28b4c211cf83c"


def test_a_version_says_how_good_its_evidence_is(first):
    """In the registry too, on the version and on its run, beside the figures."""
    (version,) = first.versions(NAME)
    with first.client() as client:
        tags = client.get_run(version.run_id).data.tags

    assert version.evidence == "weak grouping"
    assert tags["osteoflow.evidence"] == "weak grouping"


def test_figures_carry_their_interval_and_denominator(first):
    """An estimate is four metrics; lists stay in the artifact."""
    metrics = first.versions(NAME)[0].metrics

    assert {k: v for k, v in metrics.items() if not k.startswith("epoch")} == {
        "auroc": 0.91,
        "auroc.low": 0.88,
        "auroc.high": 0.94,
        "auroc.n": 400.0,
        "ece": 0.02,
        "build_wall_seconds": 12.5,
    }


def test_learning_curves_have_one_point_an_epoch(first):
    """Epochs count from 1."""
    with first.client() as client:
        points = client.get_metric_history(first.versions(NAME)[0].run_id, "epoch.loss")

    assert [(point.step, point.value) for point in points] == [(1, 0.7), (2, 0.5)]


def test_parameters_and_data_are_logged(first):
    """Every choice of params.yaml by its dotted key, no paths; the data set with a digest MLflow can hold."""
    with first.client() as client:
        run = client.get_run(first.versions(NAME)[0].run_id)

    assert run.data.params["train.augment.rotate_degrees"] == "20"
    assert run.data.params["evaluate.prevalences"] == "[0.05, 0.2]"
    assert [key for key in run.data.params if key.startswith("paths")] == []
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == "d" * 32
    assert {tag.key: tag.value for tag in data.tags}["osteoflow.sha256"] == "d" * 64


def test_the_bundle_comes_back_byte_for_byte(first, tmp_path):
    """What is downloaded is what was registered."""
    folder = first.download_bundle(NAME, 1, tmp_path / "fetched")

    weights = "0b58304e84fd78c3ce0421116fbde92ed848ccea3aee4f2ff04489e1a49157eb"
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        "manifest.json": f'{{"parts": {{"model.tflite": "{weights}"}}}}',
        "model.tflite": "weights one",
    }
    assert [p.name for p in tmp_path.glob(".fetch-*")] == []


def test_report_and_card_are_artifacts(first):
    """A reviewer opens report.html in the UI; the card for machines lies beside it."""
    with first.client() as client:
        files = client.list_artifacts(first.versions(NAME)[0].run_id, "evaluation")

    assert [file.path for file in files] == [
        f"evaluation/{name}" for name in ("evaluation.json", "model_card.xml", "report.html")
    ]


def test_the_same_build_again_makes_nothing_new(registry, made_build):
    """Idempotent by build key: one version, one run."""
    assert made_build("one").register(registry) == 1
    assert made_build("one").register(registry) == 1

    with registry.client() as client:
        runs = client.search_runs([registry.experiment(NAME)])
    assert (len(registry.versions(NAME)), len(runs)) == (1, 1)


def test_a_run_that_was_killed_half_way_is_closed_and_replaced(registry, made_build):
    """A version never stands on half a run."""
    experiment = registry.experiment(NAME)
    with registry.client() as client:
        client.create_run(experiment, tags={"osteoflow.build_key": "one"})

    assert made_build("one").register(registry) == 1

    with registry.client() as client:
        states = sorted(run.info.status for run in client.search_runs([experiment]))
    assert states == ["FINISHED", "KILLED"]


def test_a_kill_between_run_and_version_uses_the_finished_run(registry, made_build):
    """What was logged completely is not logged again."""
    made_build("one").register(registry)
    with registry.client() as client:
        client.delete_model_version(NAME, "1")

    assert made_build("one").register(registry) == 2

    with registry.client() as client:
        assert len(client.search_runs([registry.experiment(NAME)])) == 1


def test_the_newest_build_is_the_challenger(first, propose):
    """The alias moves; an old build registered again does not take it back."""
    propose(first, "two")

    assert [(v.version, v.aliases) for v in first.versions(NAME)] == [(2, ("challenger",)), (1, ())]


def test_the_bundles_are_those_that_mlflow_tells(first, propose, tmp_path):
    """Its own tables are read: one of three versions was deleted there, and one registered by hand."""
    for key in ("another", "a third"):
        propose(first, key)
    with first.client() as client:
        client.delete_model_version(NAME, "2")
        client.create_model_version(NAME, source=tmp_path.as_uri())
    told = {version.version: version.bundle_hash for version in first.versions(NAME) if version.bundle_hash}

    assert list(told) == [3, 1]
    assert first.bundles(NAME) == told


def test_no_store_has_no_bundles(tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", artifact_root=tmp_path / "artifacts")

    assert registry.bundles(NAME) == {}


def test_a_build_without_its_parts_is_refused_before_anything_is_logged(registry, made_build):
    """No manifest, no evaluation: nothing is registered."""
    made = made_build("one")
    (made.evaluation / "evaluation.json").unlink()
    with pytest.raises(DataError, match=r"evaluation.json: missing or not JSON; run `evaluate`"):
        made.register(registry)
    (made.bundle / "manifest.json").unlink()
    with pytest.raises(BundleCorrupt, match=r"no manifest.json that names its parts; run `export`"):
        made.register(registry)

    assert registry.versions(NAME) == []


def test_an_unknown_version_names_the_known_ones(first):
    """Every call that takes a version says which exist."""
    with pytest.raises(ConfigError, match="there is no version 7; registered: 1"):
        first.tag(NAME, 7, "note", "x")
    with pytest.raises(ConfigError, match="there is no version 1; registered: none"):
        first.describe("other", 1, "x")


def test_a_server_that_does_not_answer_is_unavailable(tmp_path):
    """The only error a flow retries."""
    registry = Registry("http://127.0.0.1:9", artifact_root=tmp_path)

    with pytest.raises(Unavailable, match=r"'http://127.0.0.1:9'\) does not answer"):
        registry.versions(NAME)


def test_a_password_is_in_no_message():
    """Neither the address nor the repr shows it."""
    registry = Registry("postgresql://osteoflow:secret@db/mlflow", artifact_root=None)  # type: ignore[arg-type]

    assert repr(registry) == "Registry('db/mlflow')"


def test_the_login_leaves_the_environment_again(tmp_path, monkeypatch):
    """MLflow reads it from the environment; nobody else should."""
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    registry = Registry("http://127.0.0.1:9", artifact_root=tmp_path, username="engineer", password="secret")

    with pytest.raises(Unavailable):
        registry.versions(NAME)
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_registering_says_nothing(tmp_path, made_build, capfd):
    """No migration log, no progress bar, no warning reaches the terminal, the first time neither."""
    registry = Registry(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", artifact_root=tmp_path / "artifacts")
    made_build("one").register(registry)
    registry.download_bundle(NAME, 1, made_build("one").build.folder / "fetched")

    assert capfd.readouterr() == ("", "")


def test_tags_descriptions_and_aliases_are_set(first):
    """What the gate writes onto a version is read back from it."""
    first.tag(NAME, 1, "osteoflow.verdict", "passed")
    first.tag(NAME, 1, "rationale", "fewer misses")
    first.describe(NAME, 1, "| metric | value |")
    first.set_alias(NAME, 1, "champion")
    first.delete_alias(NAME, "challenger")

    version = first.version(NAME, 1)
    assert (version.verdict, version.rationale) == ("passed", "fewer misses")
    assert (version.description, version.aliases) == ("| metric | value |", ("champion",))
