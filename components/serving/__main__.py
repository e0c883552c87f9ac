"""What the clinic meets, as programs that read the environment and serve until stopped.

`python -m components.serving` is the clinic service; `python -m components.serving dicom` the DICOM node.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import warnings

from components.errors import LedgerCorrupt, OsteoflowError
from components.params import load
from components.promotion.ledger import Ledger
from components.serving.service import ServiceConfig
from components.settings import Settings, load_settings

log = logging.getLogger("osteoflow.dicom_node")
SECONDS = 0.5


def configure(settings: Settings) -> ServiceConfig:
    """What the environment and params.yaml say, as the service takes it."""
    params = load(settings.workspace / "params.yaml")
    return ServiceConfig(
        log_url=settings.log_url,
        ledger=settings.ledger_path,
        bundles=settings.state / "bundles",
        images=settings.state / "serving" / "images",
        key_dir=settings.key_dir,
        model=params.gate.model,
        audit_share=params.feedback.audit_share,
        readers=params.feedback.readers,
        max_megapixels=params.intake.max_megapixels,
        burned_in=params.intake.burned_in,
        hosts=tuple({"127.0.0.1", "localhost", "::1", settings.host.lower(), socket.gethostname().lower()}),
        registry_url=f"http://{settings.host}:{settings.mlflow_port}/#/models/{params.gate.model}",
    )


def clinic() -> int:
    """Serve predictions and the review pages."""
    import uvicorn

    from components.serving.api import create_app
    from components.serving.door import RoutesOnly

    try:
        settings = load_settings()
        app = create_app(configure(settings))
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    logging.getLogger("uvicorn.access").addFilter(RoutesOnly(app.routes))
    uvicorn.run(app, host=settings.host, port=settings.service_port, server_header=False, log_level="info")
    return 0


def dicom_node() -> int:
    """Take what modalities and PACS send into the inbox, until SIGTERM or SIGINT.

    The node gives no AI output, and takes images in while that is off; its log says when it goes off and comes back.
    (DICOM has no place for it: a C-STORE that succeeds carries no comment, PS3.7 Annex C.)
    """
    from components.serving.dicom_node import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for library in (
        "pynetdicom",
        "pydicom",
        "py.warnings",
    ):  # at a lower level they write UIDs and values they are sent
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    stopped = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopped.set())
    try:
        settings = load_settings()
        callers = tuple(name.strip() for name in settings.dicom_callers.split(",") if name.strip())
        node = serve(
            settings.inbox_folder, settings.dicom_host, settings.dicom_port, settings.dicom_ae_title, callers=callers
        )
        with node as port:
            print(f"DICOM node {settings.dicom_ae_title} on {settings.dicom_host}:{port}", flush=True)
            _tell_of_stops(Ledger(settings.ledger_path, key_dir=settings.key_dir), stopped)
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _tell_of_stops(ledger: Ledger, ended: threading.Event) -> None:
    """Log every change between AI output being off and on, within a second, until `ended`."""
    mark, told = object(), "AI output is on."
    while True:
        if mark != (now := ledger.mark()):
            mark, said = now, _of_stops(ledger)
            if said != told:
                log.warning("%s", said)
                told = said
        if ended.wait(SECONDS):
            return


def _of_stops(ledger: Ledger) -> str:
    try:
        stops = ledger.stops()
    except LedgerCorrupt:
        return "AI output is off: the record of approvals is damaged. Images are still taken in."
    if not stops:
        return "AI output is on."
    return f"AI output is off (ledger entry {stops[-1].seq}, {stops[-1].signer}). Images are still taken in."


def main(arguments: list[str]) -> int:
    """Run the program that `arguments` name."""
    programs = {(): clinic, ("dicom",): dicom_node}
    if not (program := programs.get(tuple(arguments))):
        print("usage: python -m components.serving [dicom]", file=sys.stderr)
        return 2
    return program()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
