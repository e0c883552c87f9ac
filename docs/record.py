"""Record intake from real peers for the documentation: `make recordings`. Needs the servers of tests/servers.py.

Starts an S3-compatible store and a PACS on loopback, fills them with phantoms, and runs the commands a user would type
in a fresh clone. Writes docs/recordings/*.cast (asciicast v2: `asciinema play`) and the same as text.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import httpx

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from components.radiograph.phantom import DETECTOR_A, draw  # noqa: E402
from tests import servers  # noqa: E402

RECORDINGS = REPOSITORY / "docs" / "recordings"
COLUMNS, ROWS = 110, 30
FOLDER = re.compile(rf"{re.escape(tempfile.gettempdir())}/tmp\w+(?=/osteoflow)")
ESCAPE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


@dataclass
class Tape:
    """What a terminal shows, with the seconds since it began."""

    title: str
    events: list[tuple[float, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def write(self, text: str) -> None:
        text = FOLDER.sub("~", text)  # where this machine keeps temporary files is nobody's concern
        self.events.append((round(time.monotonic() - self.began, 3), text))

    def run(self, shown: str, environment: dict[str, str], cwd: Path) -> int:
        """Type `shown` and run it as a shell would, in a terminal; return its exit status."""
        self.write(f"\x1b[1m$ {shown}\x1b[0m\r\n")
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(cwd)
            os.execve("/bin/bash", ["bash", "-c", shown], environment | {"TERM": "xterm-256color"})
        held = b""
        while True:
            ready, _, _ = select.select([terminal], [], [], 300)
            try:
                chunk = os.read(terminal, 65536) if ready else b""
            except OSError:  # the other end has closed
                chunk = b""
            if not chunk:
                break
            held += chunk
            text = held.decode("utf-8", "ignore")
            held = b"" if text.encode() == held else held[len(text.encode()) :]
            self.write(text)
        os.close(terminal)
        _, status = os.waitpid(child, 0)
        self.write("\r\n")
        return os.waitstatus_to_exitcode(status)

    def save(self, name: str) -> None:
        header = {
            "version": 2,
            "width": COLUMNS,
            "height": ROWS,
            "title": self.title,
            "env": {"TERM": "xterm-256color"},
        }
        lines = [json.dumps(header), *(json.dumps([at, "o", text], ensure_ascii=False) for at, text in self.events)]
        (RECORDINGS / f"{name}.cast").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = rendered("".join(text for _, text in self.events))
        (RECORDINGS / f"{name}.txt").write_text(f"# {self.title}\n\n{text}", encoding="utf-8")


def rendered(stream: str) -> str:
    """What is left on the screen: lines that were drawn over are gone."""
    lines, column = [""], 0
    position = 0
    while position < len(stream):
        if match := ESCAPE.match(stream, position):
            position = match.end()
            if match[2] == "A":
                del lines[max(1, len(lines) - int(match[1] or 1)) :]
            if match[2] in "AK":
                lines[-1] = "" if match[2] == "K" else lines[-1]
            continue
        letter = stream[position]
        position += 1
        if letter == "\n":
            lines.append("")
        column = 0 if letter in "\r\n" else column
        if letter not in "\r\n":
            lines[-1] = lines[-1][:column] + letter + lines[-1][column + 1 :]
            column += 1
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


@contextmanager
def place() -> Iterator[tuple[Path, dict[str, str]]]:
    """A fresh clone with an empty home, and the environment of a user in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone = folder / "osteoflow"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        (folder / "home").mkdir()
        yield (
            clone,
            {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin",
                "HOME": str(folder / "home"),
                "PYTHONPATH": str(clone),
                "COLUMNS": str(COLUMNS),
                "LINES": str(ROWS),
                "OSTEOFLOW_USER": "reader-1",
            },
        )


def from_a_store(tape: Tape) -> None:
    """Twelve phantoms, their labels and one cut file; the same prefix again; one more image."""
    with place() as (clone, environment), servers.swift(clone.parent / "store") as store:
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            region_name="us-east-1",
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
        )
        client.create_bucket(Bucket="radiographs")
        phantoms = [draw(11, patient=n, detector=DETECTOR_A, fracture=n % 3 == 0) for n in range(13)]
        rows = "".join(f"{p.sop_instance_uid},{p.label},\n" for p in phantoms)

        def put(name: str, data: bytes) -> None:
            client.put_object(Bucket="radiographs", Key=f"site-a/{name}", Body=data)

        for number, phantom in enumerate(phantoms[:12]):
            put(f"{number:04d}.dcm", phantom.dicom)
        put("labels.csv", f"sop_instance_uid,label,boxes\n{rows}".encode())
        put("0999.dcm", phantoms[0].dicom[:9000])
        environment |= store.environment | {"OSTEOFLOW_S3_ENDPOINT_URL": store.endpoint}
        steps: list[Callable[[], object]] = [lambda: None, lambda: put("0012.dcm", phantoms[12].dicom)]
        check(tape.run("osteoflow intake s3://radiographs/site-a", environment, clone))
        for before in steps:
            before()
            check(tape.run("osteoflow intake s3://radiographs/site-a", environment, clone))
        check(tape.run("osteoflow intake s3://no-such-bucket/site-a", environment, clone), 1)


def from_a_pacs(tape: Tape) -> None:
    """Eight phantoms in a PACS, asked for by modality; the same again; a labels.csv for what is here already."""
    with place() as (clone, environment), servers.orthanc(clone.parent / "pacs") as pacs:
        phantoms = [draw(12, patient=n, detector=DETECTOR_A, fracture=n % 2 == 0) for n in range(8)]
        for phantom in phantoms:
            httpx.post(f"{pacs.rest}/instances", content=phantom.dicom).raise_for_status()
        rows = "".join(f"{p.sop_instance_uid},{p.label},\n" for p in phantoms)
        (clone.parent / "labels.csv").write_text(f"sop_instance_uid,label,boxes\n{rows}")
        source = f'"dicomweb+{pacs.url}?ModalitiesInStudy=DX"'
        check(tape.run(f"osteoflow intake {source}", environment, clone))
        check(tape.run(f"osteoflow intake {source} --labels ../labels.csv", environment, clone))


def check(status: int, expected: int = 0) -> None:
    """A recording of a command that went wrong is none."""
    if status != expected:
        raise SystemExit(f"a recorded command ended with {status}, expected {expected}")


def main() -> int:
    missing = servers.missing_for_swift() + servers.missing_for_orthanc()
    if missing:
        print(f"not installed: {', '.join(missing)}; see .ci/run for the packages", file=sys.stderr)
        return 1
    RECORDINGS.mkdir(exist_ok=True)
    tape = Tape("Intake from an S3-compatible store (OpenStack Swift behind its S3 API, on loopback)")
    from_a_store(tape)
    tape.save("intake-s3")
    tape = Tape("Intake from a PACS over DICOMweb (Orthanc, on loopback)")
    from_a_pacs(tape)
    tape.save("intake-dicomweb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
