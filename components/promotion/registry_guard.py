"""App entry point: MLflow's server with basic-auth and this house's rules (`mlflow server --app-name osteoflow-guard`).

The gate's verdict and a person's approval are enforced where people act: REST and the UI's own calls reach the same
guard. `authenticate` lets in who has the password and a role that covers the request, `_guard` asks the rule of each
guarded call. Roles are read from the ledger at every request. A refusal is 403 with the reason in MLflow's own form:
its pages show `INTERNAL_ERROR` in place of any other.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from components.errors import ConfigError, LedgerCorrupt, OsteoflowError, PromotionRefused, Unavailable
from components.promotion.accounts import ADMIN, AUTHENTICATE, configure, create_passwords, read_passwords
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.registry import Registry
from components.promotion.registry_rules import Rule, Rules
from components.promotion.roles import Role, give
from components.settings import PLACEHOLDER, Settings, load_settings

EXTENSION = "osteoflow-guard"
# Whom a server of one machine begins with; a team names its own people (`osteoflow users add`).
FIRST: dict[str, Role] = {
    "engineer": "engineer",
    "reviewer": "reviewer",
    "monitor": "monitor",
    "osteoflow": "service",
}
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
        ConfigError: the environment names no store, or a server instead of one; or MLflow would not ask this guard.
    """
    settings = load_settings()
    _require_store(settings.tracking_uri)
    rules = Rules(
        ledger=Ledger(settings.ledger_path, key_dir=settings.key_dir),
        registry=Registry(settings.tracking_uri, artifact_root=settings.artifact_root),
        key_dir=settings.key_dir,
    )
    from mlflow.server import app, auth

    require_guard(auth.auth_config)
    app.extensions[EXTENSION] = (rules, Passwords())
    # What refuses comes before MLflow's own permissions, which give no reason; what signs after them: it would sign for
    # what they refuse then.
    _guard(app, rules.asking())
    guarded = auth.create_app(app)
    _guard(app, rules.signing())
    app.after_request(_with_reason)
    with suppress(LedgerCorrupt):  # then nobody is known, and every request is told why
        for user, password in read_passwords(settings.state).items():
            if rules.roll().of(user) and not auth.store.has_user(user):
                auth.store.create_user(user, password)
    _drop_assistant(guarded)
    return guarded


def require_guard(config: Any) -> None:
    """Refuse to serve with an auth configuration that would not ask `authenticate`, or is only half filled in.

    Raises:
        ConfigError: names what the file has to say.
    """
    where = "basic_auth.ini (MLFLOW_AUTH_CONFIG_PATH)"
    if config.authorization_function != AUTHENTICATE:
        raise ConfigError(f"{where}: it must say authorization_function = {AUTHENTICATE}")
    if PLACEHOLDER in f"{config.database_uri} {config.admin_password}":
        raise ConfigError(f"{where}: it still says {PLACEHOLDER}")


