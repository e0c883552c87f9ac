"""The real peers of the doors, on loopback: an S3-compatible object store and a PACS that speaks DICOMweb.

The store is OpenStack Swift behind its S3 API: a proxy with one account, one container and one object server on rings
of one device. The PACS is Orthanc with its DICOMweb plugin. Both come from Debian packages and live in one folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SWIFT = (
    "swift-proxy-server", "swift-account-server", "swift-container-server", "swift-object-server",
    "swift-ring-builder", "memcached",
)  # fmt: skip
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 60
# Debian's programs run on Debian's Python: nothing of ours may reach into it.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class ObjectStore:
    """An S3 endpoint and who may use it."""

    endpoint: str
    access_key: str = "test:tester"
    secret_key: str = "testing"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 and DVC read."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@dataclass(frozen=True)
class Pacs:
    """A PACS. url: root of its DICOMweb service; rest: of its own interface; port, ae_title: where it takes C-STORE."""

    url: str
    rest: str
    port: int
    ae_title: str = "ORTHANC"


def missing_for_swift() -> list[str]:
    """The programs an object store needs and this machine lacks."""
    return [name for name in SWIFT if not program(name)]


def missing_for_orthanc() -> list[str]:
    """The programs a PACS needs and this machine lacks."""
    plugin = [] if DICOMWEB_PLUGIN.is_file() else [DICOMWEB_PLUGIN.name]
    return ([] if program("Orthanc") else ["Orthanc"]) + plugin


@contextlib.contextmanager
def swift(folder: Path) -> Iterator[ObjectStore]:
    """Run an empty object store in `folder` (a file system with extended attributes) while the context is open."""
    names = ("proxy", "account", "container", "object", "cache")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (folder / "disks" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    for kind in ("account", "container", "object"):
        _configure(folder, kind, ports[kind], f"[pipeline:main]\npipeline = {kind}-server\n")
        for step in (
            ["create", "2", "1", "1"], ["add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1"], ["rebalance"]
        ):  # fmt: skip
            builder = [program("swift-ring-builder") or "", str(folder / f"{kind}.builder"), *step]
            subprocess.run(builder, check=True, capture_output=True, env=ENVIRONMENT)
    _configure(
        folder,
        "proxy",
        ports["proxy"],
        "[pipeline:main]\npipeline = catch_errors proxy-logging cache listing_formats bulk s3api tempauth slo "
        "proxy-server\n"
        "[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
        "[filter:proxy-logging]\nuse = egg:swift#proxy_logging\n"  # gives an empty answer to HEAD its length
        f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{ports['cache']}\n"
        "[filter:listing_formats]\nuse = egg:swift#listing_formats\n"
        "[filter:bulk]\nuse = egg:swift#bulk\n"
        "[filter:s3api]\nuse = egg:swift#s3api\ns3_acl = no\nallow_multipart_uploads = yes\n"
        "min_segment_size = 1\nlocation = us-east-1\nforce_swift_request_proxy_log = no\n"
        "[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = testing .admin\n"
        "[filter:slo]\nuse = egg:swift#slo\n",
        "allow_account_management = true\naccount_autocreate = true\n",
    )
    memory = [program("memcached") or "", "-l", "127.0.0.1", "-p", str(ports["cache"]), "-m", "16"]
    commands = {"cache": [*memory, *(["-u", "root"] if os.geteuid() == 0 else [])]}
    commands |= {
        kind: [program(f"swift-{kind}-server") or "", str(folder / f"{kind}.conf")]
        for kind in ("account", "container", "object", "proxy")
    }
    with _running(commands, folder, ports):
        yield ObjectStore(f"http://127.0.0.1:{ports['proxy']}")


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Pacs]:
    """Run an empty PACS in `folder` while the context is open."""
    dicom, http = free_ports(2)
    configuration = {
        "Name": "Osteoflow's peer",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom,
        "DicomAet": Pacs.ae_title,
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    command = [program("Orthanc") or "", str(folder / "orthanc.json")]
    with _running({"orthanc": command}, folder, {"http": http, "dicom": dicom}):
        yield Pacs(f"http://127.0.0.1:{http}/dicom-web", f"http://127.0.0.1:{http}", dicom)


def free_ports(count: int) -> list[int]:
    """Different ports that are free now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def program(name: str) -> str | None:
    """Where a program of this machine lies, or None."""
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def _configure(folder: Path, kind: str, port: int, pipeline: str, more: str = "") -> None:
    import getpass

    (folder / f"{kind}.conf").write_text(
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {getpass.getuser()}\n"
        f"swift_dir = {folder}\ndevices = {folder / 'disks'}\nmount_check = false\nlog_level = WARNING\n"
        "fallocate_reserve = 0\ndisable_fallocate = true\n"
        f"{pipeline}[app:{kind}-server]\nuse = egg:swift#{kind}\n{more}"
    )


@contextlib.contextmanager
def _running(commands: dict[str, list[str]], folder: Path, ports: dict[str, int]) -> Iterator[None]:
    """Run `commands` until the context ends; open it once every port answers."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                children[name] = subprocess.Popen(
                    command, cwd=folder, env=ENVIRONMENT | {"HOME": str(folder)}, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        waiting = set(ports.values())
        while waiting:
            for name, child in children.items():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not start: {(folder / f'{name}.log').read_text()[-2000:]}")
            waiting = {port for port in waiting if not _answers(port)}
            time.sleep(0.1)
        yield
    finally:
        for child in reversed(children.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
        for child in children.values():
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
