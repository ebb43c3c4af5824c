"""TLS over TCP. See tls.pyx."""

import asyncio

from kaa_gateway.counters import Counters
from kaa_gateway.net.admission import Admission
from kaa_gateway.net.certificates import ServerCredentials
from kaa_gateway.net.stream_context import StreamContext
from kaa_gateway.net.tcp_listener import TcpListener
from kaa_gateway.net.transport import ProtocolServer

class TlsListener(TcpListener):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        server: ProtocolServer,
        counters: Counters,
        *,
        protocol: str,
        output_max: int,
        connections_max: int,
        admission: Admission | None = ...,
        credentials: ServerCredentials[StreamContext],
        handshake_timeout: float,
        handshakes_max: int,
    ) -> None: ...
    def handshake_count(self) -> int: ...
