"""The routes of the management port that are the same for one worker and for the supervisor of several."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from aiohttp import web

from kaa_gateway import logs
from kaa_gateway.admin.shown_config import shown
from kaa_gateway.errors import UNDECODABLE

if TYPE_CHECKING:
    from kaa_gateway.config import Config

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)

PAGE_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class LogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /api/v1/log`, and of the answers of PUT and GET."""

    level: logs.Level


def common_routes(current: Callable[[], Config]) -> list[web.RouteDef]:
    """Return the routes of the page, and those of the API that no single session has a part in."""

    async def description(request: web.Request) -> web.Response:
        return web.json_response(openapi())

    async def configuration(request: web.Request) -> web.Response:
        return web.json_response(shown(current()))

    async def certificate(request: web.Request) -> web.Response:
        transports = current().transports
        for listener in (
            transports.mqtt.tls,
            transports.http.tls,
            transports.mqtt.websocket.tls,
            transports.coap.dtls,
            transports.mqtt_sn.dtls,
            transports.coap.tls,
            transports.coap.websocket.tls,
        ):
            if listener.enabled and listener.cert_file is not None:
                return web.Response(
                    body=certificates(listener.cert_file), content_type="application/x-pem-file"
                )
        raise web.HTTPNotFound(text="No listener with a certificate is enabled.")

    return [
        *(web.get(f"/{name}", _page_file, allow_head=False) for name in ("", "style.css", "page.js")),
        web.get("/api/v1/openapi.json", description, allow_head=False),
        web.get("/api/v1/reasons", _show_reasons, allow_head=False),
        web.get("/api/v1/config", configuration, allow_head=False),
        web.get("/api/v1/certificate", certificate, allow_head=False),
        web.get("/api/v1/log", _show_level, allow_head=False),
    ]


async def _page_file(request: web.Request) -> web.Response:
    """Answer with a file of the live page, which runs no script and shows no style but its own."""
    name = request.path.removeprefix("/") or "index.html"
    return web.Response(
        text=_resource(f"page/{name}"),
        content_type=PAGE_TYPES[name.rpartition(".")[2]],
        charset="utf-8",
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
            " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        },
    )


async def _show_reasons(request: web.Request) -> web.Response:
    return web.Response(text=_resource("reasons.json"), content_type="application/json")


async def _show_level(request: web.Request) -> web.Response:
    return web.json_response({"level": logs.level()})


async def set_level(request: web.Request) -> web.Response:
    """Set the log level of this process; 400 says what is wrong with the body."""
    try:
        change = msgspec.json.decode(await request.read(), type=LogLevel)
    except UNDECODABLE as error:
        raise web.HTTPBadRequest(text=f"the body: {error}") from error
    logs.set_level(change.level)
    return web.json_response({"level": logs.level()})


@cache
def _resource(name: str) -> str:
    return (resources.files("kaa_gateway.admin") / name).read_text(encoding="utf-8")


@cache
def openapi() -> dict[str, Any]:
    """Return the description of the API."""
    document: dict[str, Any] = yaml.safe_load(_resource("openapi.yml"))
    return document


def certificates(file: Path) -> bytes:
    """Return the certificates in a PEM file, without anything else in it, such as a key."""
    return b"".join(CERTIFICATE.findall(file.read_bytes()))
