"""The HTTP request that opens a WebSocket, and its answer, sans-IO.

Source: RFC 6455 sections 4.2.1 and 4.2.2; MQTT 3.1.1 section 6.0; RFC 9112 for requests of HTTP.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.http import read_head

if TYPE_CHECKING:
    from collections.abc import Collection

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_SIZE = 16
_AUTHORITY = re.compile(rb"\A(?:https?|wss?)://[^/?#]*", re.IGNORECASE)


class Answer(NamedTuple):
    """The answer to a request."""

    response: bytes
    reason: str | None
    """Reason code of a refusal, or None if the WebSocket is open."""


class _Fields:
    """The header fields of a request."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def elements(self, name: bytes) -> list[bytes]:
        """Return the elements of a field that is a list, from all its lines."""
        return [word.strip() for line in self._fields.get(name, ()) for word in line.split(b",")]

    def single(self, name: bytes) -> bytes | None:
        """Return the value of a field that must be there once; None if it is not."""
        values = self._fields.get(name, [])
        return values[0] if len(values) == 1 else None


def answer(request: bytes, paths: Collection[bytes], subprotocols: tuple[bytes, ...]) -> Answer:
    """Answer a complete request head, from its first byte to the empty line.

    It must be for one of these paths and subprotocols.
    """
    try:
        head = read_head(request)
    except ProtocolError:
        return refusal(400, "ws_malformed_request", "Malformed request")
    fields = _Fields(head.fields)
    if head.version != (1, 1) or fields.single(b"host") is None:
        return refusal(400, "ws_malformed_request", "An HTTP/1.1 request with one Host is needed")
    if _path(head.target) not in paths:
        return refusal(404, "ws_path", "The WebSocket is on another path")
    if head.method != b"GET":
        return refusal(405, "ws_method", "Only GET is allowed", "Allow: GET\r\n")
    return _upgrade(fields, subprotocols)


def _path(target: bytes) -> bytes:
    """Return the path of a target in origin-form or absolute-form (RFC 9112 section 3.2)."""
    path = _AUTHORITY.sub(b"", target, count=1)
    return path.partition(b"?")[0] or b"/"


def _upgrade(fields: _Fields, subprotocols: tuple[bytes, ...]) -> Answer:
    """Accept a GET of the right path as a WebSocket, or refuse it (section 4.2.1)."""
    upgrade = {word.lower() for word in fields.elements(b"upgrade")}
    connection = {word.lower() for word in fields.elements(b"connection")}
    if b"websocket" not in upgrade or b"upgrade" not in connection:
        return refusal(426, "ws_no_upgrade", "This is a WebSocket", "Upgrade: websocket\r\n")
    if fields.single(b"sec-websocket-version") != b"13":
        expected = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        return refusal(426, "ws_version", "Only WebSocket version 13 is spoken", expected)
    key = fields.single(b"sec-websocket-key")
    if key is None or not _is_key(key):
        return refusal(400, "ws_key", "One Sec-WebSocket-Key of 16 bytes in base64 is needed")
    subprotocol = next(
        (word for word in fields.elements(b"sec-websocket-protocol") if word in subprotocols), None
    )
    if subprotocol is None:
        return refusal(400, "ws_subprotocol", f"The subprotocol {subprotocols[0].decode()} is needed")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return Answer(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: " + subprotocol + b"\r\n\r\n",
        None,
    )


def refusal(status: int, reason: str, phrase: str, fields: str = "") -> Answer:
    """Refuse a request; the connection closes after the response."""
    body = msgspec.json.encode({"statusCode": status, "reasonPhrase": phrase})
    head = (
        f"HTTP/1.1 {status} {phrase}\r\n{fields}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return Answer(head.encode() + body, reason)


def _is_key(key: bytes) -> bool:
    """Return whether this is a Sec-WebSocket-Key: 16 bytes in base64."""
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_SIZE
    except binascii.Error:
        return False
