"""The KP/UDP server. See server.pyx."""

import asyncio

from kaa_gateway.counters import Counters
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.kp.sessions import Sessions
from kaa_gateway.kp.uplink import Uplink
from kaa_gateway.kpudp.tables import PeerTable
from kaa_gateway.net.udp import DatagramCore

class KpudpServer(DatagramCore):
    peers: PeerTable
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        uplink: Uplink,
        sessions: Sessions,
        pending: PendingRequests,
        counters: Counters,
        *,
        peers: int,
        peer_timeout: float,
        ack_timeout: float,
        unacknowledged: int,
    ) -> None: ...
    def begin_drain(self) -> None: ...
    def unacknowledged(self) -> int: ...
