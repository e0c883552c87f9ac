"""People at the guarded server: what each role may ask, and that a change counts from the next request on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest

from components.errors import ConfigError, LedgerCorrupt
from components.promotion.accounts import AUTHENTICATE, CONFIG, Accounts, generate, read_passwords
from components.promotion.approve import approve, roll_out
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.people import People
from components.promotion.register import Registry
from components.promotion.registry_guard import first_people, require_guard
from components.promotion.registry_rules import Rules
from components.promotion.roles import Roll, give
from components.settings import Settings
from tests.promotion.conftest import REPOSITORY
from tests.promotion.guarded import DOORS, NAME, refused
from tests.protocols import AT_ONCE


def live(server):
    """What the flow enters now, without stages."""
    return roll_out(ledger=server.ledger, registry=server.store, name=NAME, plan=AT_ONCE, compared=lambda _: [])


@pytest.fixture(scope="module")
def people(server) -> People:
    """The people of the running server, as `osteoflow users` reaches them on its machine."""
    settings = server.settings
    return People(
        ledger=server.ledger, accounts=Accounts.of(settings.state / CONFIG), state=settings.state, user="operator",
        key=SigningKey.open(settings.key_dir, "operator"),
    )  # fmt: skip


@pytest.fixture
def add(server, people, request):
    """`add(role, ...)`: somebody new with these roles; returns the name, for `server.ask`."""

    def act(*roles, name=None):
        person = name or f"{roles[0]}-{abs(hash(request.node.name)) % 10**6}-{len(server.passwords)}"
        server.passwords[person] = generate()
        people.add(person, roles, server.passwords[person])
        return person

    return act


def versions(server, user):
    return server.ask(user, "GET", f"registered-models/get?name={NAME}").status_code


def test_a_monitor_reads_and_writes_nothing(server, passed, add):
    """Searches are posts and still reads; every write is refused with the reason, through each door of the server."""
    monitor, version = add("monitor"), str(passed)
    run = server.store.version(NAME, passed).run_id
    experiment = server.store.experiment(NAME)
    reads = [
        ("GET", f"model-versions/get?name={NAME}&version={version}", {}),
        ("GET", f"runs/get?run_id={run}", {}),
        ("POST", "runs/search", {"experiment_ids": [experiment]}),
        ("POST", "experiments/search", {"max_results": 5}),
        ("POST", "registered-models/get-latest-versions", {"name": NAME}),
    ]
    writes = [
        ("POST", "runs/create", {"experiment_id": experiment}),
        ("POST", "runs/log-metric", {"run_id": run, "key": "auroc", "value": 1, "timestamp": 0}),
        ("POST", "runs/delete", {"run_id": run}),
        ("POST", "experiments/create", {"name": "mine"}),
        ("POST", "registered-models/create", {"name": "mine"}),
        ("POST", "registered-models/set-tag", {"name": NAME, "key": "a", "value": "b"}),
        ("POST", "model-versions/set-tag", {"name": NAME, "version": version, "key": "note", "value": "b"}),
        ("POST", "registered-models/alias", {"name": NAME, "alias": "challenger", "version": version}),
    ]
    for door in DOORS:
        assert [server.ask(monitor, method, call, door=door, **body).status_code for method, call, body in reads] == (
            [200] * 5
        )
        for method, call, body in writes:
            said = server.ask(monitor, method, call, door=door, **body)
            assert refused(said, f"'{monitor}' (monitor) reads; an engineer registers and edits")
    login = (monitor, server.passwords[monitor])
    for path in ("/v1/traces", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y"):
        assert refused(httpx.post(f"{server.url}{path}", auth=login, timeout=60), "(monitor) reads")


def test_a_reviewer_registers_nothing_and_an_engineer_does(server, add):
    reviewer, engineer = add("reviewer"), add("engineer")

    said = server.ask(reviewer, "POST", "registered-models/create", name="theirs")
    assert refused(said, f"'{reviewer}' (reviewer) reads and approves; an engineer registers and edits")
    assert server.ask(engineer, "POST", "registered-models/create", name="theirs").status_code == 200
    said = server.ask(reviewer, "POST", "model-versions/create", name="theirs", source="mlflow-artifacts:/theirs")
    assert refused(said, "a reviewer copies what passed its gate; an engineer registers and edits")


def test_who_has_no_role_sees_nothing(server, people):
    """An account that was made past `osteoflow users`."""
    server.passwords["stranger"] = generate()
    people.accounts.open("stranger", server.passwords["stranger"])

    answer = server.ask("stranger", "GET", f"registered-models/get?name={NAME}")
    assert refused(answer, "'stranger' has no role here; `osteoflow users` gives one")
    people.remove("stranger")
    assert versions(server, "stranger") == 401


@pytest.mark.parametrize("door", DOORS)
def test_accounts_change_on_record_alone(server, add, door):
    """Not even MLflow's administrator makes, takes over or promotes an account through the server."""
    victim = add("reviewer")
    calls = [
        ("POST", "users/create", {"username": "secret-reviewer", "password": generate()}),
        ("PATCH", "users/update-password", {"username": victim, "password": generate()}),
        ("PATCH", "users/update-admin", {"username": victim, "is_admin": True}),
        ("DELETE", "users/delete", {"username": victim}),
    ]
    for user in ("admin", "engineer"):
        for method, call, body in calls:
            said = server.ask(user, method, call, door=door, **body)
            assert refused(said, "accounts are managed with `osteoflow users`, which puts them on record")
    assert versions(server, victim) == 200