def server_command(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """What starts the guarded server on this machine: arguments, and variables on top of the environment.

    Writes the auth configuration, and on first use the first people and their passwords.

    Raises:
        ConfigError: `mlflow_tracking_uri` names another server.
    """
    _require_store(settings.tracking_uri)
    settings.artifact_root.mkdir(parents=True, exist_ok=True)
    passwords = first_people(settings)
    argv = [sys.executable, "-m", "mlflow", "server", "--app-name", "osteoflow-guard", "--workers", "1"]
    argv += ["--host", settings.host, "--port", str(settings.mlflow_port), "--no-serve-artifacts"]
    env = {
        "OSTEOFLOW_WORKSPACE": str(settings.workspace),
        "OSTEOFLOW_STATE_DIR": str(settings.state),
        "OSTEOFLOW_KEY_DIR": str(settings.key_dir),
        "OSTEOFLOW_MLFLOW_TRACKING_URI": settings.tracking_uri,
        # In the environment, not in the arguments: a PostgreSQL address carries a password.
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.artifact_root.resolve().as_uri(),
        "MLFLOW_AUTH_CONFIG_PATH": str(configure(settings.state, passwords[ADMIN])),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    return argv, env


def first_people(settings: Settings) -> dict[str, str]:
    """Give a server of this machine the people of `FIRST`, once; whom the ledger knows already is left alone.

    Returns:
        User -> first password, of those whose password was not changed since.
    """
    ledger = Ledger(settings.ledger_path, key_dir=settings.key_dir)
    try:
        named = {entry.body.get("person") for entry in ledger.entries("role")}  # by whomever: who is gone stays so
    except LedgerCorrupt:  # the guard lets nobody in then; what starts beside it still serves
        return create_passwords(settings.state, ())
    new = [name for name in FIRST if name not in named]
    passwords = create_passwords(settings.state, new)
    for name in new:
        key = SigningKey.open(settings.key_dir, settings.user)
        give(ledger=ledger, person=name, roles=(FIRST[name],), user=settings.user, key=key)
    return passwords


class Passwords:
    """Passwords that were right, so that one is hashed once and not at every request.

    A mark covers the hash in the store too: a password that was changed, and an account that is gone, count at once.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._right: set[bytes] = set()

    def mark(self, stored: str, given: str) -> bytes:
        """What is remembered of a password."""
        return hmac.digest(self._secret, f"{stored}\0{given}".encode(), "sha256")

    def remember(self, mark: bytes) -> None:
        """Take this one as right from now on."""
        self._right.add(mark)

    def __contains__(self, mark: bytes) -> bool:
        return mark in self._right


def authenticate() -> Any:
    """MLflow's `authorization_function`, asked at every request: who it is, and whether their role lets them in.

    Returns:
        The request's login, or the answer that refuses it: 401, or 403 with the reason in MLflow's own error form.
    """
    from flask import Response, current_app, request
    from mlflow.exceptions import MlflowException
    from mlflow.server import auth

    rules, passwords = current_app.extensions[EXTENSION]
    login = request.authorization
    if login is None or not login.username or login.password is None:
        return auth.make_basic_auth_response()
    try:
        account = auth.store.get_user(login.username)
    except MlflowException:
        return auth.make_basic_auth_response()
    if (mark := passwords.mark(account.password_hash, login.password)) not in passwords:
        answer = auth.authenticate_request_basic_auth()
        if isinstance(answer, Response):
            return answer
        passwords.remember(mark)
    route = request.url_rule.rule if request.url_rule else ""
    body = request.get_json(silent=True) if "/mlflow/users/" in route else None
    subject = str(body.get("username")) if isinstance(body, dict) else None
    try:
        rules.admit(login.username, request.method, route, subject=subject, administers=bool(account.is_admin))
    except OsteoflowError as error:
        return _answer(error)
    return login


def _guard(app: Any, rules: dict[str, Rule]) -> None:
    """Ask these rules, by the name of a request's message, before the request goes on."""
    from flask import Response, request
    from mlflow.exceptions import MlflowException
    from mlflow.protos import model_registry_pb2
    from mlflow.server.handlers import _get_request_message, get_endpoints

    guarded = {getattr(model_registry_pb2, name): rule for name, rule in rules.items()}
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
        login = authenticate()
        if isinstance(login, Response):
            return login
        try:
            rule(_get_request_message(message()), login.username)  # parsed exactly as the handler will
        except OsteoflowError as error:
            return _answer(error)
        except MlflowException as error:
            return Response(error.serialize_as_json(), status=error.get_http_status_code(), mimetype="application/json")
        return None

    app.before_request(check)


def _answer(error: OsteoflowError) -> Any:
    from flask import Response

    code, status = next((code, status) for kind, code, status in ANSWERS if isinstance(error, kind))
    body = json.dumps({"error_code": code, "message": str(error)})
    return Response(body, status=status, mimetype="application/json")


def _with_reason(response: Any) -> Any:
    """MLflow's own 403, two words of plain text, in the form that its pages can show."""
    if response.status_code == 403 and not response.is_json:
        return _answer(
            PromotionRefused("MLflow's own permissions leave this to whoever made it, and to its administrator")
        )
    return response


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
