"""Every way we know to get a model served that nobody approved, tried for real; docs/results.md has the table.

Each ends by asking what the service asks: the approved version answers still, or none does.
"""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.errors import ConfigError, PromotionRefused
from components.promotion.ledger import GENESIS, Ledger, SigningKey, canonical
from tests.promotion.guarded import DOORS, NAME, refused
from tests.promotion.hospital import FAILED, Hospital, Stolen, serves

pytestmark = pytest.mark.slow  # a server, and a model that can serve


@pytest.fixture
def failed(hospital, request) -> int:
    """A version that failed its gate, with a reviewer's words on it."""
    version = hospital.propose(request.node.name, **FAILED)
    hospital.server.set_tag("reviewer", version, "rationale", "I like it")
    return version


@pytest.fixture
def before(hospital) -> str:
    """What serves before the attack."""
    assert hospital.serves.startswith("version ")
    return hospital.serves


@pytest.fixture
def stolen(hospital, failed, tmp_path) -> Stolen:
    return Stolen(hospital, tmp_path, failed)


def test_the_stolen_files_serve_as_they_were(stolen):
    """What the attacks below begin from."""
    assert stolen.serves == {stolen.before} == {stolen.hospital.serves}


# Through the registry's server


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("user", ["engineer", "reviewer", "admin", "osteoflow"])
def test_alias_over_rest_and_over_the_pages_route(hospital, failed, before, user, door):
    """The alias on a version that failed: refused to everybody, by both of the server's doors."""
    assert hospital.server.make_champion(user, failed, door=door).status_code == 403

    hospital.promote()
    assert hospital.serves == before


def test_alias_deleted_then_set(hospital, failed, before):
    """Taken off first, there would be nothing to move: neither step is allowed."""
    server = hospital.server
    gone = {
        user: server.ask(user, "DELETE", "registered-models/alias", name=NAME, alias="champion")
        for user in ("reviewer", "admin")
    }

    assert all(refused(answer, "the alias champion follows the ledger") for answer in gone.values())
    assert refused(server.make_champion("reviewer", failed), "the gate said 'failed'")
    hospital.promote()
    assert hospital.serves == before


def test_stage_rename_and_delete(hospital, failed, before):
    """Whatever could make another version the one that a name points to."""
    version = str(failed)
    calls = [
        ("POST", "model-versions/transition-stage", {"name": NAME, "version": version, "stage": "Production"}),
        ("POST", "registered-models/rename", {"name": NAME, "new_name": "other"}),
        ("DELETE", "registered-models/delete", {"name": NAME}),
        ("DELETE", "model-versions/delete", {"name": NAME, "version": before.removeprefix("version ")}),
    ]
    codes = [hospital.server.ask("admin", method, call, **body).status_code for method, call, body in calls]

    assert codes == [403, 403, 403, 403]
    hospital.promote()
    assert hospital.serves == before


def test_tags_and_description_turned_green(hospital, failed, before):
    """A verdict is not what a tag says."""
    server, version = hospital.server, str(failed)
    green = [
        server.set_tag("reviewer", failed, "osteoflow.verdict", "passed"),
        server.set_tag("reviewer", failed, "osteoflow.proposer", "nobody"),
        server.ask("reviewer", "PATCH", "model-versions/update", name=NAME, version=version, description="passed"),
    ]

    assert [answer.status_code for answer in green] == [403, 403, 403]
    assert refused(server.make_champion("reviewer", failed), "the gate said 'failed'")
    assert hospital.serves == before


def test_promote_model_copies(hospital, failed, before):
    """The button "Promote model", into another model and back: a copy has no verdict, and what failed is not copied."""
    server = hospital.server
    for name in ("copies", "more"):
        server.ask("engineer", "POST", "registered-models/create", name=name)
    approved = before.removeprefix("version ")

    def copy(source: str, into: str) -> Any:
        return server.ask("engineer", "POST", "model-versions/create", name=into, source=f"models:/{source}")

    assert refused(copy(f"{NAME}/{failed}", "copies"), "only a version that passed its gate can be copied")
    assert copy(f"{NAME}/{approved}", "copies").status_code == 200
    assert refused(copy("copies/1", NAME), "only a version that passed its gate can be copied")
    again = copy(f"{NAME}/{approved}", NAME).json()["model_version"]["version"]
    assert refused(hospital.say_yes(int(again)), "nobody is on record as its proposer")
    hospital.promote()
    assert hospital.serves == before


@pytest.mark.parametrize("proposer", ["reviewer", "Reviewer", "REVIEWER"])
def test_ones_own_proposal_in_another_case(hospital, before, request, proposer):
    """One person under two spellings is one person."""
    version = hospital.propose(request.node.name, proposer=proposer)

    assert refused(hospital.say_yes(version), "proposed it; another person has to approve it")
    hospital.promote()
    assert hospital.serves == before


# Behind the server's back: database, artifacts, the service's folder


def sql(hospital: Hospital, statement: str, *values: object) -> int:
    with sqlite3.connect(hospital.state / "mlflow.db", timeout=30) as database:
        changed = database.execute(statement, values).rowcount
    database.close()
    return changed


