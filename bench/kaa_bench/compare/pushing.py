"""Pushes to MQTT devices, from NATS or from another client of a broker, counted at the devices.

All messages have one size, so the number of bytes gives their count; the first message of each device is compared as a
whole. A round starts when the last one has arrived, so no message is dropped for lack of space.
"""

import select
import socket
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import NamedTuple

from kaa_gateway.bus import subjects
from kaa_gateway.wire import esp

from kaa_bench import mqtt_packets as mqtt
from kaa_bench import packets
from kaa_bench.compare.instruments import Instrument
from kaa_bench.connecting import (
    Address,
    connect_mqtt,
    connect_nats,
    raise_file_limit,
    read_exactly,
)
from kaa_bench.errors import BenchError

DEPTH = 8
"""Messages to each device in a round."""
STALL_S = 10.0
RECEIVE_SIZE = 1 << 20


class PushResult(NamedTuple):
    """The number of messages that arrived, and how long that took."""

    messages: int
    seconds: float


class PushSpec(NamedTuple):
    """Where devices connect, and how messages are sent: by 4/ESP, as bare NATS messages, or by a client."""

    devices: Address
    source: Address
    kind: str
    instance: str = ""


class Pusher(Instrument):
    """Subscribed devices, and the source of messages to them."""

    def __init__(self, spec: PushSpec, count: int) -> None:
        super().__init__(_push, spec, count)

    def run(self, seconds: float = 0.0, messages: int = 0) -> PushResult:
        """Push for at least a time and a number of messages."""
        result: PushResult = self._request(seconds=seconds, messages=messages)
        return result


PUSHED = replace(packets.BENCH, token_prefix="push--")
"""Endpoints of their own: those of other rows may have sessions over CoAP and KP/UDP too, which a push looks at."""


def topic(device: int) -> str:
    """Return the topic on which a device gets pushes."""
    return f"{PUSHED.resource_path(device)}/status"


def message(spec: PushSpec, device: int) -> bytes:
    """Return the push to a device as its source sends it."""
    if spec.kind == "client":
        return mqtt.encode(mqtt.Publish(topic(device), packets.PAYLOAD))
    if spec.kind == "esp":
        subject = subjects.service(spec.instance, "esp", subjects.EXTENSION_DATA)
        datum = esp.encode_extension_data(
            "", packets.TIMESTAMP, 0, packets.APP_VERSION, packets.EXTENSION, PUSHED.token(device),
            "/json", None, packets.PAYLOAD, 200,
        )  # fmt: skip
    else:
        subject, datum = topic(device).replace("/", "."), packets.PAYLOAD
    return f"PUB {subject} {len(datum)}\r\n".encode() + datum + b"\r\n"


def _push(pipe: Connection, spec: PushSpec, count: int) -> None:
    raise_file_limit(count)
    devices = []
    expected = [mqtt.encode(mqtt.Publish(topic(device), packets.PAYLOAD)) for device in range(count)]
    for device in range(count):
        devices.append(connected := connect_mqtt(spec.devices, device, PUSHED))
        connected.sendall(mqtt.encode(mqtt.Subscribe(1, ((topic(device), 0),))))
        suback = mqtt.encode(mqtt.Suback(1, (0,)))
        if read_exactly(connected, len(suback)) != suback:
            raise BenchError(f"the subscription of device {device} was refused")
    source = connect_mqtt(spec.source, count, PUSHED) if spec.kind == "client" else connect_nats(spec.source)
    try:
        source.sendall(b"".join(message(spec, device) for device in range(count)))
        for device, connected in enumerate(devices):
            if read_exactly(connected, len(expected[device])) != expected[device]:
                raise BenchError(f"device {device} got something else than what was pushed")
        pipe.send(None)
        block = b"".join(message(spec, device) for device in range(count) for _ in range(DEPTH))
        while True:
            wanted = pipe.recv()
            pipe.send(_rounds(source, devices, block, len(expected[0]), **wanted))
    finally:
        for connected in (*devices, source):
            connected.close()


def _rounds(
    source: socket.socket,
    devices: list[socket.socket],
    block: bytes,
    size: int,
    seconds: float,
    messages: int,
) -> PushResult:
    """Run rounds until the time is over and there were enough messages."""
    in_round = len(devices) * DEPTH
    watched = select.epoll()
    by_descriptor = {connected.fileno(): connected for connected in devices}
    for descriptor in by_descriptor:
        watched.register(descriptor, select.EPOLLIN)
    started, rounds = time.monotonic(), 0
    with watched:
        while rounds * in_round < messages or time.monotonic() - started < seconds:
            source.sendall(block)
            missing = in_round * size
            while missing:
                ready = watched.poll(STALL_S)
                if not ready:
                    raise BenchError(f"stalled: {missing // size} pushes did not arrive")
                for descriptor, _ in ready:
                    data = by_descriptor[descriptor].recv(RECEIVE_SIZE)
                    if not data:
                        raise BenchError("the server closed the connection of a device")
                    missing -= len(data)
            rounds += 1
    return PushResult(rounds * in_round, time.monotonic() - started)
