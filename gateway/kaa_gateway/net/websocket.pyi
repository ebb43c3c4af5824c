"""WebSocket. See websocket.pyx."""

import asyncio
from collections.abc import Callable, Iterable

from kaa_gateway.counters import Counters
from kaa_gateway.net.transport import ProtocolCore, Transport

class WebSocketServer:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make_core: Callable[[Transport], ProtocolCore],
        counters: Counters,
        *,
        paths: Iterable[str] = ...,
        subprotocols: tuple[bytes, ...] = ...,
        keeps_messages: bool = ...,
        frame_size_max: int,
        handshake_timeout: float,
    ) -> None: ...
    def connect(self, transport: Transport) -> ProtocolCore: ...
