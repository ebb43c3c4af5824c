"""Encrypted KP/UDP. See secure_socket.pyx."""

import asyncio
from collections.abc import Mapping

from kaa_gateway.counters import Counters
from kaa_gateway.net.certificates import ServerCredentials
from kaa_gateway.net.udp import DatagramCore, UdpSocket

class SecureSocket(UdpSocket):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: DatagramCore,
        counters: Counters,
        credentials: ServerCredentials[Mapping[bytes, bytes]],
        *,
        worker: int,
        session_timeout: float,
        sessions_max: int,
    ) -> None: ...
    def session_count(self) -> int: ...
