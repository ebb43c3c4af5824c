"""The CoAP server for reliable transports. See stream_server.pyx."""

import asyncio
from collections.abc import Callable, Collection, Mapping

from kaa_gateway.counters import Counters
from kaa_gateway.identity.clients import Client
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.net.input_memory import InputMemory
from kaa_gateway.net.transport import ProtocolServer
from kaa_gateway.wire.certificate import ClientCertificate

class CoapStreamServer(ProtocolServer):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uplink: Uplink,
        sessions: Sessions,
        counters: Counters,
        app_versions: Mapping[str, Collection[str]],
        *,
        authenticate: Callable[[ClientCertificate | None], Client | asyncio.Future[Client]] | None,
        alternative_address: str | None,
        csm_timeout: float,
        ping_after: float,
        response_timeout: float,
        pending_requests: int,
        max_body_size: int,
        block_memory: int,
        transfers_per_peer: int,
        outstanding_per_peer: int,
        observers: int,
        observers_per_peer: int,
        max_wait: float,
        requests_per_second: float,
    ) -> None: ...
    @property
    def pending(self) -> PendingRequests: ...
    def limit(self, input_memory: InputMemory) -> None: ...
    def list_links(self, app_versions: Mapping[str, Collection[str]]) -> None: ...
    def begin_drain(self) -> None: ...
    def has_observers(self) -> bool: ...
    def check(self) -> bool: ...
    def table_sizes(self) -> dict[str, int]: ...
