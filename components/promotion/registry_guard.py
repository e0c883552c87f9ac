"""App entry point: MLflow's server with basic-auth and this house's rules (`mlflow server --app-name osteoflow-guard`).

The gate's verdict and a person's approval are enforced where people act: REST and the UI's own calls reach the same
guard, after MLflow has authenticated the user. A refusal is 403 with the reason in MLflow's own error form.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from components.errors import ConfigError, OsteoflowError, PromotionRefused, Unavailable
from components.promotion.ledger import Ledger
from components.promotion.registry import Registry
from components.promotion.registry_rules import Rules
from components.settings import Settings, load_settings

ADMIN = "admin"
PASSWORDS = "mlflow-users.json"
ASSISTANT = "/mlflow/assistant"
# MLflow's error code and HTTP status for each branch of the error tree; the first match counts.
ANSWERS: tuple[tuple[type[OsteoflowError], str, int], ...] = (
    (PromotionRefused, "PERMISSION_DENIED", 403),
    (ConfigError, "INVALID_PARAMETER_VALUE", 400),
    (Unavailable, "TEMPORARILY_UNAVAILABLE", 503),
    (OsteoflowError, "INTERNAL_ERROR", 500),
)


def create_app() -> Any:
    """The guarded app, for `mlflow server`; configured by the environment that `server_command` sets.

    Raises:
        ConfigError: the environment names no store, or a server instead of one.
    """
    settings = load_settings()
    _require_store(settings.tracking_uri)
    rules = Rules(
        ledger=Ledger(settings.ledger_path, witness=settings.key_dir),
        registry=Registry(settings.tracking_uri, artifact_root=settings.artifact_root),
        key_dir=settings.key_dir,
        reviewers=_names(settings.reviewers),
        services=_names(settings.services),
    )
    from mlflow.server import app, auth

    guarded = auth.create_app(app)  # registers its own before_request first: users are known when ours runs
    for user, password in read_passwords(settings.state).items():
        if not auth.store.has_user(user):
            auth.store.create_user(user, password)
    _guard(app, rules)
    _drop_assistant(guarded)
    return guarded


def server_command(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """What starts the guarded server on this machine: arguments, and variables on top of the environment.

    Writes the auth configuration and the users' passwords on first use.

    Raises:
        ConfigError: `mlflow_tracking_uri` names another server.
    """
    _require_store(settings.tracking_uri)
    settings.artifact_root.mkdir(parents=True, exist_ok=True)
    passwords = create_users(settings.state)
    argv = [sys.executable, "-m", "mlflow", "server", "--app-name", "osteoflow-guard", "--workers", "1"]
    argv += ["--host", settings.host, "--port", str(settings.mlflow_port), "--no-serve-artifacts"]
    env = {
        "OSTEOFLOW_WORKSPACE": str(settings.workspace),
        "OSTEOFLOW_STATE_DIR": str(settings.state),
        "OSTEOFLOW_KEY_DIR": str(settings.key_dir),
        "OSTEOFLOW_MLFLOW_TRACKING_URI": settings.tracking_uri,
        "OSTEOFLOW_REVIEWERS": settings.reviewers,
        "OSTEOFLOW_SERVICES": settings.services,
        # In the environment, not in the arguments: a PostgreSQL address carries a password.
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.artifact_root.resolve().as_uri(),
        "MLFLOW_AUTH_CONFIG_PATH": str(auth_config(settings.state, passwords[ADMIN])),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    return argv, env


def auth_config(state: Path, admin_password: str) -> Path:
    """Write basic-auth's configuration (0600) into `state` and return its path.

    Everyone may read and edit; what editing may not do is the guard's business.
    """
    database = f"sqlite:///{(state / 'mlflow-auth.db').resolve()}".replace("%", "%%")
    lines = ["[mlflow]", "default_permission = EDIT", f"database_uri = {database}"]
    lines += [f"admin_username = {ADMIN}", f"admin_password = {admin_password}"]
    lines += ["auth_cache_ttl_seconds = 60"]  # a password is hashed once a minute, not once a request
    lines += ["authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]
    path = state / "basic_auth.ini"
    _write_private(path, "\n".join(lines) + "\n")
    return path


def create_users(
    state: Path, names: tuple[str, ...] = ("engineer", "reviewer", "monitor", "osteoflow")
) -> dict[str, str]:
    """Give the admin and `names` passwords, kept in `state`/mlflow-users.json (0600); those that have one keep it.

    The server creates the accounts when it starts. `osteoflow` is the flows' own.
    """
    passwords = read_passwords(state)
    missing = [name for name in (ADMIN, *names) if name not in passwords]
    if missing:
        passwords |= {name: secrets.token_urlsafe(18) for name in missing}
        state.mkdir(parents=True, exist_ok=True)
        _write_private(state / PASSWORDS, json.dumps(passwords, indent=1) + "\n")
    return passwords


def read_passwords(state: Path) -> dict[str, str]:
    """User -> password, empty before the first `create_users`."""
    path = state / PASSWORDS
    if not path.exists():
        return {}
    try:
        return {str(user): str(password) for user, password in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise ConfigError(f"{path}: not a JSON object of users and passwords; remove it to have new ones") from None


def _guard(app: Any, rules: Rules) -> None:
    from flask import Response, g, request
    from mlflow.exceptions import MlflowException
    from mlflow.protos import model_registry_pb2
    from mlflow.server.handlers import _get_request_message, get_endpoints

    guarded = {getattr(model_registry_pb2, name): rule for name, rule in rules.by_request().items()}
    # Asked of MLflow's own route table, so that every prefix (api, ajax-api, preview, 3.0) of a request is covered.
    table = {
        (path, method): (message, guarded[message])
        for path, message, methods in get_endpoints(lambda message: message)
        if message in guarded
        for method in methods
    }

    def check() -> Any:
        found = table.get((request.url_rule.rule, request.method)) if request.url_rule else None
        if found is None:
            return None
        message, rule = found
        try:
            rule(_get_request_message(message()), g.mlflow_authenticated_user)  # parsed exactly as the handler will
        except OsteoflowError as error:
            code, status = next((code, status) for kind, code, status in ANSWERS if isinstance(error, kind))
            body = json.dumps({"error_code": code, "message": str(error)})
            return Response(body, status=status, mimetype="application/json")
        except MlflowException as error:
            return Response(error.serialize_as_json(), status=error.get_http_status_code(), mimetype="application/json")
        return None

    app.before_request(check)


def _drop_assistant(guarded: Any) -> None:
    """MLflow's chat assistant runs commands on the server and asks outside providers: it has no business here."""
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response

    async def absent(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if ASSISTANT in request.url.path:
            return PlainTextResponse("Not Found", status_code=404)
        return await call_next(request)

    if isinstance(guarded, FastAPI):  # under another server than uvicorn MLflow mounts no assistant
        guarded.middleware("http")(absent)


def _require_store(uri: str) -> None:
    if uri.startswith(("http://", "https://")):
        raise ConfigError(
            f"OSTEOFLOW_MLFLOW_TRACKING_URI={uri}: the server itself needs its store (sqlite, postgresql)"
        )


def _names(listed: str) -> frozenset[str]:
    return frozenset(name.strip() for name in listed.split(",") if name.strip())


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
