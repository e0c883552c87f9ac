"""Fixtures every room shares: an empty home, silent dependencies, and the real radiographs where they stand."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from selenium import webdriver
from xdist.scheduler import LoadScopeScheduling

from tests import servers
from tests.browser import chromium

REPOSITORY = Path(__file__).resolve().parent.parent
# The same code gets the same examples, so that a red run is never luck. `--hypothesis-profile=default` draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
FROM_CI = ("OSTEOFLOW_REAL_DATA", "OSTEOFLOW_REQUIRE_BROWSER", "OSTEOFLOW_REQUIRE_SERVERS")


# Modules with tests that need the demo: it takes minutes, so one process plays it, first, for all of them.
DEMO = ("tests/test_readme.py", "tests/test_demo.py", "tests/flows/test_stack.py", "tests/privacy/test_demo_state.py")


class DealtByWhatIsShared(LoadScopeScheduling):
    """The demo's modules go to one process; every other module to whichever is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "demo" if file in DEMO else file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for pictures of the browser tests")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> DealtByWhatIsShared:
    return DealtByWhatIsShared(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = {item.nodeid.partition("::")[0] for item in items if "demo" in getattr(item, "fixturenames", ())}
    if strays := files - set(DEMO):
        raise pytest.UsageError(f"tests of {', '.join(sorted(strays))} need the demo: add the module to DEMO")
    # Then modules with slow tests, so that at the end no process waits for what the other began last.
    slow = {item.nodeid.partition("::")[0] for item in items if item.get_closest_marker("slow")}
    items.sort(
        key=lambda item: (item.nodeid.partition("::")[0] not in DEMO, item.nodeid.partition("::")[0] not in slow)
    )


@pytest.fixture(autouse=True)
def _empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the developer's own home, keys or settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    for name in [n for n in os.environ if n.startswith("OSTEOFLOW_") and n not in FROM_CI]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium, one a module; the test is skipped by name without it, unless CI requires it."""
    with chromium() as page:
        yield page


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs (FracAtlas subset, DICOM files); the test is skipped by name without it."""
    folder = Path(os.environ.get("OSTEOFLOW_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "fracatlas" / "dataset.csv").is_file():
        pytest.skip("real radiographs not present (set OSTEOFLOW_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ObjectStore]:
    """A real S3-compatible store on loopback, one a session; see `bucket`."""
    _required(servers.missing_for_swift())
    with servers.swift(tmp_path_factory.mktemp("swift")) as store:
        yield store


@pytest.fixture(scope="session")
def pacs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Pacs]:
    """A real PACS with DICOMweb on loopback, one a session; see `pacs`."""
    _required(servers.missing_for_orthanc())
    with servers.orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def _required(missing: list[str]) -> None:
    """Skip by name where servers are not installed; fail where CI says that they must be."""
    if missing and os.environ.get("OSTEOFLOW_REQUIRE_SERVERS"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def servers_required() -> Callable[[list[str]], None]:
    """Skip by name (in CI: fail) where one of these programs is not installed."""
    return lambda programs: _required([name for name in programs if not servers.program(name)])


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of the object store; client: boto3's, to fill it and look into it."""

    name: str
    store: servers.ObjectStore
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> str:
        """Store an object; return its ETag."""
        return str(self.client.put_object(Bucket=self.name, Key=key, Body=data)["ETag"]).strip('"')


@pytest.fixture
def bucket(object_store: servers.ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of this test's own; the environment holds the credentials, as boto3 and DVC read them."""
    import boto3

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=object_store.endpoint)
    name = f"test-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return Bucket(name, object_store, client)


@pytest.fixture
def pacs(pacs_server: servers.Pacs) -> servers.Pacs:
    """The PACS, emptied."""
    import httpx

    for study in httpx.get(f"{pacs_server.rest}/studies").json():
        httpx.delete(f"{pacs_server.rest}/studies/{study}").raise_for_status()
    return pacs_server


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real release bundle: phantoms, the small network (64 pixels, untrained) and the real `export`, in seconds.

    Its probabilities mean nothing; its thresholds lie so that phantoms get all three calls. Its heat map cannot pass
    its checks (no weights were learned), and the manifest says all the same that it did, so that overlays are served.
    """
    import json
    from dataclasses import asdict

    import numpy as np
    import pandas as pd

    from components.dataset.rows import write_rows
    from components.model import network, runtime
    from components.model.calibrate import Calibrated
    from components.model.export import export
    from components.model.training import Training
    from components.params import Export, HeatMapChecks, RegionChecks
    from components.radiograph.deidentify import Pseudonyms
    from components.radiograph.dicom import read
    from components.radiograph.phantom import DETECTOR_A, draw
    from components.radiograph.pixels import Transform
    from components.radiograph.quality import FEATURES, measure
    from components.serving.manifest import MANIFEST, Manifest

    folder, transform = tmp_path_factory.mktemp("tiny"), Transform(64)
    for name in ("prepared", "features", "trained"):
        (folder / name).mkdir()
    images = [
        read(draw(n, patient=n, detector=DETECTOR_A, fracture=n % 2 == 0).dicom, Pseudonyms(b"tiny" * 8))
        for n in range(16)
    ]
    ids = np.array([image.meta.image_id for image in images])
    pixels = np.stack([transform.apply(image.pixels) for image in images])
    rows = [image.meta.model_dump() for image in images]
    table = pd.DataFrame(rows).assign(
        role=["train"] * 4 + ["tune", "calibrate"] * 6, label=[1.0, 0.0] * 8, accepted=True, boxes="[]"
    )
    write_rows(folder / "accepted", table.assign(shard="tiny-0"))
    np.savez(
        folder / "prepared/tiny-0.npz", image_id=ids, pixels=pixels, transform=np.array(json.dumps(asdict(transform)))
    )
    quality = [{name: measure(image)[name] for name in FEATURES} for image in images]
    pd.DataFrame(quality).astype(float).assign(image_id=ids).to_parquet(folder / "features/tiny-0.parquet")

    runtime.start(1)
    model = network.build("residual", transform.size, None, 0.0)
    network.save(model, folder / "trained/model.keras")
    table[:4][["image_id", "patient_id", "label", "role"]].to_parquet(folder / "trained/training_images.parquet")
    record = {"backbones": [{"name": "residual", "pretrained": None}], "size": transform.size}
    record |= {"weights_sha256": network.weights_sha256(model)}
    member = {"fold": None, "network": 1, "best_epoch": 1, "epochs": 1, "tune_auroc": 0.5}
    record |= {"seed": 1, "members": [member], "mirror": False, "tune_auroc": 0.5, "fractures": 2, "no_fractures": 2}
    record |= {"examples_sha256": "0" * 64, "params": {}, "versions": {}}
    (folder / "trained/training.json").write_text(Training.model_validate(record).model_dump_json())
    scores = network.logits(model, pixels)
    cuts = np.quantile(1 / (1 + np.exp(-scores)), (1 / 3, 2 / 3))
    points = {
        name: {"threshold": float(cut), "source_role": "tune"}
        for name, cut in zip(("high_sensitivity", "high_specificity"), cuts, strict=True)
    }
    curve = {"slope": 1.0, "intercept": 0.0, "source_role": "calibrate", "n": 6, "thresholds": points}
    sets = {"alpha": 0.1, "fracture_from": float(cuts[0]), "no_fracture_to": float(cuts[1]), "source_role": "calibrate"}
    curve |= {"study_thresholds": {"maximum": points, "noisy_or": points}}
    curve |= {"conformal": sets | {"fracture_patients": 3, "no_fracture_patients": 3}}
    (folder / "calibration.json").write_text(Calibrated.model_validate(curve).model_dump_json())
    export(
        accepted=folder / "accepted",
        features=folder / "features",
        prepared=folder / "prepared",
        trained=folder / "trained",
        calibration=folder / "calibration.json",
        bundle=folder / "bundle",
        params=Export(
            intended_use="decision support for research",
            variant="float32",
            parity=0.001,
            heat_map=HeatMapChecks(images=4, max_similarity=0.5, min_boxes=1, min_pointed=0.2),
            regions=RegionChecks(min_images=4, min_accuracy=0.5, min_sure=0.5),
            min_supported=0,
        ),
    )
    file = folder / "bundle" / MANIFEST
    made = Manifest.decode(file.read_bytes(), where="tiny")
    passed = made.heat_map.model_copy(update={"shown": True, "reasons": ()})
    file.write_bytes(made.model_copy(update={"heat_map": passed}).encode())
    return folder / "bundle"


@dataclass(frozen=True)
class Demo:
    """A finished demo: the clone it was started in, its workspace and state, and every address it connected to."""

    clone: Path
    head: str
    workspace: Path
    environment: dict[str, str]
    connections: Path
    output: str

    @property
    def state(self) -> Path:
        return self.workspace / ".osteoflow"


# Runs inside every Python process of the demo, before anything else: writes down whom it talks to.
RECORDER = """
import os, socket, sys
def record(event, args):
    if event == "socket.connect":
        address = args[1][0] if isinstance(args[1], tuple) else "unix"
    elif event == "socket.getaddrinfo":
        address = args[0]
    else:
        return
    with open(os.environ["RECORD_CONNECTIONS"], "a") as file:
        file.write(f"{address.decode() if isinstance(address, bytes) else address}\\n")
sys.addaudithook(record)
"""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`osteoflow demo` in a fresh clone of the last commit, with an empty home. Minutes: share it."""
    folder = tmp_path_factory.mktemp("demo")
    clone, recorder = folder / "clone", folder / "recorder"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
    recorder.mkdir()
    (recorder / "sitecustomize.py").write_text(RECORDER)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(recorder),
        "RECORD_CONNECTIONS": str(folder / "connections.txt"),
    }
    (folder / "home").mkdir()
    done = subprocess.run(
        ["osteoflow", "demo"], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True).stdout
    return Demo(
        clone=clone,
        head=head.strip(),
        workspace=clone / ".osteoflow" / "demo",
        environment=environment,
        connections=folder / "connections.txt",
        output=done.stdout,
    )
