"""What a device or an operator can make long, filled to its bound and emptied, while a watcher waits for answers."""

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import yaml

from kaa_bench import packets
from kaa_bench.connecting import Address, connect_mqtt, raise_file_limit
from kaa_bench.errors import BenchError
from kaa_bench.packets import APP_VERSION, EXTENSION
from kaa_bench.processes import Gateway, NatsServer

GONE_VERSION = "bench_gone_v1"
"""The application version that is removed."""
CONNECTIONS = 20
TOKENS = 10_000
"""Of a connection: the default of `endpoints-per-connection`."""
IDLE_CONNECTIONS = 2_000
FILTERS = 1_000
"""Topic filters of a session: the default of `subscriptions`."""
FILTER_SIZE = 1_000
"""Bytes of a long topic filter."""
ABSENT = 200
"""Sessions with as many long filters: more than the default of `persistent-session-memory` takes."""
PACKET_SIZE = 1_000_000
"""Bytes of a packet, just below the default of `max-packet-size`."""
BATCH = 1_000
"""Messages between two PINGREQ."""
PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"
TIMEOUT_S = 120.0

Steps = Iterator[str]


class Situation(NamedTuple):
    """Something that takes long. `run` yields the name of each step when it is over."""

    name: str
    run: Callable[["WatchedGateway", float], Steps]


class WatchedGateway(Gateway):
    """The gateway of the bench with a second application version, which `remove_version` takes away."""

    def __init__(self, nats: NatsServer) -> None:
        super().__init__(nats)
        self._removed = False

    def configuration(self) -> dict[str, object]:
        """See `Gateway.configuration`."""
        document = super().configuration()
        versions = {APP_VERSION: {"allowed-extension-instances": [EXTENSION]}}
        if not self._removed:
            versions[GONE_VERSION] = {"allowed-extension-instances": [EXTENSION]}
        kaa = document["kaa"]
        assert isinstance(kaa, dict)
        return document | {"kaa": kaa | {"applications": {"bench": {"versions": versions}}}}

    def remove_version(self, *, removed: bool = True) -> None:
        """Apply the configuration without the second version, or with it."""
        self._removed = removed
        (self.directory / "service-config.yml").write_text(yaml.safe_dump(self.configuration()))
        os.kill(self.pid, signal.SIGHUP)


def situations() -> list[Situation]:
    """Return all of them."""
    return [
        Situation("a version with endpoints is removed", _removed_version),
        Situation("connections with endpoints end", _ended_connections),
        Situation("long SUBSCRIBE and UNSUBSCRIBE", _subscriptions),
        Situation("absent sessions are evicted", _absent_sessions),
        Situation("all connections end", _many_connections),
    ]


def _removed_version(gateway: WatchedGateway, scale: float) -> Steps:
    connections = _speaking(gateway.address_of("mqtt"), GONE_VERSION, int(TOKENS * scale))
    yield f"{CONNECTIONS} connections name {int(TOKENS * scale):,} tokens each"
    gateway.remove_version()
    for connection in connections:
        _wait_for_end(connection)
    yield "the version is removed"
    gateway.remove_version(removed=False)
    time.sleep(5)  # until the configuration is applied again
    yield "the version is added"


def _ended_connections(gateway: WatchedGateway, scale: float) -> Steps:
    connections = _speaking(gateway.address_of("mqtt"), APP_VERSION, int(TOKENS * scale))
    yield f"{CONNECTIONS} connections name {int(TOKENS * scale):,} tokens each"
    for connection in connections:
        connection.sendall(DISCONNECT)
    for connection in connections:
        _wait_for_end(connection)
    time.sleep(3 * scale)  # for what is done behind the end of the connections
    yield "they disconnect"


def _subscriptions(gateway: WatchedGateway, scale: float) -> Steps:
    connection = connect_mqtt(gateway.address_of("mqtt"), 0, packets.BENCH)
    with connection:
        connection.settimeout(TIMEOUT_S)
        subscribe_to(connection, 0, FILTERS)
        yield f"SUBSCRIBE to {FILTERS} filters of {FILTER_SIZE} bytes"
        short = packets.string("x")
        count = int(PACKET_SIZE * scale) // (len(short) + 1)
        connection.sendall(packets.packet(0x82, b"\x00\x02" + (short + b"\x01") * count))
        _synchronize(connection)
        yield f"one SUBSCRIBE with {count:,} filters"
        count = int(PACKET_SIZE * scale) // len(short)
        connection.sendall(packets.packet(0xA2, b"\x00\x03" + short * count))
        _synchronize(connection)
        yield f"one UNSUBSCRIBE with {count:,} filters"


def _absent_sessions(gateway: WatchedGateway, scale: float) -> Steps:
    count = int(ABSENT * scale)
    for number in range(count):
        with socket.create_connection(gateway.address_of("mqtt"), TIMEOUT_S) as connection:
            connection.sendall(
                packets.packet(
                    0x10, packets.string("MQTT") + b"\x04\x00\x00\x00" + packets.string(f"absent-{number}")
                )
            )
            if len(connection.recv(4)) != 4:
                raise BenchError("a client was not admitted")
            subscribe_to(connection, number, FILTERS)
            connection.sendall(DISCONNECT)
            _wait_for_end(connection)
    yield f"{count} clients leave sessions with {FILTERS} filters of {FILTER_SIZE} bytes"


def _many_connections(gateway: WatchedGateway, scale: float) -> Steps:
    count = int(IDLE_CONNECTIONS * scale)
    raise_file_limit(count)
    connections = [connect_mqtt(gateway.address_of("mqtt"), number, packets.BENCH) for number in range(count)]
    yield f"{count:,} connections begin"
    for connection in connections:
        connection.close()
    time.sleep(1)
    yield "they end without a word"


def _speaking(address: Address, app_version: str, tokens: int) -> list[socket.socket]:
    """Return connections each of which has spoken for `tokens` endpoints of its own."""
    connections = []
    for number in range(CONNECTIONS):
        connection = connect_mqtt(address, number, packets.BENCH)
        connection.settimeout(TIMEOUT_S)
        for begin in range(0, tokens, BATCH):
            messages = [
                packets.packet(
                    0x30, packets.string(f"kp1/{app_version}/{EXTENSION}/{number}-{token}/json") + b"{}"
                )
                for token in range(begin, min(begin + BATCH, tokens))
            ]
            connection.sendall(b"".join(messages))
            _synchronize(connection)
        connections.append(connection)
    return connections


def subscribe_to(connection: socket.socket, first: int, count: int) -> None:
    """Subscribe to long topic filters that nobody else has."""
    body = b"".join(
        packets.string(f"{first}/{number}/".ljust(FILTER_SIZE, "x")) + b"\x01" for number in range(count - 1)
    )
    connection.sendall(packets.packet(0x82, struct.pack("!H", 1) + body))
    _synchronize(connection)


def _synchronize(connection: socket.socket) -> None:
    """Return when the gateway has handled all that was sent."""
    connection.sendall(PINGREQ)
    end = b""
    while not end.endswith(PINGRESP):
        data = connection.recv(65_536)
        if not data:
            raise BenchError("the gateway has closed a connection")
        end = (end + data)[-2:]


def _wait_for_end(connection: socket.socket) -> None:
    """Return when the gateway has closed a connection."""
    connection.settimeout(TIMEOUT_S)
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    connection.close()
