"""Plain TCP. See tcp.pyx."""

import asyncio
from collections.abc import Callable

from gateway.kp.counters import Counters
from gateway.transports.stream import Outlet, Stream

class TcpListener:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make_stream: Callable[[Outlet], Stream],
        counters: Counters,
        protocol: str,
        output_max: int,
        connections_max: int,
    ) -> None: ...
    async def start(self, host: str, port: int, *, reuse_port: bool) -> None: ...
    @property
    def port(self) -> int: ...
    def connection_count(self) -> int: ...
    def check(self) -> None: ...
    def stop_accepting(self) -> None: ...
    async def stop(self, timeout: float) -> None: ...
