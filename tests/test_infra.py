"""The team set-up: its files parse, name settings that exist, and keep what they promise on ports and secrets."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components.settings import Settings

INFRA = Path(__file__).resolve().parent.parent / "infra"
COMPOSE = INFRA / "compose" / "compose.yaml"
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))


def texts():
    """Every file of infra/, by its path."""
    ours = (p for p in INFRA.rglob("*") if p.is_file() and ".terraform" not in p.parts and p.name != ".env")
    return {path.relative_to(INFRA).as_posix(): path.read_text(encoding="utf-8") for path in ours}


def services():
    return yaml.safe_load(COMPOSE.read_text())["services"]


def resources(kind):
    found = [doc for path in MANIFESTS for doc in yaml.safe_load_all(path.read_text()) if doc]
    return [doc for doc in found if doc["kind"] == kind]


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def test_every_variable_is_a_setting():
    """An OSTEOFLOW_* that components/settings.py does not know would be ignored in silence."""
    known = {f"OSTEOFLOW_{name.upper()}" for name in Settings.model_fields}
    used = {(path, name) for path, text in texts().items() for name in re.findall(r"OSTEOFLOW_[A-Z0-9_]+", text)}

    assert len(used) > 20
    assert sorted((path, name) for path, name in used if name not in known) == []


def test_every_setting_of_a_service_is_explained():
    """README's table names each setting."""
    readme = (INFRA / "README.md").read_text()

    assert [name for name in Settings.model_fields if f"`OSTEOFLOW_{name.upper()}`" not in readme] == []


def test_ports_answer_on_loopback_alone():
    ports = [port for service in services().values() for port in service.get("ports", [])]

    assert sorted(ports) == [
        "127.0.0.1:11112:11112", "127.0.0.1:4200:4200", "127.0.0.1:5000:5000", "127.0.0.1:8080:8080"
    ]  # fmt: skip


def test_compose_asks_for_every_variable_that_the_example_sets():
    """.env.example and compose.yaml name the same variables."""
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text()))
    example = (INFRA / "compose" / ".env.example").read_text()

    assert asked == set(re.findall(r"^([A-Z0-9_]+)=", example, flags=re.MULTILINE))


def test_no_file_holds_a_secret():
    """A password or key is a variable, a file the operator makes, or CHANGE-ME."""
    words = r"(?i)^[^#\n]*(?:password|secret_key|secret_access_key)\"? *[:=] *\"?(?!CHANGE-ME|\$\{)[A-Za-z0-9+/]{8,}"

    assert [
        path for path, text in texts().items() if path != "README.md" and re.search(words, text, re.MULTILINE)
    ] == []


def test_containers_are_not_root_and_cannot_become_it():
    dockerfile = (INFRA / "images" / "Dockerfile").read_text()
    containers = [d["spec"]["template"]["spec"] for d in resources("Deployment")]

    assert re.search(r"^USER 10001:10001$", dockerfile, flags=re.MULTILINE)
    assert len(containers) == 4
    for pod in containers:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_what_serves_http_is_probed():
    served = {doc["metadata"]["name"] for doc in resources("Service")}
    probed = {
        doc["metadata"]["name"]
        for doc in resources("Deployment")
        if {"startupProbe", "readinessProbe", "livenessProbe"} <= set(doc["spec"]["template"]["spec"]["containers"][0])
    }

    assert served == probed == {"prefect", "mlflow", "clinic"}


def test_the_network_starts_closed():
    closed = next(doc for doc in resources("NetworkPolicy") if doc["metadata"]["name"] == "nothing")

    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_commands_are_modules_that_exist():
    """`python -m X` of a container runs a module of this repository."""
    commands = [s["command"] for s in services().values() if isinstance(s.get("command"), list)]
    commands += [d["spec"]["template"]["spec"]["containers"][0]["command"] for d in resources("Deployment")]
    modules = {command[2] for command in commands if command[:2] == ["python", "-m"]}

    assert modules == {"flows", "components.serving"}
    assert all((INFRA.parent / module.replace(".", "/") / "__main__.py").is_file() for module in modules)


def test_the_image_is_built_from_named_parts_alone():
    """State, keys, data and history cannot slip into a layer."""
    ignore = (INFRA.parent / ".dockerignore").read_text().splitlines()
    lines = [line for line in ignore if line and not line.startswith("#")]

    assert lines[0] == "*"
    assert [line for line in lines if line.startswith("!")] == [
        "!pyproject.toml", "!uv.lock", "!README.md", "!LICENSE", "!components", "!flows"
    ]  # fmt: skip


def test_compose_accepts_the_file(tmp_path):
    """`docker compose config` resolves it with the example's variables."""
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("needs the docker compose plugin")
    command = [docker, "compose", "--env-file", str(INFRA / "compose" / ".env.example"), "-f", str(COMPOSE)]
    done = subprocess.run([*command, "--profile", "store", "config", "--quiet"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_kustomize_builds_the_base():
    kubectl = tool("kubectl")
    done = subprocess.run([kubectl, "kustomize", str(INFRA / "kubernetes")], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    built = [doc["kind"] for doc in yaml.safe_load_all(done.stdout)]
    assert (built.count("Deployment"), built.count("Service"), built.count("NetworkPolicy")) == (4, 3, 6)


def test_terraform_is_formatted():
    """Also a syntax check: fmt refuses what it cannot parse."""
    terraform = tool("terraform")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-recursive", str(INFRA / "aws")], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
