"""The access log: routes, never the addresses that clients write."""

from __future__ import annotations

import logging

import pytest
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from components.serving.door import RoutesOnly


@pytest.fixture
def only(tmp_path) -> RoutesOnly:
    app = FastAPI()
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.add_api_route("/api/predictions", lambda: None, methods=["POST"])
    app.add_api_route("/api/predictions/{id}", lambda: None, methods=["GET"])
    return RoutesOnly(app.routes)


@pytest.mark.parametrize(
    ("method", "address", "route"),
    [
        ("GET", "/api/predictions/Doe?born=1937", "/api/predictions/{id}"),
        ("GET", "/api/predictions/D%C3%B6e", "/api/predictions/{id}"),
        ("POST", "/api/predictions?patient=Doe", "/api/predictions"),
        ("GET", "/static/Doe.css", "/static"),
        ("GET", "/Doe", "(no route)"),
        ("BREW", "/api/predictions/Doe", "/api/predictions/{id}"),
    ],
)
def test_a_line_names_the_route_and_no_word_of_the_address(only, method, address, route):
    said = ("127.0.0.1:1", method, address, "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', said, None)

    assert only.filter(record)
    assert record.getMessage() == f'127.0.0.1:1 - "{method} {route} HTTP/1.1" 200'


def test_a_line_of_another_form_is_left_alone(only):
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "started", (), None)

    assert only.filter(record)
    assert record.getMessage() == "started"
