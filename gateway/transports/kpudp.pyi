"""The KP/UDP server. See kpudp.pyx."""

import asyncio

from gateway.kp.counters import Counters
from gateway.kp.pending import PendingRequests
from gateway.kp.sessions import Sessions
from gateway.kp.uplink import Uplink
from gateway.transports.kpudp_table import Table
from gateway.transports.udp import DatagramCore

class KpudpTransport(DatagramCore):
    peers: Table
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
