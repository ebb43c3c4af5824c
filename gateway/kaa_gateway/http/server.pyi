"""The HTTP/1.1 server of a worker. See server.pyx."""

import asyncio
from collections.abc import Iterable

from kaa_gateway.counters import Counters
from kaa_gateway.http.parser import RequestLimits
from kaa_gateway.identity.clients import Authenticator
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.net.transport import ProtocolServer

class HttpServer(ProtocolServer):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uplink: Uplink,
        sessions: Sessions,
        pending: PendingRequests,
        counters: Counters,
        authenticator: Authenticator,
        limits: RequestLimits,
        *,
        client_authentication: str,
        path_prefix: str,
        allowed_origins: Iterable[str],
        read_timeout: float,
        keep_alive_timeout: float,
        pipelined_requests: int,
        max_wait: float,
    ) -> None: ...
    def limit(self, input_memory: InputMemory) -> None: ...
    def begin_drain(self) -> None: ...
    def is_busy(self) -> bool: ...
    def end_drain(self) -> None: ...
