"""The HTTP/1.1 server. See http.pyx."""

import asyncio

from gateway.config_keys import Http
from gateway.identity.clients import Authenticator
from gateway.kp.counters import Counters
from gateway.kp.pending import PendingRequests
from gateway.kp.sessions import Sessions
from gateway.kp.uplink import Uplink
from gateway.transports.stream import InputMemory, Outlet, Stream

class HttpTransport:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uplink: Uplink,
        sessions: Sessions,
        pending: PendingRequests,
        counters: Counters,
        authenticator: Authenticator,
        settings: Http,
    ) -> None: ...
    def limit(self, input_memory: InputMemory) -> None: ...
    def connect(self, outlet: Outlet) -> Stream: ...
    def begin_drain(self) -> None: ...
