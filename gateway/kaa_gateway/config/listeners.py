"""Which listeners a configuration has, with the places of their keys."""

from collections.abc import Iterator
from typing import NamedTuple

from kaa_gateway.config.keys import ServerTls, Transports
from kaa_gateway.config.schema import Path


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
        (("udp",), transports.udp),
        (("udp", "secure"), transports.udp.secure),
        (("mqtt-sn",), transports.mqtt_sn),
        (("mqtt-sn", "dtls"), transports.mqtt_sn.dtls),
    ):
        if listener.enabled:
            below = "udp" if path[0] in ("coap", "udp", "mqtt-sn") else "tcp"
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
