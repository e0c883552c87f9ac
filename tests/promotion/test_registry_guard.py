"""The guard, asked the way people and the UI ask it: a real server, real users, both ways in."""

from __future__ import annotations

import json
from types import SimpleNamespace

import httpx
import pytest

from components.errors import ConfigError, PromotionRefused
from components.promotion.approve import roll_out
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.register import Registry
from components.promotion.registry_guard import first_people, server_command
from components.promotion.registry_rules import Rules
from components.promotion.roles import give
from components.settings import Settings
from tests.promotion.guarded import DOORS, NAME, refused
from tests.protocols import AT_ONCE


@pytest.fixture
def failed(server, propose, judge, request) -> int:
    """A fresh version that failed its gate."""
    version = propose(server.store, f"{request.node.name}-failed")
    judge(server.ledger, server.store, version, verdict="failed")
    return version


@pytest.mark.parametrize("door", DOORS)
def test_an_engineer_makes_no_champion(server, passed, door):
    """403, and the reason is in the answer's own error form."""
    assert refused(server.make_champion("engineer", passed, door=door), "'engineer' is no reviewer")
    assert "champion" not in server.store.version(NAME, passed).aliases


@pytest.mark.parametrize("user", ["admin", "osteoflow"])
def test_neither_admin_nor_a_flow_makes_a_champion(server, passed, user):
    """Being allowed everything else does not make a reviewer."""
    assert refused(server.make_champion(user, passed), f"'{user}' is no reviewer")


@pytest.mark.parametrize("door", DOORS)
def test_strangers_are_not_let_in(server, passed, door):
    """No login, no answer; a wrong password neither."""
    wrong = httpx.post(f"{server.url}{door}/registered-models/alias", json={}, auth=("reviewer", "guess"), timeout=60)

    assert server.make_champion(None, passed, door=door).status_code == 401
    assert wrong.status_code == 401


@pytest.mark.parametrize("door", DOORS)
def test_a_reviewer_gives_a_reason_first(server, passed, door):
    """Without the tag `rationale` there is nothing to sign."""
    assert refused(
        server.make_champion("reviewer", passed, door=door), "add the tag 'rationale' with your reason first"
    )


def test_a_reviewer_cannot_approve_what_failed(server, failed):
    """The gate's verdict is not advice."""
    assert server.set_tag("reviewer", failed, "rationale", "I like it").status_code == 200

    assert refused(server.make_champion("reviewer", failed), "the gate said 'failed'")
    assert [e for e in server.ledger.entries("approval") if e.body["version"] == failed] == []


def test_a_reviewer_cannot_approve_what_was_not_judged(server, propose):
    """No decision, no champion."""
    version = propose(server.store, "unjudged")
    server.set_tag("reviewer", version, "rationale", "fewer misses")

    assert refused(server.make_champion("reviewer", version), "the gate has not judged it")


def test_a_reviewer_cannot_approve_their_own(server, propose, judge):
    """The proposer is on record since the build was registered."""
    version = propose(server.store, "own", proposer="reviewer")
    judge(server.ledger, server.store, version)
    server.set_tag("reviewer", version, "rationale", "mine")

    assert refused(server.make_champion("reviewer", version), "'reviewer' proposed it; another person")


@pytest.mark.parametrize("alias", ["Champion", "CHAMPION"])
def test_no_other_spelling_passes(server, passed, alias):
    """A store that ignores case would take it for the champion."""
    answer = server.ask("engineer", "POST", "registered-models/alias", name=NAME, alias=alias, version=str(passed))

    assert refused(answer, "the alias is written 'champion'")


def test_the_rationale_is_a_reviewers_own(server, passed):
    """An engineer cannot put words into a reviewer's mouth."""
    assert refused(server.set_tag("engineer", passed, "rationale", "great"), "the rationale is a reviewer's")


