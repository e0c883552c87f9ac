"""Intake from a real PACS over DICOMweb: pages, filters, and one instance that will not come."""

from __future__ import annotations

import httpx
import pytest
import requests
from dicomweb_client import DICOMwebClient

from components.dataset.pacs import Archive
from components.dataset.spool import Fetched
from components.errors import ConfigError, DataError, Unavailable


def client(url: str, session: requests.Session | None = None) -> DICOMwebClient:
    made = DICOMwebClient(url, session=session, timeout=(2, 20))
    made.set_http_retry_params(retry=False)
    return made


@pytest.fixture
def store(pacs, make, tmp_path):
    """Put phantoms of the numbered patients into the PACS; return their files."""

    def put(patients, **options):
        folder = make.dicoms(tmp_path / f"sent-{patients[0]}", patients, **options)
        files = sorted(path for path in folder.iterdir() if path.suffix != ".csv")
        for path in files:
            httpx.post(f"{pacs.rest}/instances", content=path.read_bytes()).raise_for_status()
        return files

    return put


@pytest.fixture
def door(pacs, home, tmp_path):
    """Makers of doors to the PACS; every one has the same state, as every run of intake has."""

    def make(filters=None, session=None, labels=None, **options):
        remote = Archive(client(pacs.url, session), filters or {}, **options)
        state = tmp_path / "state"
        return Fetched(remote, state / "spool", state / "taken.txt", home.pseudonyms, labels)

    return make


def through(door, home):
    door.bring()
    batch = home.take_in(door.path, may_be_empty=door.may_be_empty)
    door.landed()
    return batch


class Counting(requests.Session):
    """A session that counts what it fetched, and lets a test answer in the PACS's place."""

    def __init__(self, answer=None):
        super().__init__()
        self.fetched, self.answer = 0, answer

    def get(self, url, **options):
        wado = "multipart/related" in options.get("headers", {}).get("Accept", "")
        self.fetched += wado
        if wado and self.answer and (said := self.answer(self.fetched)) is not None:
            return said
        return super().get(url, **options)


def reply(status: int, body: bytes = b"", kind: str = "text/plain") -> requests.Response:
    made = requests.Response()
    made.status_code, made._content = status, body
    made.headers["Content-Type"] = kind
    return made


def test_what_a_pacs_holds_lands_as_it_was_sent(store, door, home, new_home, tmp_path):
    """The same images from the PACS and from a folder: the same archive."""
    files = store([1, 2, 3])

    batch = through(door(), home)
    beside = new_home("beside")
    beside.take_in(files[0].parent)

    assert (batch.added, batch.refused) == (3, {})
    columns = ["image_id", "patient_id", "study_id", "pixel_sha256", "age_years", "hour", "study_day"]
    ours, theirs = (h.catalog()[columns].sort_values("image_id").reset_index(drop=True) for h in (home, beside))
    assert ours.equals(theirs)


@pytest.mark.slow
def test_real_radiographs_keep_their_syntax_and_pixels(pacs, door, home, new_home, real_data):
    """Lossless and lossy codecs of several makers, through the PACS and from the folder."""
    for path in sorted((real_data / "dicom" / "radiographs").iterdir()):
        httpx.post(f"{pacs.rest}/instances", content=path.read_bytes()).raise_for_status()
    beside = new_home("beside")

    batch = through(door(), home)
    beside.take_in(real_data / "dicom" / "radiographs")

    assert (batch.added, batch.duplicates) == (6, 5)  # two of the pictures come in several syntaxes
    columns = ["pixel_sha256", "patient_id", "rows", "bits_stored"]  # which of two twins came first is chance
    ours, theirs = (h.catalog()[columns].sort_values(columns).reset_index(drop=True) for h in (home, beside))
    assert ours.equals(theirs)


def test_a_second_run_fetches_and_adds_nothing(store, door, home):
    store([1, 2])
    session = Counting()
    through(door(session=session), home)
    fetched, session.fetched = session.fetched, 0

    batch = through(door(session=session), home)

    assert (fetched, session.fetched) == (2, 0)
    assert (batch.added, batch.duplicates) == (0, 0)


