"""Which listeners a configuration has, with the places of their keys."""

from collections.abc import Iterator
from typing import NamedTuple

from kaa_gateway.config.keys import ServerTls, Transports
from kaa_gateway.config.schema import Path

DATAGRAM_PATHS = (
    ("coap",),
    ("coap", "dtls"),
    ("udp",),
    ("udp", "secure"),
    ("mqtt-sn",),
    ("mqtt-sn", "dtls"),
)
"""Where the keys of listeners for datagrams are below kaa.kpc.transports, but for those of plug-ins."""


class ListenerPort(NamedTuple):
    """The port of a listener."""

    path: Path
    """Where it is set."""
    below: str
    """The protocol below: `tcp` or `udp`."""
    number: int


def encrypted(transports: Transports) -> dict[Path, ServerTls]:
    """Return the listeners that encrypt, enabled or not, by where their keys are below kaa.kpc.transports."""
    plugins: dict[Path, ServerTls] = {}
    for name, protocol in transports.protocols.items():
        below = "tls" if protocol.transport == "tcp" else "dtls"
        plugins["protocols", name, below] = protocol.tls if below == "tls" else protocol.dtls
    return {
        ("mqtt", "tls"): transports.mqtt.tls,
        ("mqtt", "websocket", "tls"): transports.mqtt.websocket.tls,
        ("http", "tls"): transports.http.tls,
        ("coap", "dtls"): transports.coap.dtls,
        ("mqtt-sn", "dtls"): transports.mqtt_sn.dtls,
        ("coap", "tls"): transports.coap.tls,
        ("coap", "websocket", "tls"): transports.coap.websocket.tls,
        **plugins,
    }


def listener_ports(transports: Transports) -> Iterator[ListenerPort]:
    """Yield the ports of the enabled listeners for devices."""
    for path, listener in (
        (("mqtt", "tcp"), transports.mqtt.tcp),
        (("mqtt", "tls"), transports.mqtt.tls),
        (("mqtt", "websocket"), transports.mqtt.websocket),
        (("mqtt", "websocket", "tls"), transports.mqtt.websocket.tls),
        (("http",), transports.http),
        (("http", "tls"), transports.http.tls),
        (("coap",), transports.coap),
        (("coap", "dtls"), transports.coap.dtls),
        (("coap", "tcp"), transports.coap.tcp),
        (("coap", "tls"), transports.coap.tls),
        (("coap", "websocket"), transports.coap.websocket),
        (("coap", "websocket", "tls"), transports.coap.websocket.tls),
        (("udp",), transports.udp),
        (("udp", "secure"), transports.udp.secure),
        (("mqtt-sn",), transports.mqtt_sn),
        (("mqtt-sn", "dtls"), transports.mqtt_sn.dtls),
    ):
        if listener.enabled:
            below = "udp" if path in DATAGRAM_PATHS else "tcp"
            yield ListenerPort(("kaa", "kpc", "transports", *path, "port"), below, listener.port)
    for name, protocol in transports.protocols.items():
        here: Path = ("kaa", "kpc", "transports", "protocols", name)
        encryption, encrypted = (
            ("tls", protocol.tls) if protocol.transport == "tcp" else ("dtls", protocol.dtls)
        )
        if protocol.enabled:
            yield ListenerPort((*here, "port"), protocol.transport, protocol.port)
        if encrypted.enabled:
            yield ListenerPort((*here, encryption, "port"), protocol.transport, encrypted.port)
