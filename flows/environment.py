"""What must be set before a library is imported: silence towards the outside, and where each keeps its state.

Called by the entry points (command line, `python -m flows`), never on import. A variable the operator has set wins,
but for the switches that keep data on this machine.
"""

from __future__ import annotations

import os

from components.settings import Settings

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
}


def prepare(settings: Settings, *, log_level: str) -> None:
    """Set the environment of this process and its children.

    Args:
        settings: where this workspace keeps its state.
        log_level: Prefect's own logging; "CRITICAL" on a terminal, where errors are printed as one line.
    """
    os.environ.update(NO_TELEMETRY)
    # Prefect makes its home only below a folder that exists, and would wait in vain for its server otherwise.
    (settings.state / "prefect").mkdir(parents=True, exist_ok=True)
    # The steps' progress goes to the Prefect UI where flows are served; on a terminal flows/progress.py shows it.
    served = {} if log_level == "CRITICAL" else {"PREFECT_LOGGING_EXTRA_LOGGERS": "osteoflow"}
    prefect = {"PREFECT_HOME": str(settings.state / "prefect"), "PREFECT_LOGGING_LEVEL": log_level}
    for name, value in (QUIET | prefect | served).items():
        os.environ.setdefault(name, value)
    os.environ["OSTEOFLOW_WORKSPACE"] = str(settings.workspace)
    os.environ["OSTEOFLOW_KEY_DIR"] = str(settings.key_dir)
    os.environ["OSTEOFLOW_USER"] = settings.user
