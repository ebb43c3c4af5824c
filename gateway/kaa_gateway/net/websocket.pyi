"""WebSocket. See websocket.pyx."""

import asyncio
from collections.abc import Iterable

from kaa_gateway.counters import Counters
from kaa_gateway.net.transport import ProtocolServer

class WebSocketServer(ProtocolServer):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        server: ProtocolServer,
        counters: Counters,
        *,
        paths: Iterable[str] = ...,
        subprotocols: tuple[bytes, ...] = ...,
        keeps_messages: bool = ...,
        frame_size_max: int,
        handshake_timeout: float,
    ) -> None: ...