def test_alias_edited_in_the_database(hospital, failed, before):
    """The service never asks the alias, and `promote` puts it back."""
    changed = sql(hospital, "UPDATE registered_model_aliases SET version = ? WHERE alias = 'champion'", failed)
    carrier = hospital.server.store.at(NAME, "champion").version

    assert (changed, carrier, hospital.serves) == (1, failed, before)
    hospital.promote()
    assert f"version {hospital.server.store.at(NAME, 'champion').version}" == hospital.serves == before


def test_verdict_and_proposer_edited_in_the_database(hospital, failed, before):
    """Tags are a copy; the guard asks the ledger for both."""
    own = hospital.propose("own-behind-the-back", proposer="reviewer")
    edit = "UPDATE model_version_tags SET value = ? WHERE key = ? AND version = ?"
    changed = sql(hospital, edit, "passed", "osteoflow.verdict", failed)
    changed += sql(hospital, edit, "somebody", "osteoflow.proposer", own)

    assert changed == 2
    assert refused(hospital.server.make_champion("reviewer", failed), "the gate said 'failed'")
    assert refused(hospital.say_yes(own), "'reviewer' proposed it")
    assert hospital.serves == before


def replaced(hospital: Hospital, version: int, other: int) -> None:
    """Put the bundle of `other` where the registry keeps that of `version`."""
    with hospital.server.store.client() as client:
        places = [
            Path(client.get_run(hospital.server.store.version(NAME, number).run_id).info.artifact_uri[7:]) / "bundle"
            for number in (version, other)
        ]
    shutil.copytree(places[1], places[0], dirs_exist_ok=True)


def test_artifact_replaced_before_the_approval(hospital, failed, before):
    """What is signed is what was judged, or nothing is."""
    version = hospital.propose("swapped-before")
    replaced(hospital, version, failed)

    assert refused(hospital.say_yes(version), "the registry holds bundle")
    hospital.promote()
    assert hospital.serves == before


def test_artifact_replaced_between_approval_and_roll_out(hospital, failed, before):
    """The bundle is hashed again when it is fetched."""
    version = hospital.propose("swapped-after")
    approved = hospital.server.store.download_bundle(NAME, version, hospital.state / "kept")
    assert hospital.say_yes(version).status_code == 200
    replaced(hospital, version, failed)

    with pytest.raises(PromotionRefused, match="it does not go live"):
        hospital.promote()
    assert hospital.serves == before
    replaced_back = hospital.server.store.version(NAME, version).run_id
    with hospital.server.store.client() as client:  # an approval that stands would wait for ever
        client.log_artifacts(replaced_back, str(approved), "bundle")
    hospital.promote()
    assert hospital.serves == f"version {version}"


def test_bundle_replaced_in_the_services_folder(stolen):
    """Whole, it has another hash; with the old manifest, its parts have. What is in memory goes on."""
    ours = stolen.bundles / stolen.champion.current().bundle.hash
    shutil.copytree(stolen.bundles / stolen.body["bundle_hash"], ours, dirs_exist_ok=True)
    assert (serves(stolen.champion), serves(stolen.restarted())) == (stolen.before, "bundle")

    shutil.copytree(stolen.hospital.bundles / ours.name, ours, dirs_exist_ok=True)
    (ours / "model.tflite").write_bytes((ours / "model.tflite").read_bytes()[:-1] + b"\0")
    assert (serves(stolen.champion), serves(stolen.restarted())) == (stolen.before, "bundle")


# With the ledger's file in hand


def test_decision_record_edited(stolen):
    """A pass written over a failure: the hash says so, and a damaged ledger gives no model."""
    whole = stolen.ledger.path.read_bytes()
    stolen.ledger.path.write_bytes(whole.replace(b'"verdict":"failed","version"', b'"verdict":"passed","version"'))

    assert stolen.ledger.path.read_bytes() != whole
    assert stolen.serves == {"ledger"}


def test_ledger_rewritten_with_new_hashes(stolen):
    """Every hash made right again: signatures are over the old ones."""
    stolen.rewrite(lambda entries: entries[0]["body"].update(proposer="nobody"))

    assert stolen.serves == {"ledger"}


def test_end_of_the_ledger_rewritten(stolen):
    """Behind the last signature no signature breaks; the witness, kept with the keys, remembers what stood there."""
    stolen.rewrite(lambda entries: entries[-1]["body"].update(verdict="passed"))

    assert Ledger(stolen.ledger.path).verify() > 0
    assert stolen.serves == {"ledger"}


def test_ledger_cut_off(stolen):
    """Rolled back to an earlier champion's day, or to the first day: shorter than what was seen."""
    lines = stolen.ledger.path.read_bytes().splitlines(keepends=True)

    for kept in (len(lines) - 1, 3, 0):
        stolen.ledger.path.write_bytes(b"".join(lines[:kept]))
        assert stolen.serves == {"ledger"}


