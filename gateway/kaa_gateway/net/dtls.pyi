"""CoAP over DTLS 1.2. See dtls.pyx."""

import asyncio

from kaa_gateway.coap.server import CoapServer
from kaa_gateway.counters import Counters
from kaa_gateway.identity.clients import Authenticator
from kaa_gateway.net.certificates import ServerCredentials
from kaa_gateway.net.dtls_context import DtlsContext
from kaa_gateway.net.udp import UdpSocket

class DtlsSocket(UdpSocket):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: CoapServer,
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
