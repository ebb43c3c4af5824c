"""The credentials of the listeners that encrypt, made from the files that the configuration names.

`kaa_gateway.config` has checked which keys are set. The files are read here, at the start and by `check-config`; one
that is missing, or does not fit the others, is found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.app import psk_file
from kaa_gateway.app.listeners import section_of
from kaa_gateway.config import encrypted
from kaa_gateway.config.keys import DatagramTls, StreamTls
from kaa_gateway.errors import ConfigError
from kaa_gateway.net.certificates import ServerCredentials
from kaa_gateway.net.dtls_context import DtlsContext
from kaa_gateway.net.stream_context import StreamContext, stream_context

if TYPE_CHECKING:
    from kaa_gateway.config.keys import Transports
    from kaa_gateway.net.certificates import Material

HTTP_1_1 = "http/1.1"
"""The protocol that HTTPS names in ALPN (RFC 7301)."""


def stream_credentials(path: tuple[str, ...], settings: StreamTls) -> ServerCredentials[StreamContext]:
    """Return the credentials of a listener with TLS over TCP. Raises ConfigError."""
    key = section_of(path)
    alpn = HTTP_1_1 if path in (("http", "tls"), ("mqtt", "websocket", "tls")) else None
    return ServerCredentials(key, settings, lambda material: stream_context(key, settings, alpn, material))


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


def problems(transports: Transports) -> list[str]:
    """Return what is wrong with the files of the enabled listeners that encrypt: at most one line for a listener."""
    found = []
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
