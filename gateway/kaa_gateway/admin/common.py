"""What the management API serves alike for one worker and for the supervisor of several."""

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
from kaa_gateway.config import masked

if TYPE_CHECKING:
    from kaa_gateway.config import Config

ELSEWHERE = frozenset({"service", "server", "app_versions", "extension_instances", "warnings"})
"""Parts of a Config that are not under kaa.kpc, or no keys."""
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


class LogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /api/v1/log`, and what GET answers."""

    level: logs.Level


def common_routes(current: Callable[[], Config]) -> list[web.RouteDef]:
    """The page, the description of the API, the current configuration, the certificate, the log level."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(
            text=_resource("page.html"),
            content_type="text/html",
            charset="utf-8",
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
                " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
            },
        )

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
        ):
            if listener.enabled and listener.cert_file is not None:
                return web.Response(
                    body=certificates(listener.cert_file), content_type="application/x-pem-file"
                )
        raise web.HTTPNotFound(text="No listener with a certificate is enabled.")

    return [
        web.get("/", page, allow_head=False),
        web.get("/api/v1/openapi.json", description, allow_head=False),
        web.get("/api/v1/config", configuration, allow_head=False),
        web.get("/api/v1/certificate", certificate, allow_head=False),
        web.get("/api/v1/log", _show_level, allow_head=False),
    ]


async def _show_level(request: web.Request) -> web.Response:
    return web.json_response({"level": logs.level()})


async def set_level(request: web.Request) -> web.Response:
    """`PUT /api/v1/log`: the level of this process; 400 says what is wrong with the body."""
    try:
        change = msgspec.json.decode(await request.read(), type=LogLevel)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(text=f"the body: {error}") from error
    logs.set_level(change.level)
    return web.json_response({"level": logs.level()})


@cache
def _resource(name: str) -> str:
    return (resources.files("kaa_gateway.admin") / name).read_text(encoding="utf-8")


@cache
def openapi() -> dict[str, Any]:
    """The description of the API."""
    document: dict[str, Any] = yaml.safe_load(_resource("openapi.yml"))
    return document


def shown(config: Config) -> dict[str, Any]:
    """The configuration as it is in effect, arranged as in service-config.yml, without secrets."""
    applications: dict[str, Any] = {}
    for version in config.app_versions.values():
        application = applications.setdefault(version.application, {"tenant": version.tenant, "versions": {}})
        application["versions"][version.name] = {"allowed-extension-instances": sorted(version.allowed)}
    kpc = {
        name.replace("_", "-"): getattr(config, name)
        for name in config.__struct_fields__
        if name not in ELSEWHERE
    }
    document: dict[str, Any] = msgspec.to_builtins(
        {
            "service": config.service,
            "server": config.server,
            "kaa": {
                "applications": applications,
                "extension-instances": {
                    each.name: {"endpoint-aware": each.endpoint_aware, "durable": each.durable}
                    for each in config.extension_instances.values()
                },
                "kpc": kpc,
            },
        },
        enc_hook=str,
    )
    document["kaa"]["kpc"]["nats"]["urls"] = [masked(url) for url in config.nats.urls]
    return document


def certificates(file: Path) -> bytes:
    """The certificates in a PEM file, and nothing else that may be in it, such as a key; read anew each time."""
    return b"".join(CERTIFICATE.findall(file.read_bytes()))