def test_everybody_changes_their_own_password(server, add):
    """Also who only reads; the old one is worth nothing at once."""
    reader, new = add("reader"), generate()
    old = server.passwords[reader]
    body = {"username": reader, "password": new, "current_password": old}

    assert server.ask(reader, "PATCH", "users/update-password", **body).status_code == 200
    assert versions(server, reader) == 401
    server.passwords[reader] = new
    assert versions(server, reader) == 200


def test_changes_count_from_the_next_request_on(server, people, add, passed):
    """Role, password, removal, return: no restart, no waiting, and each is signed into the ledger."""
    person = add("monitor")
    assert refused(server.set_tag(person, passed, "rationale", "margins hold"), "(monitor) reads")

    people.set_roles(person, ["reviewer"])
    assert server.set_tag(person, passed, "rationale", "margins hold").status_code == 200

    old, new = server.passwords[person], generate()
    people.set_password(person, new)
    assert versions(server, person) == 401
    server.passwords[person] = new
    assert versions(server, person) == 200

    people.remove(person)
    assert versions(server, person) == 401
    server.passwords[person] = old
    people.add(person, ["monitor"], old)
    assert refused(server.set_tag(person, passed, "rationale", "margins hold"), "(monitor) reads")
    said = [e for e in server.ledger.entries("role") if e.body["person"] == person]
    assert [(e.body["roles"], e.signer) for e in said] == [
        (["monitor"], "operator"), (["reviewer"], "operator"), ([], "operator"), (["monitor"], "operator"),
    ]  # fmt: skip


def test_a_removed_signers_word_stays(server, people, add, passed):
    """The approval keeps its signature and goes live; the name can sign in no more, and is still pinned to its key."""
    person = add("reviewer")
    server.set_tag(person, passed, "rationale", f"words of {person}")
    assert server.make_champion(person, passed).status_code == 200
    people.remove(person)

    assert server.make_champion(person, passed).status_code == 401
    assert [e.body["version"] for e in live(server)] == [passed]
    approval = server.ledger.entries("approval")[-1]
    assert (approval.signer, server.ledger.verify() > 0) == (person, True)
    assert (server.settings.key_dir / f"sign-{person}.pem").is_file()