def test_roll_out_without_an_approval(stolen):
    """An entry anyone can append names the bundle; no signed approval covers it."""
    stolen.ledger.append("rollout", stolen.body | {"approval_hash": GENESIS})

    assert stolen.serves == {"unsigned"}


def test_approval_without_a_signature(stolen):
    approval = stolen.ledger.append("approval", stolen.body | {"approver": "reviewer", "decision_hash": GENESIS})
    stolen.ledger.append("rollout", stolen.body | {"approval_hash": approval.hash})

    assert stolen.serves == {"unsigned"}


def test_approval_of_another_version_replayed(stolen):
    """A roll-out that borrows a true approval of another bundle."""
    (true, *_) = stolen.ledger.entries("approval")
    stolen.ledger.append("rollout", stolen.body | {"approval_hash": true.hash})

    assert stolen.serves == {"unsigned"}


def test_approval_of_another_ledger_replayed(stolen, tmp_path):
    """The reviewer's own key, their true signature, from another ledger: it is over that ledger's chain."""
    other = Ledger(tmp_path / "other.jsonl")
    key = SigningKey.open(stolen.hospital.keys, "reviewer")
    signed = other.append("approval", stolen.body | {"approver": "reviewer", "decision_hash": GENESIS}, key=key)
    last = stolen.ledger.entries()[-1]
    stolen.rewrite(lambda entries: entries.append(signed.model_dump()))

    assert stolen.ledger.path.read_bytes().splitlines()[last.seq] == canonical(last.model_dump())
    assert stolen.serves == {"ledger"}


def test_signature_forged(stolen):
    """A signature of the right form, of nobody's making."""
    forged = {"signer": "reviewer", "signature": "ab" * 64}
    public = SigningKey.open(stolen.hospital.keys, "reviewer").public_key
    last = stolen.ledger.entries()[-1].model_dump()
    body = stolen.body | {"approver": "reviewer", "decision_hash": GENESIS}
    stolen.rewrite(lambda e: e.append(last | forged | {"kind": "approval", "body": body, "public_key": public}))

    assert stolen.serves == {"ledger"}


def test_own_key_under_the_reviewers_name(stolen, tmp_path):
    """A name signs with one key for the life of a ledger."""
    mine = SigningKey.open(tmp_path / "mine", "reviewer")

    with pytest.raises(ConfigError, match="signed with another key before"):
        stolen.ledger.append("approval", stolen.body | {"approver": "reviewer"}, key=mine)
    assert stolen.serves == {stolen.before}


def test_own_key_under_a_new_name(stolen, tmp_path):
    """Decision, approval and roll-out in perfect form, by somebody whose key this site does not know."""
    stolen.release(SigningKey.open(tmp_path / "mine", "reviewer-b"))

    assert stolen.serves == {"unsigned"}


def test_role_given_by_a_stranger(stolen, tmp_path):
    """An engineer of this site, with a key that it knows, is made a reviewer by somebody whom it does not know."""
    role = {"person": "engineer-b", "roles": ["reviewer"], "user": "operator-b"}
    stolen.ledger.append("role", role, key=SigningKey.open(tmp_path / "mine", "operator-b"))
    stolen.release(SigningKey.open(stolen.hospital.keys, "engineer-b"))

    assert stolen.serves == {"unsigned"}


def test_stop_lifted_by_a_stranger(stolen, tmp_path):
    """Anybody's stop counts; who resumes has to be known."""
    strange = SigningKey.open(tmp_path / "mine", "stranger")
    stolen.ledger.append("stop", {"user": "stranger", "reason": "doubts"}, key=strange)
    stolen.ledger.append("resume", {"user": "stranger", "reason": "no doubts"}, key=strange)

    assert stolen.serves == {"stopped"}


@pytest.mark.parametrize("whose", ["nobody", "stranger", "reviewer"])
def test_rollback_to_what_never_served(stolen, tmp_path, whose):
    """Approved once and overtaken: a rollback is a known person's signed word about what was rolled out before."""
    folders = {"stranger": tmp_path / "mine", "reviewer": stolen.hospital.keys}
    keys = {name: SigningKey.open(folder, name) for name, folder in folders.items()}
    stolen.approve(keys["reviewer"])
    stolen.ledger.append("rollback", stolen.body | {"user": whose, "reason": "back"}, key=keys.get(whose))

    assert stolen.serves == {"unsigned"}


# Two at once; last, because it changes who is champion


def test_two_approvals_at_once(hospital):
    """Two versions that passed beside one champion, approved and rolled out at once: one of them serves, approved."""
    first, second = hospital.propose("twin-1"), hospital.propose("twin-2")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(hospital.say_yes, (first, second)))
        list(pool.map(lambda _: hospital.promote(), range(4)))

    rollouts = [e for e in hospital.ledger.entries("rollout") if e.body["version"] in (first, second)]
    signed = {e.hash: e for e in hospital.ledger.entries("approval")}
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(rollouts) == 1
    assert signed[rollouts[0].body["approval_hash"]].signer == "reviewer"
    assert hospital.serves == f"version {rollouts[0].body['version']}"
