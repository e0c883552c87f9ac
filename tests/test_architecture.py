"""The house rules of docs/architecture.md, enforced from the import graph and the tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

from components.__main__ import STEPS

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("dataset", "model", "promotion", "serving", "monitoring", "feedback")
# Knowledge that several rooms need; everything else in a room is a step, and reaches others through the data it wrote.
NOUNS = {
    "components.dataset.inputs",
    "components.dataset.retirements",
    "components.dataset.rows",
    "components.dataset.shortcuts",
    "components.dataset.store",
    "components.model.comparison",
    "components.model.evaluation",
    "components.model.measure",
    "components.model.slices",
    "components.model.statistics",
    "components.promotion.ledger",
    "components.promotion.roles",
    "components.promotion.signers",
    "components.promotion.signing",
    "components.promotion.stages",
    "components.promotion.words",
    "components.serving.bundle",
    "components.serving.caution",
    "components.serving.scope",
    "components.serving.store",
}
OWNERS = {
    "pydicom": ("components.radiograph", "components.serving.results", "components.serving.dicom_node"),
    "highdicom": ("components.serving.results",),
    "pynetdicom": ("components.serving.dicom_node",),
    "great_expectations": ("components.dataset.validate", "components.dataset.expectations"),
    "evidently": ("components.monitoring.drift", "components.monitoring.report"),
    "mlflow": ("components.promotion",),
    "tensorflow": ("components.model",),
    "keras": ("components.model",),
    "prefect": ("flows",),
    "dvc": (),
    "imagecodecs": ("components.radiograph.decoders",),
    "rapidocr_onnxruntime": ("components.radiograph.burned_in",),
}
SETTINGS_READERS = (
    "flows",
    "components.__main__",
    "components.serving.__main__",
    "components.promotion.registry_guard",
)
HEAVY = (
    "tensorflow", "keras", "great_expectations", "evidently", "mlflow", "matplotlib", "highdicom", "sklearn",
    "rapidocr_onnxruntime",
)  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", "flows", include_external_packages=True, cache_dir=None)


def modules(graph: grimp.ImportGraph) -> list[str]:
    return sorted(name for name in graph.modules if name.split(".")[0] in ("components", "flows"))


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "components" and len(parts) > 1 and parts[1] in ROOMS else None


def within(module: str, owners: tuple[str, ...]) -> bool:
    return any(module == owner or module.startswith(f"{owner}.") for owner in owners)


def test_components_know_no_flow(graph):
    """Steps import no orchestration and nothing from `flows`."""
    strays = [
        (module, target)
        for module in modules(graph)
        if module.startswith("components")
        for target in graph.find_modules_directly_imported_by(module)
        if target.split(".")[0] in ("flows", "prefect")
    ]

    assert strays == []


def test_radiograph_stands_on_errors_alone(graph):
    """What an X-ray image is depends on no room, no parameters and no settings."""
    targets = {
        target
        for module in modules(graph)
        if module.startswith("components.radiograph")
        for target in graph.find_modules_directly_imported_by(module)
        if target.startswith("components") and not target.startswith("components.radiograph")
    }

    assert targets <= {"components.errors"}


def test_rooms_share_nouns_only(graph):
    """A room imports another room's knowledge, never its steps."""
    strays = [
        (module, target)
        for module in modules(graph)
        if room(module)
        for target in graph.find_modules_directly_imported_by(module)
        if room(target)
        and room(target) != room(module)
        and target not in NOUNS
        and target != f"components.{room(target)}"
    ]

    assert strays == []


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_heavy_library_has_one_owner(graph, library):
    """Only the library's owner imports it, so that replacing it touches one place."""
    users = graph.find_modules_that_directly_import(library) if library in graph.modules else set()

    assert [user for user in sorted(users) if not within(user, OWNERS[library])] == []


def test_settings_are_read_at_the_doors(graph):
    """Effects receive clients as arguments; only entry points know the environment."""
    users = graph.find_modules_that_directly_import("components.settings")

    assert [user for user in sorted(users) if not within(user, SETTINGS_READERS)] == []


