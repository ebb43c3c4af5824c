"""The listeners of a configuration that encrypt, and what each works with.

`kaa_gateway.config` has checked which keys are set; here their files are read, so this is where one that is missing or
does not fit the others is found, at start and by `check-config`.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from kaa_gateway.config import encrypted
from kaa_gateway.config.tls_keys import CoapDtls, StreamTls
from kaa_gateway.errors import ConfigError
from kaa_gateway.net.certificates import ServerCredentials, stream_context
from kaa_gateway.net.dtls_context import DtlsContext

if TYPE_CHECKING:
    from kaa_gateway.config.keys import Transports

HTTP_1_1 = "http/1.1"
"""What HTTPS says of itself in ALPN (RFC 7301)."""


def key_of(path: tuple[str, ...]) -> str:
    """The key of a listener's section in the configuration."""
    return ".".join(("kaa", "kpc", "transports", *path))


def stream_credentials(path: tuple[str, ...], settings: StreamTls) -> ServerCredentials[ssl.SSLContext]:
    """What a listener with TLS over TCP works with. Raises ConfigError."""
    key = key_of(path)
    alpn = None if path[0] == "mqtt" and path[1] == "tls" else HTTP_1_1
    return ServerCredentials(key, settings, lambda material: stream_context(key, settings, alpn))


def datagram_credentials(path: tuple[str, ...], settings: CoapDtls) -> ServerCredentials[DtlsContext]:
    """What the listener with DTLS works with. Raises ConfigError."""
    key = key_of(path)
    return ServerCredentials(key, settings, lambda material: DtlsContext(key, settings, material))


def problems(transports: Transports) -> list[str]:
    """What is wrong with the files of the enabled listeners that encrypt: one line each, at most one a listener."""
    found = []
    for path, settings in encrypted(transports).items():
        if not settings.enabled:
            continue
        try:
            if isinstance(settings, StreamTls):
                stream_credentials(path, settings)
            elif isinstance(settings, CoapDtls):
                datagram_credentials(path, settings)
        except ConfigError as error:
            found.append(error.detail)
    return found
