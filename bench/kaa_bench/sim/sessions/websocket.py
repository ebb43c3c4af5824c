"""MQTT over WebSocket: a layer between a socket and an MQTT session, on the sans-IO client of `websockets`.

Source: RFC 6455; MQTT 3.1.1, section 6.
"""

import asyncio
from typing import cast

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

PATH = "/ws"


class WebSocketPipe(asyncio.Protocol):
    """A protocol for the socket, and a transport for the session. `opened` completes with the handshake."""

    def __init__(self, session: asyncio.Protocol, host: str, port: int) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._session = session
        self._protocol = ClientProtocol(
            parse_uri(f"ws://{host}:{port}{PATH}"), subprotocols=[Subprotocol("mqtt")]
        )
        self._transport: asyncio.Transport | None = None

    # ---------------------------------------------------------------- to the session: a transport

    def write(self, data: bytes) -> None:
        """Send a binary message."""
        if self._transport is None or self._transport.is_closing():
            raise RuntimeError("the connection is closed")
        self._protocol.send_binary(data)
        self._flush()

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Send a close frame, and close."""
        if self._transport is not None and not self._transport.is_closing():
            self._protocol.send_close()
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Close without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------------------------- to the socket: a protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol: request the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._opened()
            elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._session.data_received(bytes(event.data))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("during the handshake"))
        self._session.connection_lost(exc)

    def _opened(self) -> None:
        if self.opened.done():
            # Nobody waits for it any more.
            self.abort()
            return
        refusal = self._protocol.handshake_exc
        if refusal is not None:
            self.opened.set_exception(ConnectionRefusedError(str(refusal)))
            self.abort()
        else:
            self._session.connection_made(cast("asyncio.BaseTransport", self))
            self.opened.set_result(None)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
