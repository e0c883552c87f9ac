"""A workspace that identifiers are sent into, and everything that was written there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.privacy import planted

REPOSITORY = Path(__file__).resolve().parents[2]
# Intake from several sources in one process: what the flow does does not depend on who calls it.
INTAKES = """
import sys
from pydantic import SecretStr
from components.settings import load_settings
from flows.environment import prepare
prepare(load_settings(), log_level="DEBUG")
from flows.intake import intake
for source in sys.argv[1:]:
    try:
        print(intake(source=SecretStr(source)).text())
    except Exception as error:
        print(type(error).__name__, error)
"""


@dataclass(frozen=True)
class Hospital:
    """What was planted, and everything that came of it."""

    kinds: dict[str, str]
    sources: Path
    workspace: Path
    home: Path
    said: str

    @property
    def state(self) -> Path:
        return self.workspace / ".osteoflow"

    def written(self) -> Iterator[tuple[str, bytes]]:
        """Everything but quarantined files: a name for it, and what it says."""
        yield "terminal", self.said.encode()
        yield "git", planted.git_objects(self.workspace)
        for folder in (self.workspace, self.home):
            for path in sorted(folder.rglob("*")):
                refused = path.parent.name == "quarantine" and path.suffix == ".bin"
                if refused or path.is_symlink() or not path.is_file():
                    continue
                place = str(path.relative_to(folder.parent))
                yield place, place.encode()
                if path.read_bytes()[:15] == b"SQLite format 3":
                    yield from ((place, line) for line in planted.database(path))
                yield from ((place, text) for text in planted.texts(place, path.read_bytes()))

    def hits(self) -> list[tuple[str, str]]:
        """(where, which kind of identifier) of everything that is written."""
        kinds = {token: kind for kind, token in self.kinds.items()}
        return sorted({(at, kinds.get(token, token)) for at, text in self.written() for token in planted.found(text)})


def start(workspace: Path) -> None:
    """A workspace as a clone has it, without its code."""
    for name in ("params.yaml", "dvc.yaml", "uv.lock"):
        shutil.copy(REPOSITORY / name, workspace / name)
    shutil.copytree(
        REPOSITORY / ".dvc", workspace / ".dvc", ignore=shutil.ignore_patterns("tmp", "config.local", "cache")
    )
    shutil.copy(REPOSITORY / ".gitignore", workspace / ".gitignore")
    (workspace / "data").mkdir()
    shutil.copy(REPOSITORY / "data" / "limits.yaml", workspace / "data")
    for command in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "start"]):
        author = ["-c", "user.name=engineer", "-c", "user.email=engineer@localhost"]
        subprocess.run(["git", *author, *command], cwd=workspace, check=True)


def publish(state: Path, home: Path, bundle: Path) -> None:
    """Put `bundle` on record as the champion."""
    from components.promotion.ledger import Ledger, SigningKey
    from components.serving.bundle import Bundle

    found = Bundle.open(bundle).hash
    shutil.copytree(bundle, state / "bundles" / found)
    ledger = Ledger(state / "ledger.jsonl")
    body = {"name": "osteoflow-fracture", "version": 1, "bundle_hash": found}
    body["decision_hash"] = ledger.append("decision", body | {"verdict": "passed", "proposer": "engineer"}).hash
    key = SigningKey.open(home / ".config" / "osteoflow", "reviewer")
    approval = ledger.append("approval", body | {"approver": "reviewer", "rationale": "margins hold"}, key=key)
    ledger.append("rollout", body | {"approval_hash": approval.hash})
