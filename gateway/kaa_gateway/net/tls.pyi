"""TLS over TCP. See tls.pyx."""

import asyncio
import ssl
from collections.abc import Callable

from kaa_gateway.counters import Counters
from kaa_gateway.net.certificates import ServerCredentials
from kaa_gateway.net.stream import Outlet, Stream
from kaa_gateway.net.tcp import TcpListener

class TlsListener(TcpListener):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make_stream: Callable[[Outlet], Stream],
        counters: Counters,
        protocol: str,
        output_max: int,
        connections_max: int,
        credentials: ServerCredentials[ssl.SSLContext],
        handshake_timeout: float,
        handshakes_max: int,
    ) -> None: ...
    def handshake_count(self) -> int: ...
