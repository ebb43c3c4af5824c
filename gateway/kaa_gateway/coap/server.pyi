"""The CoAP server. See server.pyx."""

from collections.abc import Collection, Mapping

from kaa_gateway.counters import Counters
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.net.udp import DatagramCore

class CoapServer(DatagramCore):
    pending: PendingRequests
    def __init__(
        self,
        uplink: Uplink,
        sessions: Sessions,
        counters: Counters,
        app_versions: Mapping[str, Collection[str]],
        *,
        piggyback_delay: float,
        response_timeout: float,
        ack_timeout: float,
        pending_requests: int,
        max_body_size: int,
        block_memory: int,
        transfers_per_peer: int,
        peers: int,
        exchanges: int,
        exchanges_per_peer: int,
        outstanding_per_peer: int,
        observers: int,
        observers_per_peer: int,
        max_wait: float,
        requests_per_second: float,
        require_echo: bool,
        now: float,
    ) -> None: ...
    def list_links(self, app_versions: Mapping[str, Collection[str]]) -> None: ...
    def answer_multicast(self, leisure: float) -> None: ...
    def begin_drain(self) -> None: ...
    def has_observers(self) -> bool: ...
    def table_sizes(self) -> dict[str, int]: ...
