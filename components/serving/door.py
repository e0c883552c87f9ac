"""The service's door: which hosts, origins and sizes may enter, and what every answer carries.

A page on loopback can be addressed by any site the browser has open, so: only known names are answered (DNS
rebinding), a browser's write must come from our own page (cross-site requests), and nothing may be framed, cached or
loaded from elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = {"GET", "HEAD", "OPTIONS"}
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": a browser then sends its forms with "Origin: null", and the clinician's answer is refused.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Door:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, hosts: tuple[str, ...], max_bytes: int) -> None:
        self._app = app
        self._hosts = hosts
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, _closing(send))
            return
        await self._app(scope, self._counted(receive), _closing(send))

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if _name(f"//{host}") not in self._hosts:
            return refuse(421, "host", "This service does not answer to that host name.")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        if method not in SAFE and (foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none")):
            return refuse(403, "origin", "Only pages of this service may write to it.")
        try:
            announced = int(headers.get("content-length") or 0)
        except ValueError:
            return refuse(400, "length", "The request's length is no number.")
        if announced > self._max_bytes:
            return refuse(413, "too_large", f"Larger than {self._max_bytes >> 20} MB; send one image at a time.")
        return None

    def _counted(self, receive: Receive) -> Receive:
        """A body that announces no length is counted as it comes."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise HTTPException(413, f"Larger than {self._max_bytes >> 20} MB; send one image at a time.")
            return message

        return counted


class RoutesOnly(logging.Filter):
    """Lets uvicorn's access log name the route that was asked for, and not the address: that may hold a name.

    An address is a client's words, and a log is read by others than a patient's record.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        super().__init__()
        self._routes = routes

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every line; of (client, method, address, version, status) the address is replaced."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, address, version, status = record.args
            record.args = (client, method, self._route(str(method), str(address)), version, status)
        return True

    def _route(self, method: str, address: str) -> str:
        scope = {"type": "http", "method": method, "path": unquote(address.partition("?")[0]), "headers": []}
        found = (getattr(route, "path", "") for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        return next(found, "(no route)")


def refuse(status: int, reason: str, sentence: str) -> JSONResponse:
    """A refusal: a stable code for machines and a sentence for people."""
    return JSONResponse({"reason": reason, "detail": sentence}, status_code=status)


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _closing(send: Send) -> Send:
    """Add the headers every answer carries; a page may set a stricter or wider policy of its own."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return closing