def test_two_signers_in_the_ui(server, add, propose, judge):
    """The first alias is a signature and a 403 that says who is missing; the second reviewer brings their own words."""
    first, second = add("reviewer"), add("reviewer")
    version = propose(server.store, "two-signers")
    judge(server.ledger, server.store, version, signers=2)
    server.set_tag(first, version, "rationale", "fewer misses")

    assert refused(server.make_champion(first, version), "signed 1 of 2; another reviewer has to sign")
    assert refused(server.make_champion(first, version, door=DOORS[1]), "signed 1 of 2")
    assert live(server) == []
    assert "champion" not in server.store.version(NAME, version).aliases
    assert refused(server.make_champion(second, version), f"holds the words that '{first}' signed; write your own")
    server.set_tag(second, version, "rationale", "read the misses, agree")
    assert server.make_champion(second, version, door=DOORS[1]).status_code == 200

    said = [e for e in server.ledger.entries("approval") if e.body["version"] == version]
    assert [(e.signer, e.body["rationale"]) for e in said] == [
        (first, "fewer misses"), (second, "read the misses, agree"),
    ]  # fmt: skip
    assert [e.body["version"] for e in live(server)] == [version]


def test_a_reader_countersigns_and_not_in_mlflow(server, add, propose, judge):
    """The alias waits for them; the server says where they sign, and lets them write nothing."""
    reviewer, reader = add("reviewer"), add("reader")
    version = propose(server.store, "countersigned")
    judge(server.ledger, server.store, version, signers={"reviewer": 1, "reader": 1})
    server.set_tag(reviewer, version, "rationale", "fewer misses")
    said = server.make_champion(reviewer, version)
    assert refused(said, "signed 1 of 2; a reader has to sign with `osteoflow approve`")
    for said in (server.make_champion(reader, version), server.set_tag(reader, version, "rationale", "agreed")):
        assert refused(said, f"'{reader}' (reader) reads here and countersigns with `osteoflow approve`; an engineer")
    approve(
        ledger=server.ledger, registry=server.store, name=NAME, version=version, approver=reader,
        rationale="read the misses", key=SigningKey.open(server.settings.key_dir, reader),
    )  # fmt: skip

    assert server.make_champion(reviewer, version).status_code == 200
    assert [e.body["version"] for e in live(server)] == [version]


def test_mlflows_own_refusal_is_in_a_form_that_its_pages_show(server, passed):
    """Its two words of plain text would be `INTERNAL_ERROR` there."""
    said = server.ask("reviewer", "DELETE", "registered-models/alias", name=NAME, alias="challenger")

    assert refused(said, "MLflow's own permissions leave this to whoever made it")


@pytest.mark.slow
def test_the_commands(server):
    """`osteoflow users`: the password is shown once and works, or comes from standard input; never from an argument."""
    settings = server.settings
    environment = os.environ | {
        "OSTEOFLOW_WORKSPACE": str(settings.workspace), "OSTEOFLOW_STATE_DIR": str(settings.state),
        "OSTEOFLOW_KEY_DIR": str(settings.key_dir), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip

    def users(*arguments, given=None):
        command = [sys.executable, "-m", "flows.cli", "users", *arguments]
        return subprocess.run(
            command, cwd=settings.workspace, env=environment, input=given, capture_output=True, text=True
        )

    added = users("add", "reviewer-z", "--role", "reviewer", "--role", "engineer", "--as", "operator")
    assert added.returncode == 0, added.stderr
    server.passwords["reviewer-z"] = added.stdout.split("shown this once: ")[1].strip()
    assert versions(server, "reviewer-z") == 200
    chosen = "correct horse battery"
    assert chosen not in users("password", "reviewer-z", "--password-stdin", given=f"{chosen}\n").stdout
    server.passwords["reviewer-z"] = chosen
    assert versions(server, "reviewer-z") == 200
    listed = json.loads(users("list", "--json").stdout)["people"]
    (person,) = [p for p in listed if p["name"] == "reviewer-z"]
    assert (person["roles"], person["account"], person["given_by"]) == (["engineer", "reviewer"], True, "operator")
    assert users("remove", "reviewer-z", "--as", "operator").returncode == 0
    assert versions(server, "reviewer-z") == 401


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda p: p.add("engineer", ["reviewer"], generate()), "engineer is here already"),
        (lambda p: p.add("reviewer-n", [], generate()), "at least one role is needed"),
        (lambda p: p.add("reviewer-n", ["reviewer"], "short"), "at least 12 characters"),
        (lambda p: p.set_roles("nobody", ["reviewer"]), "nobody of this name has an account"),
        (lambda p: p.set_password("nobody", generate()), "nobody of this name has an account"),
        (lambda p: p.remove("nobody"), "nobody of this name was ever here"),
        (lambda p: p.add("Admin", ["reviewer"], generate()), "admin is the server's own account"),
        (lambda p: p.remove("admin"), "admin is the server's own account"),
    ],
)
def test_what_cannot_be_is_refused(people, act, reason):
    with pytest.raises(ConfigError, match=reason):
        act(people)


