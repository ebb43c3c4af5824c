"""CoAP over DTLS 1.2. See dtls.pyx."""

import asyncio

from gateway.identity.clients import Authenticator
from gateway.kp.counters import Counters
from gateway.transports.certificates import ServerCredentials
from gateway.transports.coap import CoapCore
from gateway.transports.dtls_context import DtlsContext
from gateway.transports.udp import UdpSocket

class DtlsSocket(UdpSocket):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: CoapCore,
        counters: Counters,
        credentials: ServerCredentials[DtlsContext],
        authenticator: Authenticator,
        *,
        handshake_timeout: float,
        session_timeout: float,
        handshakes_max: int,
        sessions_max: int,
    ) -> None: ...
    def table_sizes(self) -> dict[str, int]: ...
