"""DTLS 1.2. See dtls.pyx."""

import asyncio
from collections.abc import Callable
from typing import Any

from kaa_gateway.counters import Counters
from kaa_gateway.net.certificates import ServerCredentials
from kaa_gateway.net.dtls_context import DtlsContext
from kaa_gateway.net.udp import DatagramCore, UdpSocket
from kaa_gateway.wire.certificate import ClientCertificate

class DtlsSocket(UdpSocket):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: DatagramCore,
        counters: Counters,
        credentials: ServerCredentials[DtlsContext],
        authenticate: Callable[[str | None, ClientCertificate | None], Any],
        *,
        protocol: str,
        handshake_timeout: float,
        session_timeout: float,
        handshakes_max: int,
        sessions_max: int,
    ) -> None: ...
    def table_sizes(self) -> dict[str, int]: ...