@pytest.mark.parametrize("user", ["engineer", "reviewer", "admin"])
def test_our_tags_and_the_description_are_the_pipelines(server, failed, user):
    """Nobody turns a failed version green by hand; the flows' account writes both."""
    version = str(failed)
    assert refused(server.set_tag(user, failed, "osteoflow.verdict", "passed"), "written by the pipeline alone")
    gone = server.ask(user, "DELETE", "model-versions/delete-tag", name=NAME, version=version, key="osteoflow.proposer")
    assert gone.status_code == 403
    told = server.ask(user, "PATCH", "model-versions/update", name=NAME, version=version, description="all fine")
    assert refused(told, "an engineer registers" if user == "reviewer" else "the pipeline writes it")

    assert server.set_tag("osteoflow", failed, "osteoflow.verdict", "failed").status_code == 200
    assert server.set_tag(user, failed, "note", "looked at twice").status_code == 200


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("user", ["engineer", "reviewer", "admin"])
def test_evidence_stays(server, passed, user, door):
    """No version, no model is deleted, renamed or staged, by anyone, through any door."""
    version = str(passed)
    calls = [
        ("DELETE", "model-versions/delete", {"name": NAME, "version": version}),
        ("DELETE", "registered-models/delete", {"name": NAME}),
        ("POST", "registered-models/rename", {"name": NAME, "new_name": "other"}),
        ("POST", "model-versions/transition-stage", {"name": NAME, "version": version, "stage": "Production"}),
    ]
    codes = [server.ask(user, method, call, door=door, **body).status_code for method, call, body in calls]

    assert codes == [403, 403, 403, 403]
    assert server.store.version(NAME, passed).version == passed


def test_only_a_version_that_passed_is_copied(server, passed, failed):
    """The UI's button "Promote model" copies a version into another registered model."""
    server.ask("engineer", "POST", "registered-models/create", name="copies")

    def copy(version: int, scheme: str = "models") -> httpx.Response:
        return server.ask(
            "engineer", "POST", "model-versions/create", name="copies", source=f"{scheme}:/{NAME}/{version}"
        )

    assert refused(copy(failed), "only a version that passed its gate can be copied")
    assert refused(copy(failed, "MODELS"), "only a version that passed its gate can be copied")
    assert copy(passed).status_code == 200


def test_a_new_version_tells_the_truth_about_itself(server, passed):
    """Who registers through the server proposes in their own name, without a verdict or a rationale."""
    run = server.store.version(NAME, passed).run_id
    with server.store.client() as client:
        source = f"{client.get_run(run).info.artifact_uri}/bundle"

    def create(key: str, value: str) -> httpx.Response:
        tags = [{"key": key, "value": value}]
        return server.ask("engineer", "POST", "model-versions/create", name=NAME, source=source, run_id=run, tags=tags)

    assert refused(create("osteoflow.proposer", "monitor"), "'engineer' cannot propose in the name of 'monitor'")
    assert refused(create("osteoflow.verdict", "passed"), "the gate gives the verdict")
    assert refused(create("rationale", "great"), "a reviewer gives the rationale after the gate")
    assert create("osteoflow.proposer", "engineer").status_code == 200


def test_a_broken_ledger_lets_nothing_through(server, passed):
    """Doubt is no yes: the answer names the entry."""
    server.set_tag("reviewer", passed, "rationale", "fewer misses")
    sound = server.settings.ledger_path.read_bytes()
    try:
        server.settings.ledger_path.write_bytes(sound.replace(b'"failed"', b'"passed"', 1))
        answer = server.make_champion("reviewer", passed)
    finally:
        server.settings.ledger_path.write_bytes(sound)

    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "its content does not match its hash" in answer.json()["message"]


def test_what_everyone_needs_still_works(server, passed):
    """Reading versions and runs, the challenger's alias, a request nobody guards."""
    for user in ("engineer", "reviewer", "monitor", "osteoflow"):
        login = (user, server.passwords[user])
        page = httpx.get(
            f"{server.url}{DOORS[1]}/model-versions/get",
            params={"name": NAME, "version": passed},
            auth=login,
            timeout=60,
        )
        assert page.json()["model_version"]["name"] == NAME
    body = {"name": NAME, "alias": "challenger", "version": str(passed)}
    assert server.ask("engineer", "POST", "registered-models/alias", **body).status_code == 200


@pytest.mark.parametrize("call", ["config", "message", "sessions/x", "providers/ollama/health"])
def test_the_chat_assistant_is_not_there(server, call):
    """MLflow's own would run commands on the server and ask outside providers; also the admin finds nothing."""
    login = ("admin", server.passwords["admin"])
    found = httpx.get(f"{server.url}/ajax-api/3.0/mlflow/assistant/{call}", auth=login, timeout=60)

    assert found.status_code == 404