def test_more_than_a_page_is_found(store, door):
    """Seven studies, and a study of five instances, in pages of two."""
    store([1, 2, 3, 4, 5, 6], images=1)
    store([7], images=5)

    assert len({offer.key for offer in door(page=2).remote.offers()}) == 11


def test_filters_choose_the_studies(store, door, pacs):
    store([1, 2])
    held = httpx.get(f"{pacs.url}/studies", params={"includefield": "StudyDate"}).json()
    days = [row["00080020"]["Value"][0] for row in held]

    assert len(list(door({"StudyDate": days[0]}).remote.offers())) == days.count(days[0])
    assert len(list(door({"StudyDate": f"{min(days)}-{max(days)}", "ModalitiesInStudy": "DX"}).remote.offers())) == 2
    assert len(list(door({"ModalitiesInStudy": "CT"}).remote.offers())) == 0


@pytest.mark.parametrize("name", ["PatientID", "PatientName", "00100020", "AccessionNumber", "limit"])
def test_a_filter_that_would_name_a_person_is_refused(door, name):
    """The source is shown in the flow's run, the shell's history and the list of processes."""
    with pytest.raises(ConfigError, match="is no filter; expected StudyDate") as caught:
        door({name: "person-7"})
    assert "person-7" not in str(caught.value)


def test_labels_come_in_a_file_of_their_own(store, door, home, make, tmp_path):
    folder = store([1, 2], labels={1: "fracture", 2: "no_fracture"})[0].parent

    assert through(door(labels=folder / "labels.csv"), home).labels == {"fracture": 1, "no_fracture": 1}


def test_a_later_label_is_heard_without_fetching(store, door, home, tmp_path):
    folder = store([1], labels={1: "fracture"})[0].parent
    through(door(), home)
    session = Counting()

    batch = through(door(session=session, labels=folder / "labels.csv"), home)

    assert (session.fetched, batch.added, batch.label_events) == (0, 0, 1)


def test_one_instance_that_fails_is_a_refusal_and_the_rest_lands(store, door, home):
    """The PACS answers 500 to the first instance, three times; the next run asks for it again."""
    store([1, 2])

    batch = through(door(session=Counting(lambda count: reply(500) if count <= 3 else None)), home)

    assert (batch.added, batch.refused) == (1, {"server_error": 1})
    assert through(door(), home).added == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(404), "vanished"),
        (reply(403), "forbidden"),
        (reply(200, b"--x\r\nContent-Type: application/dicom\r\n\r\nDICM", "multipart/related; boundary=x"),
         "broken_transfer"),
        (reply(200, b"hello", "text/html"), "broken_transfer"),
    ],
)  # fmt: skip
def test_why_an_instance_did_not_come_is_recorded(store, door, home, answer, reason):
    store([1, 2])

    batch = through(door(session=Counting(lambda count: answer if count == 1 else None)), home)

    assert (batch.added, batch.refused) == (1, {reason: 1})


def test_another_instance_than_asked_for_is_refused(store, door, home, pacs):
    """A PACS that mixes its answers up must not mix patients up."""
    store([1, 2])
    urls = [offer.key.split("\n") for offer in door().remote.offers()]
    kind = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    other = requests.get(f"{pacs.url}/studies/{urls[1][0]}", headers={"Accept": kind})

    batch = through(door(session=Counting(lambda count: other if count == 1 else None)), home)

    assert (batch.added, batch.refused) == (1, {"wrong_object": 1})


def test_an_empty_pacs_is_said(pacs, door):
    with pytest.raises(DataError, match="nothing is there"):
        door().bring()


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("http://127.0.0.1:9/dicom-web", Unavailable, "does not answer"),
        ("{rest}/nowhere", ConfigError, "answers 404; is the path that of its DICOMweb service"),
        ("{rest}/system", ConfigError, "is .* its DICOMweb service"),
        ("https://127.0.0.1:{port}/dicom-web", ConfigError, "no TLS with the PACS"),
    ],
)
def test_what_is_wrong_with_a_pacs_is_one_line(pacs, url, error, said):
    with pytest.raises(error, match=said) as caught:
        list(Archive(client(url.format(rest=pacs.rest, port=pacs.rest.rpartition(":")[2]))).offers())
    assert "\n" not in str(caught.value)
