"""What the whole loop leaves behind names none of the patients it saw: data, MLflow, Prefect, ledger, service, git."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.privacy import planted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PERSON = re.compile(rb"phantom[-^][ab]-?\d{3,}", re.IGNORECASE)
REPOSITORY = Path(__file__).resolve().parents[2]
UID = re.compile(rb"2\.25\.\d{20,39}")
# Where the demo draws its hospital, and copies of it that wait or are sent: the only places that may name anybody.
SOURCES = {"phantoms", "inbox", "quarantine"}


def identifiers(folder: Path) -> set[bytes]:
    """Every UID of the drawn hospital."""
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    files = [dcmread(path, stop_before_pixels=True, specific_tags=list(names)) for path in folder.rglob("*.dcm")]
    return {str(file[name].value).encode() for file in files for name in names}


def leaks(workspace: Path) -> Iterator[tuple[str, str]]:
    state = workspace / ".osteoflow"
    uids = identifiers(state / "phantoms")
    assert len(uids) > 100
    ours = {name.lower() for test in (REPOSITORY / "tests").rglob("*.py") for name in PERSON.findall(test.read_bytes())}

    def hits(text: bytes) -> set[str]:
        names = {name for name in PERSON.findall(text) if name.lower() not in ours}  # those the tests speak of
        return {name.decode() for name in names} | {u.decode() for u in set(UID.findall(text)) & uids}

    yield from (("git", hit) for hit in hits(planted.git_objects(workspace)))
    for path in sorted(workspace.rglob("*")):
        if path.is_symlink() or not path.is_file() or SOURCES & set(path.relative_to(workspace).parts):
            continue
        data = path.read_bytes()
        texts = [str(path.relative_to(workspace)).encode(), *planted.texts(path.name, data)]
        if data[:15] == b"SQLite format 3":
            texts += list(planted.database(path))
        yield from ((str(path.relative_to(workspace)), hit) for text in texts for hit in hits(text))


def test_the_finished_demo_names_nobody(demo):
    """Eight hundred drawn patients went through training, promotion, service and feedback."""
    assert {path.name for path in demo.state.rglob("*.db")} >= {"mlflow.db", "prefect.db", "serving.db"}
    assert set(leaks(demo.workspace)) == set()