def test_who_was_removed_does_not_come_back_with_a_restart(tmp_path):
    """The first people are named once: a removed one is not made again, a changed password is not replaced."""
    settings = Settings(workspace=tmp_path, state_dir=tmp_path / "state", key_dir=tmp_path / "keys", user="operator")
    first = first_people(settings)
    ledger = Ledger(settings.ledger_path)
    people = People(
        ledger=ledger, accounts=Accounts(f"sqlite:///{tmp_path / 'auth.db'}"), state=settings.state, user="operator",
        key=SigningKey.open(settings.key_dir, "operator"),
    )  # fmt: skip
    people.accounts.open("reviewer", first["reviewer"])
    people.set_password("reviewer", generate())
    people.remove("monitor")

    assert first_people(settings) == {name: first[name] for name in ("admin", "engineer", "osteoflow")}
    assert read_passwords(settings.state) == first_people(settings)
    (settings.key_dir / "sign-operator.pem").rename(tmp_path / "operator.pem")  # nor when who removed them has left
    starter = Settings(workspace=tmp_path, state_dir=tmp_path / "state", key_dir=settings.key_dir, user="operator-b")
    assert first_people(starter) == first_people(settings)
    (tmp_path / "operator.pem").rename(settings.key_dir / "sign-operator.pem")
    roll = Roll(ledger.entries())
    assert (roll.of("monitor"), roll.of("reviewer")) == (frozenset(), {"reviewer"})
    # Killed half way: an account without a role gets both, a role that is gone takes the account with it.
    people.accounts.open("reader-a", generate())
    assert people.add("reader-a", ["reader"], generate()).body["roles"] == ["reader"]
    give(ledger=ledger, person="reader-a", roles=(), user="operator", key=people.key)
    people.remove("reader-a")
    assert people.accounts.names() == ["reviewer"]


def test_a_damaged_ledger_names_nobody_and_stops_no_start(tmp_path):
    """`osteoflow up` still starts the clinic page; the guard refuses everybody until the ledger is repaired."""
    settings = Settings(workspace=tmp_path, state_dir=tmp_path / "state", key_dir=tmp_path / "keys", user="operator")
    first = first_people(settings)
    settings.ledger_path.write_bytes(settings.ledger_path.read_bytes().replace(b'"reviewer"', b'"engineer"', 1))

    assert first_people(settings) == first
    rules = Rules(
        ledger=Ledger(settings.ledger_path), registry=Registry("sqlite://", artifact_root=tmp_path), key_dir=tmp_path
    )
    with pytest.raises(LedgerCorrupt, match="its content does not match its hash"):
        rules.admit("reviewer", "GET", "/")


@pytest.mark.parametrize(
    ("function", "secret", "reason"),
    [
        ("mlflow.server.auth:authenticate_request_basic_auth", "a-real-password", "must say authorization_function"),
        (AUTHENTICATE, "CHANGE-ME", "still says CHANGE-ME"),
    ],
)
def test_a_server_that_would_not_ask_the_guard_does_not_start(function, secret, reason):
    """A basic_auth.ini with MLflow's own function, or with what the example says in place of a secret."""
    config = SimpleNamespace(authorization_function=function, database_uri="sqlite:///x.db", admin_password=secret)

    with pytest.raises(ConfigError, match=reason):
        require_guard(config)