def test_the_registry_works_through_the_server(server, tmp_path, made_build):
    """The flows' account registers a build over HTTP; an engineer's refusal arrives as PromotionRefused."""
    team = Registry(server.url, artifact_root=tmp_path, username="osteoflow", password=server.passwords["osteoflow"])
    version = made_build("over-http").register(team)
    team.describe(NAME, version, "| a | b |")
    assert team.version(NAME, version).description == "| a | b |"
    assert (team.download_bundle(NAME, version, tmp_path / "got") / "model.tflite").read_bytes() == b"weights over-http"

    engineer = Registry(server.url, artifact_root=tmp_path, username="engineer", password=server.passwords["engineer"])
    with pytest.raises(PromotionRefused, match="'engineer' is no reviewer"):
        engineer.set_alias(NAME, version, "champion")
    stranger = Registry(server.url, artifact_root=tmp_path, username="engineer", password="guess")
    with pytest.raises(ConfigError, match="set OSTEOFLOW_USER and OSTEOFLOW_MLFLOW_PASSWORD"):
        stranger.versions(NAME)


@pytest.mark.parametrize("door", DOORS)
def test_a_reviewers_alias_is_a_signed_approval(server, passed, door):
    """Accepted: the alias moves, the ledger holds who, why and which bundle; roll_out follows; it stays."""
    assert server.set_tag("reviewer", passed, "rationale", "fewer misses").status_code == 200

    assert server.make_champion("reviewer", passed, door=door).status_code == 200

    approval = server.ledger.entries("approval")[-1]
    assert (approval.signer, approval.body["version"]) == ("reviewer", passed)
    assert (approval.body["approver"], approval.body["rationale"]) == ("reviewer", "fewer misses")
    assert approval.body["bundle_hash"] == server.store.version(NAME, passed).bundle_hash
    assert "champion" in server.store.version(NAME, passed).aliases
    (entry,) = roll_out(ledger=server.ledger, registry=server.store, name=NAME, plan=AT_ONCE, compared=lambda _: [])
    assert (entry.kind, entry.body["version"]) == ("rollout", passed)
    assert server.make_champion("osteoflow", passed).status_code == 200
    gone = server.ask("reviewer", "DELETE", "registered-models/alias", door=door, name=NAME, alias="champion")
    assert gone.status_code == 403


def test_the_passwords_are_for_their_owner_alone(server):
    """0600, and written once."""
    state = server.settings.state

    assert {p.name: p.stat().st_mode & 0o777 for p in (state / "mlflow-users.json", state / "basic_auth.ini")} == {
        "mlflow-users.json": 0o600,
        "basic_auth.ini": 0o600,
    }
    assert sorted(json.loads((state / "mlflow-users.json").read_text())) == [
        "admin",
        "engineer",
        "monitor",
        "osteoflow",
        "reviewer",
    ]
    assert first_people(server.settings).items() <= server.passwords.items()


def test_a_secret_is_in_no_argument(tmp_path):
    """Arguments are readable by every process of the machine."""
    settings = Settings(
        workspace=tmp_path, state_dir=tmp_path, key_dir=tmp_path / "keys", user="operator",
        mlflow_tracking_uri="postgresql://u:secret@db/mlflow",
    )  # fmt: skip

    argv, env = server_command(settings)

    assert not any("secret" in word or first_people(settings)["admin"] in word for word in argv)
    assert env["MLFLOW_BACKEND_STORE_URI"] == "postgresql://u:secret@db/mlflow"


def test_a_server_needs_a_store(tmp_path):
    """Pointing the server at a server is a configuration error."""
    settings = Settings(workspace=tmp_path, state_dir=tmp_path, mlflow_tracking_uri="https://mlflow.hospital.example")

    with pytest.raises(ConfigError, match="the server itself needs its store"):
        server_command(settings)


def test_a_version_that_is_no_number_is_refused(tmp_path):
    """Whatever MLflow would make of it."""
    ledger, key = Ledger(tmp_path / "ledger.jsonl"), SigningKey.open(tmp_path / "keys", "operator")
    give(ledger=ledger, person="reviewer", roles=("reviewer",), user="operator", key=key)
    rules = Rules(ledger=ledger, registry=Registry("sqlite://", artifact_root=tmp_path), key_dir=tmp_path / "keys")

    with pytest.raises(PromotionRefused, match="that is no version number"):
        rules.set_alias(SimpleNamespace(name=NAME, alias="champion", version="²"), "reviewer")
