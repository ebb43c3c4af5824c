"""The text that `kaa-gateway dev` prints: addresses of the platform, and commands to try it with."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kaa_gateway.config import Config

ADDRESSES = (
    ("MQTT", "mqtt"),
    ("MQTTS", "mqtts"),
    ("WebSocket", "ws"),
    ("WebSocket", "wss"),
    ("HTTP", "http"),
    ("HTTPS", "https"),
    ("CoAP", "coap"),
    ("CoAPS", "coaps"),
    ("MQTT-SN", "mqtt-sn"),
    ("MQTT-SN over DTLS", "mqtt-sns"),
    ("CoAP/TCP", "coap+tcp"),
    ("CoAP/TLS", "coaps+tcp"),
    ("CoAP/WS", "coap+ws"),
    ("CoAP/WSS", "coaps+ws"),
    ("KP/UDP", "udp"),
    ("KP/UDP", "udps"),
)
"""The names of the listeners, and the schemes of their addresses."""
NATS_PORT = 4222
"""Where the commands of the extensions look for NATS unless told."""


class Platform(NamedTuple):
    """The addresses and settings that the printed commands need."""

    config: Config
    ports: Mapping[str, int]
    """By name of the listener; `admin` is the management port."""
    nats_url: str
    nats_port: int
    rest_port: int | None
    """None if the REST API is not installed."""
    tenant: str | None
    """The tenant of clients that name none, if tokens and clients are checked."""


def greeting(platform: Platform) -> list[str]:
    """Return the lines to print, the last of which is `ready`."""
    lines = [*_addresses(platform), ""]
    version = _demo_version(platform)
    if version is not None:
        lines += _data_commands(platform, version)
        if {"cmx", "cex"} <= platform.config.app_versions[version].allowed:
            lines += [
                "Set its configuration, and send it a command:",
                "",
                f"  {_kaa_ext()} config set my-device '{{\"interval\": 10}}' --app-version {version}"
                f"{_nats_option(platform)}",
                f"  {_kaa_ext()} command send my-device reboot --wait{_nats_option(platform)}",
                "",
            ]
    return [*lines, "ready"]


def _demo_version(platform: Platform) -> str | None:
    """Return an application version that may send data."""
    versions = sorted(platform.config.app_versions.items())
    return next((name for name, version in versions if "dcx" in version.allowed), None)


def _addresses(platform: Platform) -> Iterator[str]:
    ports = platform.ports
    yield f"NATS        {platform.nats_url}"
    prefix = platform.config.transports.http.path_prefix
    paths = {"ws": "/ws", "wss": "/ws", "http": prefix, "https": prefix}
    for title, name in ADDRESSES:
        if name in ports:
            yield f"{title:<12}{name}://localhost:{ports[name]}{paths.get(name, '')}"
    yield f"Management  http://localhost:{ports['admin']}/health/ready"
    yield f"Live page   http://localhost:{ports['admin']}/"
    if platform.rest_port is None:
        yield "REST API    is not installed: pip install litestar uvicorn"
        return
    url = f"http://localhost:{platform.rest_port}"
    yield f"REST API    {url}/openapi.json"
    if (version := _demo_version(platform)) is not None:
        yield f"Demo page   {url}/demo#my-device/{version}"


def _data_commands(platform: Platform, version: str) -> Iterator[str]:
    ports, nats = platform.ports, _nats_option(platform)
    token, user, curl_user, mosquitto_user = "my-device", "", "", ""
    if platform.tenant is not None:
        application = platform.config.app_versions[version].application
        tenant = platform.config.app_versions[version].tenant or platform.tenant
        token, name = "my-token", "my-client"
        user = name if tenant == platform.tenant else f"{name}@{tenant}"
        curl_user, mosquitto_user = f"-u {user}:my-password ", f"-u {user} -P my-password "
        yield from (
            "Make a token of the endpoint my-device, and a client that may connect:",
            "",
            f"  {_kaa_ext()} auth add my-device --app {application} --token {token}{nats}",
            f"  {_kaa_ext()} auth add-client {name} --tenant {tenant} --password my-password{nats}",
            "",
        )
    topic = f"kp1/{version}/dcx/{token}/json"
    if "http" in ports:
        url = f"http://localhost:{ports['http']}{platform.config.transports.http.path_prefix}/{topic}"
        data = '{"temperature": 21.5}'
        yield from ("Send data as a device:", "", f"  curl -i {curl_user}-d '{data}' {url}")
    if "mqtt" in ports:
        yield (
            f"  mosquitto_pub -p {ports['mqtt']} {mosquitto_user}-q 1 -t {topic}/1 "
            f"-m '{{\"temperature\": 21.5}}'"
        )
    yield ""
    if platform.tenant is not None:
        yield from (
            "See what there is, and take it back:",
            "",
            f"  {_kaa_ext()} auth list{nats}",
            f"  {_kaa_ext()} auth revoke ID{nats}",
            "",
        )


def _nats_option(platform: Platform) -> str:
    return f" --nats {platform.nats_url}" if platform.nats_port != NATS_PORT else ""


def _kaa_ext() -> str:
    """Return the command of the extensions, as it can be typed here."""
    path = Path(sysconfig.get_path("scripts")) / "kaa-ext"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
