"""The credentials of the listeners that encrypt, made from the files that the configuration names.

`kaa_gateway.config` has checked which keys are set. The files are read here, at the start and by `check-config`; one
that is missing, or does not fit the others, is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Never

from kaa_gateway.app import psk_file
from kaa_gateway.app.listeners import section_of
from kaa_gateway.config import encrypted
from kaa_gateway.config.keys import DatagramTls, StreamTls
from kaa_gateway.errors import ConfigError
from kaa_gateway.net.certificates import ServerCredentials, unusable
from kaa_gateway.net.dtls_context import DtlsContext
from kaa_gateway.net.stream_context import StreamContext, stream_context

if TYPE_CHECKING:
    from kaa_gateway.config.keys import SecureUdp, Transports
    from kaa_gateway.net.certificates import Material

ALPN = {
    ("http", "tls"): "http/1.1",
    ("mqtt", "websocket", "tls"): "http/1.1",
    ("coap", "websocket", "tls"): "http/1.1",
    ("coap", "tls"): "coap",
}
"""The protocols that listeners name in ALPN (RFC 7301; RFC 8323 section 8.2)."""


@dataclass(frozen=True)
class KeysOnly:
    """The settings of a listener that has pre-shared keys and no certificate."""

    psk_file: Path
    cert_file: None = None
    key_file: None = None
    ca_file: None = None
    crl_file: None = None
    client_certificate: str = "off"
    ciphers: str = ""
    tenants: Mapping[str, Never] = field(default_factory=dict)


def stream_credentials(path: tuple[str, ...], settings: StreamTls) -> ServerCredentials[StreamContext]:
    """Return the credentials of a listener with TLS over TCP. Raises ConfigError."""
    key = section_of(path)
    return ServerCredentials(
        key, settings, lambda material: stream_context(key, settings, ALPN.get(path), material)
    )


def datagram_credentials(path: tuple[str, ...], settings: DatagramTls) -> ServerCredentials[DtlsContext]:
    """Return the credentials of the listener with DTLS. Raises ConfigError."""
    section = section_of(path)

    def make(material: Material) -> DtlsContext:
        keys = None
        if settings.psk_file is not None:
            keys = psk_file.read_keys(f"{section}.psk-file", settings.psk_file)
        return DtlsContext(
            section,
            material,
            ciphers=settings.ciphers,
            client_certificate=settings.client_certificate,
            psk_keys=keys,
        )

    return ServerCredentials(section, settings, make)


def shared_keys(settings: SecureUdp) -> ServerCredentials[Mapping[bytes, bytes]]:
    """Return the keys by identity of encrypted KP/UDP. Raises ConfigError.

    A short key is refused: whoever records the beginning of a session can try short ones at leisure.
    """
    section = section_of(("udp", "secure"))
    key = f"{section}.psk-file"
    assert settings.psk_file is not None
    path = settings.psk_file

    def make(_: Material) -> Mapping[bytes, bytes]:
        keys = psk_file.read_keys(key, path)
        if any(len(each) < psk_file.SAFE_KEY_SIZE for each in keys.values()):
            raise unusable(key, f"{path}: a key has at least {psk_file.SAFE_KEY_SIZE} bytes")
        return keys

    return ServerCredentials(section, KeysOnly(path), make)


def problems(transports: Transports) -> list[str]:
    """Return what is wrong with the files of the enabled listeners that encrypt: at most one line for a listener."""
    found = []
    if transports.udp.secure.enabled:
        try:
            shared_keys(transports.udp.secure)
        except ConfigError as error:
            found.append(error.detail)
    for path, settings in encrypted(transports).items():
        if not settings.enabled:
            continue
        try:
            if isinstance(settings, StreamTls):
                stream_credentials(path, settings)
            elif isinstance(settings, DatagramTls):
                datagram_credentials(path, settings)
        except ConfigError as error:
            found.append(error.detail)
    return found
