"""MQTT-SN as the tests speak it: messages by the specification, and a client that goes step by step."""

import asyncio
import socket
from typing import Self

from tests.support.nats import HOST

ANSWER_TIMEOUT_S = 30.0
QUIET_S = 0.2

ADVERTISE, SEARCHGW, GWINFO = 0x00, 0x01, 0x02
CONNECT, CONNACK = 0x04, 0x05
WILLTOPICREQ, WILLTOPIC, WILLMSGREQ, WILLMSG = 0x06, 0x07, 0x08, 0x09
REGISTER, REGACK = 0x0A, 0x0B
PUBLISH, PUBACK, PUBCOMP, PUBREC, PUBREL = 0x0C, 0x0D, 0x0E, 0x0F, 0x10
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x12, 0x13, 0x14, 0x15
PINGREQ, PINGRESP, DISCONNECT = 0x16, 0x17, 0x18
WILLTOPICUPD, WILLTOPICRESP, WILLMSGUPD, WILLMSGRESP = 0x1A, 0x1B, 0x1C, 0x1D

DUP, RETAIN, WILL, CLEAN = 0x80, 0x10, 0x08, 0x04
NORMAL, PREDEFINED, SHORT = 0, 1, 2
QOS = {0: 0x00, 1: 0x20, 2: 0x40, -1: 0x60}
ACCEPTED, CONGESTION, INVALID_TOPIC_ID, NOT_SUPPORTED = 0, 1, 2, 3


def message(type_: int, body: bytes = b"", *, long: bool = False) -> bytes:
    """Return a message; `long` takes the length of three bytes where it is not needed."""
    size = len(body) + 2
    if size > 255 or long:
        return b"\x01" + (size + 2).to_bytes(2, "big") + bytes([type_]) + body
    return bytes([size, type_]) + body


def number(value: int) -> bytes:
    """Return a field of two bytes."""
    return value.to_bytes(2, "big")


def connect(client_id: str, *, flags: int = CLEAN, duration: int = 60, protocol_id: int = 1) -> bytes:
    """Return a CONNECT."""
    return message(CONNECT, bytes([flags, protocol_id]) + number(duration) + client_id.encode())


def register(message_id: int, topic: str) -> bytes:
    """Return a REGISTER of a client."""
    return message(REGISTER, number(0) + number(message_id) + topic.encode())


def publish(
    topic_id: int | bytes,
    payload: bytes,
    *,
    qos: int = 0,
    message_id: int = 0,
    kind: int = NORMAL,
    dup: bool = False,
) -> bytes:
    """Return a PUBLISH; a topic ID of bytes is a short topic name."""
    topic = topic_id if isinstance(topic_id, bytes) else number(topic_id)
    return message(
        PUBLISH, bytes([QOS[qos] | kind | (DUP if dup else 0)]) + topic + number(message_id) + payload
    )


def subscribe(message_id: int, topic: str | int, *, qos: int = 0, undo: bool = False) -> bytes:
    """Return a SUBSCRIBE or UNSUBSCRIBE to a topic filter, or to a predefined topic ID."""
    kind, name = (PREDEFINED, number(topic)) if isinstance(topic, int) else (NORMAL, topic.encode())
    body = bytes([QOS[qos] | kind]) + number(message_id) + name
    return message(UNSUBSCRIBE if undo else SUBSCRIBE, body)


def acknowledgement(type_: int, topic_id: int, message_id: int, code: int = ACCEPTED) -> bytes:
    """Return a PUBACK or REGACK."""
    return message(type_, number(topic_id) + number(message_id) + bytes([code]))


class SnClient:
    """A socket of a device. `type, body` are what it receives."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((HOST, 0))
        self.socket.connect((HOST, port))

    def send(self, *messages: bytes) -> None:
        """Send messages, each as a datagram."""
        for each in messages:
            self.socket.send(each)

    async def raw(self) -> bytes:
        """Return the next datagram."""
        return await asyncio.wait_for(
            asyncio.get_running_loop().sock_recv(self.socket, 65536), ANSWER_TIMEOUT_S
        )

    async def receive(self) -> tuple[int, bytes]:
        """Return type and body of the next message."""
        datagram = await self.raw()
        if datagram[0] == 1:
            assert int.from_bytes(datagram[1:3], "big") == len(datagram)
            return datagram[3], datagram[4:]
        assert datagram[0] == len(datagram)
        return datagram[1], datagram[2:]

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a message, and return the next one."""
        self.send(request)
        return await self.receive()

    async def silence(self) -> None:
        """Assert that nothing comes for a while."""
        try:
            async with asyncio.timeout(QUIET_S):
                datagram = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        except TimeoutError:
            return
        raise AssertionError(f"received {datagram!r}")

    async def connect(self, client_id: str, *, flags: int = CLEAN, duration: int = 60) -> None:
        """Connect without a will."""
        answer = await self.ask(connect(client_id, flags=flags, duration=duration))
        assert answer == (CONNACK, b"\0"), answer

    async def register(self, topic: str, message_id: int = 1) -> int:
        """Return the topic ID of a topic."""
        kind, body = await self.ask(register(message_id, topic))
        assert (kind, body[2:]) == (REGACK, number(message_id) + b"\0"), body
        return int.from_bytes(body[:2], "big")

    async def subscribe(self, topic: str | int, *, qos: int = 0, message_id: int = 9) -> int:
        """Subscribe, and return the topic ID in SUBACK."""
        kind, body = await self.ask(subscribe(message_id, topic, qos=qos))
        assert kind == SUBACK, kind
        assert body[0] == QOS[qos], body
        assert body[3:] == number(message_id) + b"\0", body
        return int.from_bytes(body[1:3], "big")

    async def sleep(self, duration: int) -> None:
        """Go to sleep."""
        assert await self.ask(message(DISCONNECT, number(duration))) == (DISCONNECT, b"")

    def close(self) -> None:
        """Close the socket, without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
