"""A device of CoAP on the gateway's codec: confirmable POSTs with the retransmission of RFC 7252.

Source: RFC 7252, sections 4.2, 4.8 and 5.2.
"""

import asyncio
import random
from typing import cast

from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire import coap

from kaa_bench.sim.sessions import SessionError

CON, ACK, RST = 0, 2, 3
EMPTY, POST = 0, 2
URI_PATH = 11
SUCCESS = 2
ACK_TIMEOUT_S = 2.0
JITTER = 0.5
MAX_RETRANSMIT = 4
MESSAGE_IDS = 1 << 16
TOKEN_SIZE = 4


class CoapSession(asyncio.DatagramProtocol):
    """See `Session`."""

    def __init__(
        self, host: str, port: int, *, timeout: float, source: tuple[str, int] | None = None
    ) -> None:
        self._address = host, port
        self._source = source
        self._timeout = timeout
        self._transport: asyncio.DatagramTransport | None = None
        self._message_id = random.randrange(MESSAGE_IDS)
        self._tokens: dict[bytes, asyncio.Future[int]] = {}
        self._requests: dict[int, bytes] = {}
        self._taken: set[bytes] = set()

    async def connect(self) -> None:
        """See `Session.connect`: open a socket."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(
                lambda: self, remote_addr=self._address, local_addr=self._source
            )
        except OSError as error:
            raise SessionError(f"connect: {type(error).__name__}") from None

    async def send(self, path: str, payload: bytes) -> None:
        """See `Session.send`."""
        if self._transport is None:
            raise SessionError("connection lost")
        self._message_id = message_id = (self._message_id + 1) % MESSAGE_IDS
        token = random.randbytes(TOKEN_SIZE)
        response = self._tokens[token] = asyncio.get_running_loop().create_future()
        self._requests[message_id] = token
        options = tuple((URI_PATH, segment.encode()) for segment in path.split("/"))
        datagram = coap.encode(coap.Message(CON, POST, message_id, token, options, payload))
        sending = asyncio.ensure_future(self._transmit(datagram, token))
        try:
            async with asyncio.timeout(self._timeout):
                code = await response
        except TimeoutError:
            raise SessionError("not answered in time") from None
        finally:
            sending.cancel()
            del self._tokens[token], self._requests[message_id]
            self._taken.discard(token)
        if code >> 5 != SUCCESS:
            raise SessionError(f"code {code >> 5}.{code & 0x1F:02d}")

    async def _transmit(self, datagram: bytes, token: bytes) -> None:
        wait = ACK_TIMEOUT_S * (1 + JITTER * random.random())
        for _ in range(MAX_RETRANSMIT + 1):
            if self._transport is None or token in self._taken:
                return
            self._transport.sendto(datagram)
            await asyncio.sleep(wait)
            wait *= 2

    async def listen(self, path: str) -> None:
        """See `Session.listen`: these devices do not observe."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `Session.close`."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # ---------------------------------------------------------------- asyncio.DatagramProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.DatagramProtocol."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """See asyncio.DatagramProtocol. Malformed messages are dropped."""
        try:
            message = coap.decode(data)
        except ProtocolError:
            return
        if message.type == CON and self._transport is not None:
            self._transport.sendto(coap.encode(coap.Message(ACK, EMPTY, message.message_id)))
        if message.code == EMPTY:
            token = self._requests.get(message.message_id, b"")
            if message.type == ACK:
                self._taken.add(token)
            elif message.type == RST and token in self._tokens and not self._tokens[token].done():
                self._tokens[token].set_exception(SessionError("reset"))
            return
        waiting = self._tokens.get(message.token)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.code)

    def error_received(self, exc: Exception) -> None:
        """See asyncio.DatagramProtocol. The message counts as lost and is sent again."""
