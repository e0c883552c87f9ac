"""The clinic service as a program: `python -m components.serving` reads the environment and serves until stopped."""

from __future__ import annotations

import socket
import sys

from components.errors import OsteoflowError
from components.params import load
from components.serving.service import ServiceConfig
from components.settings import Settings, load_settings


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
        hosts=tuple({"127.0.0.1", "localhost", "::1", settings.host.lower(), socket.gethostname().lower()}),
        registry_url=f"http://{settings.host}:{settings.mlflow_port}/#/models/{params.gate.model}",
    )


def main() -> int:
    import uvicorn

    from components.serving.api import create_app

    try:
        settings = load_settings()
        app = create_app(configure(settings))
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    uvicorn.run(app, host=settings.host, port=settings.service_port, server_header=False, log_level="info")
    return 0


if __name__ == "__main__":
    sys.exit(main())