def test_importing_does_nothing(graph, tmp_path):
    """No module writes, connects, starts a process, changes the environment, or loads a heavy library on import."""
    names = [name for name in modules(graph) if not name.endswith("__main__")]
    script = f"""
import logging, os, sys
# What libraries do on import is not ours to judge (OpenCV, for one, extends LD_LIBRARY_PATH).
import cv2, prefect, prefect.events, prefect.cache_policies, rich.console, rich.status, rich.table, typer
from prefect import flow, task
def watch(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+") and ".pyc" not in str(args[0]):
        sys.exit(f"{{current}} opens {{args[0]}} for writing")
    if event in ("os.mkdir", "os.rename", "os.remove", "socket.connect", "subprocess.Popen", "sqlite3.connect"):
        if "__pycache__" not in str(args) :
            sys.exit(f"{{current}}: {{event}} {{args}}")
before, handlers = dict(os.environ), list(logging.getLogger().handlers)
heavy = {HEAVY!r}
loaded = set(heavy) & set(sys.modules)
sys.addaudithook(watch)
for current in {names!r}:
    __import__(current)
    if dict(os.environ) != before:
        sys.exit(f"{{current}} changes the environment")
    if logging.getLogger().handlers != handlers:
        sys.exit(f"{{current}} configures logging")
    if new := (set(heavy) & set(sys.modules)) - loaded:
        sys.exit(f"{{current}} imports {{sorted(new)}} before anything asked for it")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("step", sorted(STEPS))
def test_a_stage_depends_on_the_code_it_runs(graph, step):
    """DVC does not follow imports: a stage lists the step and everything of ours that it imports, and nothing else."""
    stage = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"][step]
    declared = {dep for dep in stage["deps"] if dep.endswith((".py", ".j2", ".html"))}
    reached = {STEPS[step]} | graph.find_upstream_modules(STEPS[step])
    params = {"components.params", "components.gate_params"}  # of which DVC compares the values themselves
    ours = {name for name in reached if name.startswith("components.") and name not in params}
    paths = {f"{name.replace('.', '/')}.py" for name in ours}
    wanted = {path for path in paths if (REPOSITORY / path).is_file() and path != "components/errors.py"}
    templates = {dep for dep in declared if not dep.endswith(".py")}

    assert sorted(declared - templates) == sorted(wanted)
    assert all((REPOSITORY / dep).is_file() for dep in templates)


def test_paths_are_written_once():
    """dvc.yaml names data only through params.yaml's `paths`."""
    text = (REPOSITORY / "dvc.yaml").read_text()
    folders = {str(path) for path in yaml.safe_load((REPOSITORY / "params.yaml").read_text())["paths"].values()}

    assert [folder for folder in folders if re.search(rf"(?<![\w/]){re.escape(folder)}(?![\w/])", text)] == []


def test_no_file_outgrows_its_reader():
    """400 lines are two files; a flow fits a screen."""
    files = [path for top in ("components", "flows", "tests") for path in (REPOSITORY / top).rglob("*.py")]
    flows = [REPOSITORY / "flows" / f"{name}.py" for name in ("intake", "retrain", "promote", "monitor", "feedback")]

    assert [str(path) for path in files if len(path.read_text().splitlines()) > 400] == []
    assert [str(path) for path in flows if len(path.read_text().splitlines()) > 80] == []


def test_no_attic():
    """Nothing is called utils, common, helpers, manager or base."""
    names = {path.stem for top in ("components", "flows") for path in (REPOSITORY / top).rglob("*")}

    assert names & {"utils", "util", "common", "helpers", "manager", "base", "misc"} == set()


def test_no_pickle():
    """Nothing of ours loads or writes pickles."""
    sources = [path for top in ("components", "flows") for path in (REPOSITORY / top).rglob("*.py")]
    pattern = re.compile(r"import pickle|joblib|allow_pickle=True|read_pickle|to_pickle|torch\.load")

    assert [str(path) for path in sources if pattern.search(path.read_text())] == []


def test_whoever_opens_the_ledger_knows_keys():
    """Without the key folder the words of strangers would count."""
    sources = [path for top in ("components", "flows") for path in (REPOSITORY / top).rglob("*.py")]
    opened = [call for path in sources for call in re.findall(r"(?<!class )\bLedger\(.*", path.read_text())]

    assert len(opened) >= 4
    assert [call for call in opened if "key_dir=" not in call] == []


def test_every_section_of_params_belongs_to_something():
    """A params section is a step, or is read by name somewhere: an unread option is a defect."""
    sections = set(yaml.safe_load((REPOSITORY / "params.yaml").read_text())) - {"paths"}
    code = "\n".join(path.read_text() for top in ("components", "flows") for path in (REPOSITORY / top).rglob("*.py"))

    assert {name for name in sections if name not in STEPS and f"params.{name}" not in code} == set()
