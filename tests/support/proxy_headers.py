"""Headers of the PROXY protocol, made from its specification with nothing of the gateway's."""

import ipaddress
import socket
import struct
from collections.abc import Sequence

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
STREAM, DATAGRAM = 0x01, 0x02
AUTHORITY, CHECKSUM, TLS = 0x02, 0x03, 0x20
COMMON_NAME = 0x22
TLS_USED, TLS_CERTIFICATE = 0x01, 0x02


def line(source: str, source_port: int = 50_000, destination: str | None = None, port: int = 1883) -> bytes:
    """A header of version 1."""
    six = ":" in source
    destination = destination or ("::1" if six else "127.0.0.1")
    return f"PROXY TCP{6 if six else 4} {source} {destination} {source_port} {port}\r\n".encode()


def field(kind: int, value: bytes) -> bytes:
    """A type, a length and a value."""
    return struct.pack("!BH", kind, len(value)) + value


def tls_field(common_name: bytes | None = None, verify: int = 0, client: int | None = None) -> bytes:
    """What is said of TLS between client and proxy."""
    if client is None:
        client = TLS_USED | (0 if common_name is None else TLS_CERTIFICATE)
    inner = b"" if common_name is None else field(COMMON_NAME, common_name)
    return field(TLS, struct.pack("!BI", client, verify) + inner)


def binary(
    source: str | None,
    source_port: int = 50_000,
    *,
    command: int = PROXY,
    kind: int = STREAM,
    fields: Sequence[bytes] = (),
) -> bytes:
    """A header of version 2; without a source, its family is unspecified."""
    family, addresses = 0, b""
    if source is not None:
        address = ipaddress.ip_address(source)
        family = (0x10 if address.version == 4 else 0x20) | kind
        addresses = 2 * address.packed + struct.pack("!HH", source_port, 1883)
    body = addresses + b"".join(fields)
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def crc_32c(data: bytes) -> int:
    """CRC-32C, by a table, unlike the gateway's."""
    table = []
    for number in range(256):
        entry = number
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def with_checksum(source: str) -> bytes:
    """A header of version 2 with its own checksum."""
    empty = binary(source, fields=[field(CHECKSUM, bytes(4))])
    return empty[:-4] + struct.pack("!I", crc_32c(empty))


def sockaddr(host: str, port: int) -> bytes:
    """An address as the kernel writes it."""
    if ":" in host:
        return struct.pack("=H", socket.AF_INET6) + struct.pack(
            "!HI16sI", port, 0, socket.inet_pton(socket.AF_INET6, host), 0
        )
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
